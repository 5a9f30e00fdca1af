"""A profile measured here: the engine's operators one by one, and whole iterations of bursts through the engine."""

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.engine import Clock, EngineInfo, Operators, ProfilableEngine
from gpu_simulate_test.io.files import read_json, write_json
from gpu_simulate_test.io.profile_tables import ATTENTION, ITERATION, MLP, NOISE
from gpu_simulate_test.io.progress import progress, tracked
from gpu_simulate_test.io.provenance import environment, now
from gpu_simulate_test.io.tables import Table
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.operators import OperatorModel
from gpu_simulate_test.latency.reference_bursts import ReferenceBursts
from gpu_simulate_test.profiles.bundle import Contents, identity
from gpu_simulate_test.profiles.bursts import (
    Episode,
    Measured,
    cost,
    fair_share,
    first_of,
    iteration_table,
    noise_record,
    plan_episodes,
    random_episode,
    run_episode,
    schedule,
    traffic_episode,
)
from gpu_simulate_test.profiles.operators import Reach, operator_points, operator_tables, powers_of_two, time_operators
from gpu_simulate_test.profiles.predictors import Predictors

log = logging.getLogger(__name__)

_HELD_OUT_SEED = 1000
_MAX_CONCURRENCY = 8
_MIN_BURSTS_LEFT = 4  # after the first round, a burst may take a quarter of the time left
_SAVE_EVERY_S = 10.0


def reach_of(workload: Workload, info: EngineInfo) -> Reach:
    """What batches this workload and these engine settings can make."""
    totals = workload.lengths["num_prefill_tokens"] + workload.lengths["num_decode_tokens"]
    longest = 1 << int(totals.max() - 1).bit_length()  # room above, so that a similar workload is covered too
    return Reach(
        max_tokens=info.limits.max_num_batched_tokens,
        max_seqs=min(info.limits.max_num_seqs, len(workload)),
        max_context=min(longest, info.max_model_len, info.limits.kv_tokens),
        max_cached=info.limits.kv_tokens,
    )


def fill(
    config: VidurProfileConfig, workload: Workload, engine: ProfilableEngine, clock: Clock, kept: Path
) -> Contents:
    """Measure.

    Parameters
    ----------
    workload : Workload
        Its lengths bound what is profiled.
    kept : pathlib.Path
        Where an interrupted run leaves what it has measured, to go on from.
    """
    started = now()
    info = engine.info()
    reach = reach_of(workload, info)
    log.info("profiling %s: batches up to %s", info.name, asdict(reach))
    operators = engine.operators()
    tables: dict[Table, pd.DataFrame] = {}
    operator_meta: dict[str, Any] = {"points": 0}
    if operators is not None:
        tables, operator_meta = _profile_operators(config, operators, reach, info)
    measured, missing = _profile_iterations(config, workload, engine, reach, clock, kept)
    speed, table = measured.speed, measured.table()
    held_out = table["held_out"] == 1
    iteration = iteration_table(table, speed)
    model = OperatorModel(tables[MLP], tables[ATTENTION], config.model.num_layers) if tables else None
    predictors = Predictors.fit(model, iteration)
    tables |= {ITERATION: iteration, NOISE: noise_record(table, predictors.predict_table(table))}
    without = Predictors.fit(model, iteration_table(table[~held_out], speed))
    meta = {
        "engine": info.record(),
        "started_at": started,
        "ended_at": now(),
        "env": environment(),
        "reach": asdict(reach),
        "operators": operator_meta,
        "reference_ns": speed.reference_ns,
        "drift": float(np.ptp(speed.slowness(np.array(speed.times_ns)))),
        "iterations": {
            "points": len(iteration),
            "measured": int(iteration["repeats"].sum()),
            "bursts_that_did_not_fit": missing,
        },
        "held_out": _check(without, iteration_table(table[held_out], speed)),
        "how": {
            "operators": f"{config.vidur.profiling.repeats} timed repeats after 2 untimed ones, "
            + ("CUDA events" if info.device == "cuda" else "monotonic clock"),
            "iterations": "whole engine steps of synthetic bursts, in shuffled rounds, scaled to the machine's "
            "mean speed by reference bursts in between",
        },
    }
    return Contents(tables, meta, _lines(config, meta))


def _profile_operators(
    config: VidurProfileConfig, operators: Operators, reach: Reach, info: EngineInfo
) -> tuple[dict[Table, pd.DataFrame], dict[str, Any]]:
    points = operator_points(operators, reach)
    timer = time_operators(points, operators, config.vidur.profiling.repeats)
    timings = list(tracked(timer, "vidur-profile operators", len(points), "points"))
    spread = float(np.median([values.std() / np.median(values) for values in timings]))
    mlp, attention = operator_tables(points, timings, config.model, info.limits.block_size)
    return {MLP: mlp, ATTENTION: attention}, {"points": len(mlp) + len(attention), "median_spread": spread}


