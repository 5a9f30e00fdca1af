"""The vidur-profile stage: operators and whole iterations of the engine, on this device."""

import logging
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.engine import Clock, EngineInfo, ProfilableEngine, Step
from gpu_simulate_test.io.files import write_atomic, write_json
from gpu_simulate_test.io.provenance import SCHEMA_VERSION, environment, git_state, now
from gpu_simulate_test.io.run_dir import RunDir
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.vidur_ext.iterations import (
    Drift,
    Episode,
    cost,
    iteration_table,
    plan_episodes,
    random_episode,
    run_episode,
)
from gpu_simulate_test.vidur_ext.operators import (
    OperatorModel,
    Reach,
    operator_points,
    operator_tables,
    time_operators,
)
from gpu_simulate_test.vidur_ext.predictor import Predictors
from gpu_simulate_test.vidur_ext.profiling_root import (
    ATTENTION,
    ITERATION,
    MLP,
    PROFILE_META,
    bundle_dir,
    identity,
)

log = logging.getLogger(__name__)

_RANDOM_EPISODES = 8
_HELD_OUT_EPISODES = 4


def reach_of(workload: Workload, info: EngineInfo) -> Reach:
    """What batches this workload and these engine settings can make."""
    totals = workload.lengths["num_prefill_tokens"] + workload.lengths["num_decode_tokens"]
    longest = 1 << int(totals.max() - 1).bit_length()  # room above, so that a similar workload is covered too
    return Reach(
        max_tokens=info.max_num_batched_tokens,
        max_seqs=min(info.max_num_seqs, len(workload)),
        max_context=min(longest, info.max_model_len, info.num_blocks * info.block_size),
        max_cached=info.num_blocks * info.block_size,
    )


def profile(
    config: VidurProfileConfig,
    workload: Workload,
    engine: ProfilableEngine,
    clock: Clock,
    root: Path,
    run: RunDir,
) -> dict[str, Any]:
    """Measure and write the bundle.

    Parameters
    ----------
    workload : Workload
        Its lengths bound what is profiled.
    root : pathlib.Path
        The final profiling root, for the record; `run` is where it is written.

    Returns
    -------
    dict
        The bundle's metadata, ``profile_meta.json``.
    """
    started = now()
    info = engine.info()
    reach = reach_of(workload, info)
    log.info("profiling %s: batches up to %s", info.name, asdict(reach))
    mlp, attention, operator_spread = _profile_operators(config, engine, reach, info)
    steps, held_out, rounds, drift = _profile_iterations(config, engine, reach, clock)
    iteration = iteration_table(steps, drift)
    device, model_id = config.hardware.vidur_device, config.model.id
    bundle = bundle_dir(run.path, device, model_id)
    bundle.mkdir(parents=True)
    for name, frame in ((MLP, mlp), (ATTENTION, attention), (ITERATION, iteration)):
        _write_csv(bundle / name, frame)
    check = _check(OperatorModel(mlp, attention, config.model.num_layers), iteration, iteration_table(held_out, drift))
    meta = {
        "schema_version": SCHEMA_VERSION,
        **identity(config),
        "engine": asdict(info),
        "started_at": started,
        "ended_at": now(),
        **git_state(),
        "env": environment(),
        "reach": asdict(reach),
        "operators": {"points": len(mlp) + len(attention), "median_spread": operator_spread},
        "reference_ns": drift.reference_ns,
        "drift": float(np.ptp(drift.slowness(np.array(drift.times_ns)))),
        "iterations": {"points": len(iteration), "measured": int(iteration["repeats"].sum()), "rounds": rounds},
        "held_out": check,
        "how": {
            "operators": f"{config.vidur.profiling.repeats} timed repeats after 2 untimed ones, "
            + ("CUDA events" if info.device == "cuda" else "monotonic clock"),
            "iterations": "whole engine steps of synthetic bursts, in shuffled rounds, scaled to the machine's "
            "median speed by reference bursts in between",
        },
    }
    write_json(bundle / PROFILE_META, meta)
    run.write_text("summary.md", _summary(config, root, meta))
    return meta