def _profile_iterations(
    config: VidurProfileConfig, workload: Workload, engine: ProfilableEngine, reach: Reach, clock: Clock, kept: Path
) -> tuple[Measured, int]:
    """Run the scheduled bursts until the time is over; also how many of one round did not fit whole.

    What an interrupted run of the same settings left in `kept` is gone on from.
    """
    settings = config.vidur.profiling
    planned, held_out = plan_episodes(reach), _like_traffic(workload, reach, _HELD_OUT_SEED)
    rounds = [[*planned, *_like_traffic(workload, reach, number)] for number in range(settings.repeats)]
    order = schedule(rounds, held_out)
    one_round = len(order) // len(rounds)
    same = {**identity(config), "engine": engine.info().record(), "reach": asdict(reach), "bursts": len(order)}
    list(run_episode(engine, planned[0], config.model.vocab_size, clock))  # the first one warms the engine up
    measured = _read_kept(kept, same, clock)
    saved = time.monotonic()
    began = saved - measured.elapsed_s

    def save() -> None:
        write_json(kept, {"of": same, "measured": asdict(measured)})

    try:
        with progress("vidur-profile iterations", 100, "%", _percent(measured, len(order), settings.budget_s)) as bar:
            for episode, is_held_out in order[measured.bursts :]:
                left_s = settings.budget_s - measured.elapsed_s
                if left_s <= 0 and measured.rows:
                    break
                part = episode
                if measured.cost:
                    left = left_s * measured.cost / measured.elapsed_s
                    rest = [cost(other) for other, _ in order[measured.bursts : one_round]]
                    part = first_of(episode, fair_share(rest, left) if rest else left / _MIN_BURSTS_LEFT)
                if measured.bursts < one_round and len(part) < len(episode):
                    measured.cut += 1
                if part:
                    measured.speed.watch(engine, clock)
                    measured.add(run_episode(engine, part, config.model.vocab_size, clock), held_out=is_held_out)
                    measured.cost += cost(part)
                measured.bursts += 1
                measured.elapsed_s = time.monotonic() - began
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    saved = time.monotonic()
                    save()
                bar.update(_percent(measured, len(order), settings.budget_s) - bar.done)
    except KeyboardInterrupt:
        save()
        raise
    kept.unlink(missing_ok=True)
    missing = measured.cut + max(0, one_round - measured.bursts)
    if missing:
        log.warning(
            "%d of %d kinds of bursts did not fit into %g s, or not whole: larger batches are extrapolated; "
            "raise vidur.profiling.budget_s",
            missing,
            one_round,
            settings.budget_s,
        )
    return measured, missing


def _percent(measured: Measured, bursts: int, budget_s: float) -> int:
    """How much is done, by whichever ends sooner: the bursts or the time for them."""
    return min(100, int(100 * max(measured.bursts / bursts, measured.elapsed_s / budget_s)))


def _like_traffic(workload: Workload, reach: Reach, seed: int) -> list[Episode]:
    """Requests of the workload at several degrees of concurrency, and others."""
    columns = workload.lengths[["num_prefill_tokens", "num_decode_tokens"]]
    lengths = list(columns.itertuples(index=False, name=None))
    degrees = [0.5, *powers_of_two(min(reach.max_seqs, _MAX_CONCURRENCY))[::-2]]  # 0.5: idle half of the time
    return [random_episode(reach, seed), *(traffic_episode(lengths, degree, seed) for degree in degrees)]


def _read_kept(kept: Path, same: dict[str, Any], clock: Clock) -> Measured:
    if not kept.is_file():
        return Measured()
    found = read_json(kept)
    if found.get("of") != same:
        return Measured()
    fields = found["measured"]
    log.info("going on from the %d bursts of an interrupted run", fields["bursts"])
    return Measured(**fields | {"speed": ReferenceBursts(**fields["speed"])}).later(clock.now_ns())


def _check(predictors: Predictors, held_out: pd.DataFrame) -> dict[str, Any]:
    """Relative error of a predictor on iterations it has not seen; the profile is then fitted on them as well."""
    if held_out.empty:
        return {"iterations": 0}
    predicted = predictors.predict_table(held_out)
    error = predicted / held_out["median_ns"].to_numpy(dtype=float) - 1
    return {
        "iterations": len(held_out),
        "median_error": float(np.median(error)),
        "median_abs_error": float(np.median(np.abs(error))),
        "p90_abs_error": float(np.quantile(np.abs(error), 0.9)),
        "total_error": float(predicted.sum() / held_out["median_ns"].sum() - 1),
    }


def _lines(config: VidurProfileConfig, meta: dict[str, Any]) -> list[str]:
    lines = [
        f"- engine: {config.backend.name}, {config.hardware.dtype}",
        f"- operator points: {meta['operators']['points']}; "
        + (
            f"spread of repeats, median: {meta['operators']['median_spread']:.1%}"
            if meta["operators"]["points"]
            else "this engine's operators cannot be called by themselves"
        ),
        f"- iteration points: {meta['iterations']['points']}, measured {meta['iterations']['measured']} times; "
        "kinds of bursts that did not fit into the time, or not whole: "
        f"{meta['iterations']['bursts_that_did_not_fit']}",
        f"- the machine's speed wandered by {meta['drift']:.0%} meanwhile, which the times are corrected for",
    ]
    check = meta["held_out"]
    if check["iterations"]:
        lines.append(
            f"- predictor fitted without them on {check['iterations']} held-out iterations: "
            f"median error {check['median_error']:+.1%}, "
            f"median absolute error {check['median_abs_error']:.1%}, P90 {check['p90_abs_error']:.1%}, "
            f"total time {check['total_error']:+.1%}"
        )
    else:
        lines.append("- predictor not checked on held-out iterations: the time budget ended first")
    return lines