def _profile_operators(
    config: VidurProfileConfig, engine: ProfilableEngine, reach: Reach, info: EngineInfo
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    operators = engine.operators()
    points = operator_points(operators, reach)
    timer = time_operators(points, operators, config.vidur.profiling.repeats)
    timings = list(tqdm(timer, total=len(points), desc="vidur-profile operators", unit="point"))
    spread = float(np.median([values.std() / np.median(values) for values in timings]))
    return *operator_tables(points, timings, config.model, info.block_size), spread


def _profile_iterations(
    config: VidurProfileConfig, engine: ProfilableEngine, reach: Reach, clock: Clock
) -> tuple[list[Step], list[Step], int, Drift]:
    """Steps to fit on, steps held out, complete rounds, and how the machine's speed drifted meanwhile.

    Every round runs every episode once in another order, so that a drift or a busy neighbour spreads
    over all of them. Cheap episodes come first in the first round: a budget too small for all leaves
    the large batches out, not the common ones.
    """
    settings = config.vidur.profiling
    deadline = time.monotonic() + settings.budget_s
    planned = plan_episodes(reach) + [random_episode(reach, seed) for seed in range(_RANDOM_EPISODES)]
    held_out_plan = [random_episode(reach, 1000 + seed) for seed in range(_HELD_OUT_EPISODES)]
    list(run_episode(engine, planned[0], config.model.vocab_size))  # the first one warms the engine up
    steps: list[Step] = []
    held_out: list[Step] = []
    drift = Drift()
    rounds = 0
    total = settings.repeats * (len(planned) + len(held_out_plan))
    with tqdm(total=total, desc="vidur-profile iterations", unit="burst") as bar:
        for number in range(settings.repeats):
            order: list[tuple[Episode, list[Step]]] = [(episode, steps) for episode in planned]
            order += [(episode, held_out) for episode in held_out_plan]
            if number == 0:
                order.sort(key=lambda item: cost(item[0]))
            else:
                random.Random(number).shuffle(order)
            for episode, into in order:
                if time.monotonic() > deadline and steps:
                    return steps, held_out, rounds, drift
                drift.watch(engine, clock)
                into.extend(run_episode(engine, episode, config.model.vocab_size))
                bar.update()
            rounds += 1
    return steps, held_out, rounds, drift


def _check(operators: OperatorModel, points: pd.DataFrame, held_out: pd.DataFrame) -> dict[str, Any]:
    """Relative error of the fitted predictor on iterations it has not seen."""
    if held_out.empty:
        return {"iterations": 0}
    predicted = Predictors.fit(operators, points).predict_table(held_out)
    error = predicted / held_out["median_ns"].to_numpy(dtype=float) - 1
    return {
        "iterations": len(held_out),
        "median_error": float(np.median(error)),
        "median_abs_error": float(np.median(np.abs(error))),
        "p90_abs_error": float(np.quantile(np.abs(error), 0.9)),
        "total_error": float(predicted.sum() / held_out["median_ns"].sum() - 1),
    }


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_atomic(path, lambda stream: stream.write(frame.to_csv(index=False).encode()))


def _summary(config: VidurProfileConfig, root: Path, meta: dict[str, Any]) -> str:
    lines = [
        f"# Profile of {config.model.id} on {config.hardware.name}",
        "",
        f"- engine: {meta['backend']}, {meta['dtype']}",
        f"- root: {root.name}",
        f"- operator points: {meta['operators']['points']}; "
        f"spread of repeats, median: {meta['operators']['median_spread']:.1%}",
        f"- iteration points: {meta['iterations']['points']}, measured {meta['iterations']['measured']} times "
        f"in {meta['iterations']['rounds']} complete rounds",
    ]
    lines.append(f"- the machine's speed wandered by {meta['drift']:.0%} meanwhile, which the times are corrected for")
    check = meta["held_out"]
    if check["iterations"]:
        lines.append(
            f"- predictor on {check['iterations']} held-out iterations: median error {check['median_error']:+.1%}, "
            f"median absolute error {check['median_abs_error']:.1%}, P90 {check['p90_abs_error']:.1%}, "
            f"total time {check['total_error']:+.1%}"
        )
    else:
        lines.append("- predictor not checked on held-out iterations: the time budget ended first")
    return "\n".join(lines) + "\n"
