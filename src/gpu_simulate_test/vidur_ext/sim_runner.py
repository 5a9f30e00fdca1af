"""The vidur-sim stage: settings and artifacts in, metric tables of the simulation out."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from tqdm import tqdm

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import VidurSimConfig
from gpu_simulate_test.engine import COMPOSITION, Composition
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.run_dir import OpenRunDir, read_run_meta, repeat_dirs
from gpu_simulate_test.io.summary import latency_lines, latency_percentiles
from gpu_simulate_test.io.tables import (
    AT_REAL_SPEED,
    ITERATION_METRICS,
    REAL_ITERATIONS,
    REQUEST_METRICS,
    SAMPLES,
    TOKEN_METRICS,
    read_table,
    requests_on_arrival,
    share_outside_profile,
    write_table,
)
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.model import batches_of
from gpu_simulate_test.latency.noise import Noise
from gpu_simulate_test.profiles.bundle import Profile
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.simulator.timeline import Timeline
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.loop import Loop, Step
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.simulation import SimSettings
from gpu_simulate_test.vidur_ext.stock_predictor import train_stock
from gpu_simulate_test.vidur_ext.vidur_predictor import PredictNs, by_composition

log = logging.getLogger(__name__)

_NEIGHBOURS = 15  # iterations
_PIECE = 4096  # requests whose tokens are in memory together


@dataclass(frozen=True)
class RealRun:
    """What the simulation takes from a real run of the same workload."""

    path: Path
    limits: EngineLimits
    num_decode_actual: np.ndarray
    presence: tuple[np.ndarray, np.ndarray]  # arrivals and completions of the requests that completed, ns
    reference_ns: float | None  # of the machine while it served, the mean of its repeats
    iterations: pd.DataFrame | None  # None: they were not recorded, or not whole


def load_real_run(path: Path, workload: Workload) -> RealRun:
    """Read a real run's engine settings and output lengths.

    Raises
    ------
    ArtifactError
        Incomplete, or of another workload.
    """
    meta = read_run_meta(path)
    if meta.get("workload_sha256") != workload.sha256:
        raise ArtifactError(f"real run of another workload: {path}; it served {meta.get('workload_dir')}")
    try:
        limits = EngineLimits.model_validate(meta["engine"]["limits"])
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(f"no engine settings in run_meta.json: {path}; leave real_run_dir out") from error
    requests = read_table(path, REQUEST_METRICS)
    # A request that failed in the real run has no length to learn from: it is simulated as asked.
    actual = requests["num_decode_tokens_actual"].where(requests["status"] == "ok", requests["num_decode_tokens"])
    repeats = [read_run_meta(one) for one in repeat_dirs(path, meta)]
    bursts = [repeat["reference_ns"] for repeat in repeats if "reference_ns" in repeat]
    iterations = None
    if meta.get("backend") != "recorded":
        iterations = read_table(path, ITERATION_METRICS)
        if not set(COMPOSITION) <= set(iterations):  # written before a column was added
            iterations = None
    done = requests[requests["status"] == "ok"]
    ends = done["completion_time_ns"] if "completion_time_ns" in done else done["first_token_time_ns"]
    presence = done["arrival_time_ns"].to_numpy(), ends.to_numpy(dtype=np.int64)
    return RealRun(path, limits, actual.to_numpy(), presence, float(np.mean(bursts)) if bursts else None, iterations)


def sim_settings(config: VidurSimConfig, real: RealRun | None) -> SimSettings:
    """Scheduling limits, from the real run where there is one, else from the config."""
    limits = config.limits if real is None else real.limits
    return SimSettings(
        model_id=config.model.id,
        device=config.hardware.vidur_device,
        network_device=config.hardware.vidur_network_device,
        scheduler=config.vidur.scheduler.name,
        limits=limits.model_copy(
            update={"enable_prefix_caching": limits.enable_prefix_caching and config.vidur.scheduler.name == "sarathi"}
        ),
    )


def machine_speed(config: VidurSimConfig, profile: Profile, real: RealRun | None) -> float:
    """How much slower the machine was during the real run than while it was profiled.

    1 without a real run or without reference bursts on both sides. It knows nothing of the workload: it
    is one fixed burst, timed on both occasions.
    """
    profiled = profile.meta.get("reference_ns")
    if not config.match_speed or real is None or real.reference_ns is None or not profiled:
        return 1.0
    return real.reference_ns / float(profiled)


def check_limits(workload: Workload, settings: SimSettings) -> None:
    """Refuse what the simulated scheduler would never finish.

    Raises
    ------
    ConfigError
        A request exceeds the KV cache, or, for vLLM's scheduler, the token budget.
    """
    lengths, limits = workload.lengths, settings.limits
    total = int((lengths["num_prefill_tokens"] + lengths["num_decode_tokens"]).max())
    capacity = (limits.num_blocks - limits.watermark_blocks) * limits.block_size
    if total > capacity:
        raise ConfigError(f"a request needs {total} tokens, above the KV cache's {capacity}; raise backend.num_blocks")
    longest = int(lengths["num_prefill_tokens"].max())
    if settings.scheduler == "vllm" and longest > limits.max_num_batched_tokens:
        raise ConfigError(
            f"a prompt of {longest} tokens is above the token budget of {limits.max_num_batched_tokens}, and "
            "vidur/scheduler=vllm does not split prompts; raise backend.max_num_batched_tokens"
        )


def vidur_sim(
    config: VidurSimConfig,
    workload: Workload,
    profile: Profile,
    real: RealRun | None,
    run: OpenRunDir,
) -> None:
    """Simulate `workload` and write the run directory, metadata last."""
    register_model(config.model)
    register_device(config.hardware)
    settings = sim_settings(config, real)
    check_limits(workload, settings)
    predictors = Predictors.from_profile(profile)
    speed = machine_speed(config, profile, real)
    num_prefill = workload.lengths["num_prefill_tokens"].to_numpy()
    num_decode = workload.lengths["num_decode_tokens"].to_numpy() if real is None else real.num_decode_actual
    if config.vidur.predictor.name == "stock":
        predictors.model("stock")  # or the profile has nothing to train on
        predict_ns: PredictNs = train_stock(profile, settings, int((num_prefill + num_decode).max())).predict_ns
    else:
        predict_ns = by_composition(partial(predictors.model(config.vidur.predictor.name).step_ns, now_ns=0.0))

    def predict(batch: Composition, start_s: float = 0.0, vidur_batch: Any = None) -> float:
        return predict_ns(batch, vidur_batch) * speed

    loop = Loop(
        config.vidur.loop.name,
        settings,
        workload.arrival_time_ns,
        num_prefill,
        num_decode,
        predict,
        own_batch=config.vidur.predictor.name == "stock",
    )

    samples = config.vidur.samples if predictors.noise else 0
    real_iterations = None
    if real is not None and real.iterations is not None:
        real_iterations = _real_iterations(real.iterations, predict, predictors)
    runs = 1 + samples + (real_iterations is not None)
    with tqdm(total=runs * len(workload), desc="vidur-sim", unit="request") as bar:
        result = loop.run(predict, bar.update)
        requests, latencies = _write_tables(run.path, workload, result)
        sampled = []
        for number in range(samples):
            assert predictors.noise is not None
            offset = predictors.noise.draw_offset(np.random.default_rng(number))
            noisy = loop.run(_with_noise(predict, predictors.noise, offset), bar.update)
            folder = run.path / SAMPLES / str(number)
            folder.mkdir(parents=True)
            sampled.append(_write_tables(folder, workload, noisy)[1])
        if real_iterations is not None:
            assert real is not None and real.iterations is not None
            run.write_table(REAL_ITERATIONS, real_iterations)
            noise = Noise(_record_of(real, real.iterations, real_iterations))
            requests_then = _request_table(workload, loop.run(_with_noise(predict, noise, 0), bar.update))
            run.write_table(AT_REAL_SPEED, requests_then[list(AT_REAL_SPEED.required)])
    iterations = _iteration_table(result, predictors)
    if outside := share_outside_profile(iterations):
        log.warning("%.1f %% of the simulated engine time lies outside the profiled range", 100 * outside)
    run.write_table(ITERATION_METRICS, iterations)
    lines = _summary(config, run.name, settings, requests, iterations, real, speed, loop)
    lines += latency_lines(latencies, sampled)
    if predictors.noise is None:
        lines.append("- no ranges: the profile has no record of how its iterations scattered")
    lines.append("- deterministic: the same profile and workload give the same tables")
    run.write_text("summary.md", "\n".join(lines) + "\n")
    run.finish(
        run_type="vidur",
        workload_dir=str(workload.path.absolute()),
        workload_sha256=workload.sha256,
        profiling_root=str(Path(config.vidur.profiling.root).absolute()),
        profile_held_out=profile.meta.get("held_out"),
        real_run_dir=str(real.path.absolute()) if real else None,
        settings=settings.record(),
        predictor=config.vidur.predictor.name,
        loop={"name": loop.name, "checked": loop.checked, "difference": loop.difference},
        reference_ns=profile.meta.get("reference_ns"),
        machine_speed=speed,
    )


def _with_noise(predict: Step, noise: Noise, offset: int) -> Step:
    """Scatter predictions as recorded iterations did, from `offset` ns of that record on."""

    def scattered(batch: Composition, start_s: float, vidur_batch: Any) -> float:
        return predict(batch, start_s, vidur_batch) * noise.ratio(offset + round(start_s * 1e9))

    return scattered


def _write_tables(folder: Path, workload: Workload, line: Timeline) -> tuple[pd.DataFrame, np.ndarray]:
    """Write a simulation's request and token metrics; the first of them, and `latency_percentiles`."""
    requests = _request_table(workload, line)
    write_table(folder, REQUEST_METRICS, requests)
    latencies: list[np.ndarray] = []
    write_table(folder, TOKEN_METRICS, _token_tables(line, latencies), num_rows=int(line.token_counts().sum()))
    return requests, latency_percentiles(requests, np.concatenate(latencies))


def _request_table(workload: Workload, line: Timeline) -> pd.DataFrame:
    start_ns, end_ns = (np.array(times, dtype=np.int64) for times in (line.start_ns, line.end_ns))
    requests = pd.DataFrame(
        {
            "request_id": workload.lengths["request_id"],
            "arrival_time_ns": workload.arrival_time_ns,
            "first_scheduled_time_ns": start_ns[line.first_scheduled],
            "first_token_time_ns": end_ns[[runs[0][0] for runs in line.spans]],
            "completion_time_ns": end_ns[[sum(runs[-1]) - 1 for runs in line.spans]],
            "num_prefill_tokens": workload.lengths["num_prefill_tokens"],
            "num_decode_tokens": workload.lengths["num_decode_tokens"],
            "num_decode_tokens_actual": line.token_counts(),
            "num_preemptions": line.restarts,
        }
    )
    return requests_on_arrival(requests, "vidur")


def _token_tables(line: Timeline, latencies: list[np.ndarray]) -> Iterator[pd.DataFrame]:
    """The token metrics of some requests at a time; the latencies are kept."""
    end_ns, all_counts = np.array(line.end_ns, dtype=np.int64), line.token_counts()
    for begin in range(0, len(line.spans), _PIECE):
        some = slice(begin, begin + _PIECE)
        counts, iterations = all_counts[some], line.token_iterations(some)
        times = end_ns[iterations]
        first = np.cumsum(counts) - counts
        begins = np.zeros(len(times), dtype=bool)
        begins[first] = True
        latency = np.diff(times, prepend=0)
        latencies.append(latency[~begins])
        yield pd.DataFrame(
            {
                "request_id": np.repeat(np.arange(begin, begin + len(counts)), counts),
                "token_index": np.arange(len(times)) - np.repeat(first, counts),
                "token_time_ns": times,
                "token_latency_ns": pd.arrays.IntegerArray(latency, begins),
                "iteration_id": iterations,
            }
        )


def _iteration_table(line: Timeline, predictors: Predictors) -> pd.DataFrame:
    batches = pd.DataFrame(line.batches, columns=list(COMPOSITION))
    took = np.array(line.end_ns) - np.array(line.start_ns)
    times = {"iteration_id": np.arange(len(batches)), "start_time_ns": line.start_ns, "end_time_ns": line.end_ns}
    after = {"num_preempted": line.preempted, "predicted_ns": took, "in_profile": predictors.cover(batches)}
    return pd.DataFrame(times).join(batches).assign(**after)


def _real_iterations(
    iterations: pd.DataFrame, predict: Callable[[Composition], float], predictors: Predictors
) -> pd.DataFrame:
    """The predictor on the real run's own iterations, for the attribution of the error."""
    batches = batches_of(iterations)
    return pd.DataFrame(
        {
            "iteration_id": iterations["iteration_id"],
            "predicted_ns": [round(predict(batch)) for batch in batches],
            "in_profile": predictors.cover(iterations),
        }
    )


def _record_of(real: RealRun, iterations: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """How much slower than predicted a run's iterations were, by the time since it began.

    The time until the next one counts, unless no request was left. Over a few neighbours, for the batch that is
    simulated at that time may be of another kind.
    """
    start, end = iterations["start_time_ns"], iterations["end_time_ns"]
    arrivals, completions = (np.sort(times) for times in real.presence)
    left = np.searchsorted(arrivals, end, side="right") > np.searchsorted(completions, end, side="right")
    took = (start.shift(-1).fillna(end.iloc[-1]) - start).where(left, end - start)
    took, expected = (
        one.rolling(_NEIGHBOURS, center=True, min_periods=1).sum() for one in (took, predicted["predicted_ns"])
    )
    return pd.DataFrame({"time_ns": start.mask(start == start.min(), 0), "ratio": took / expected})


def _summary(
    config: VidurSimConfig,
    run_id: str,
    settings: SimSettings,
    requests: pd.DataFrame,
    iterations: pd.DataFrame,
    real: RealRun | None,
    speed: float,
    loop: Loop,
) -> list[str]:
    limits = settings.limits
    return [
        f"# Simulated run {run_id}",
        "",
        f"- Vidur, {settings.scheduler} scheduler, predictor {config.vidur.predictor.name}",
        f"- loop: {loop.described()}",
        f"- {config.model.id} on {config.hardware.name}",
        f"- limits {'of the real run ' + real.path.name if real else 'from the config'}: "
        f"{limits.max_num_seqs} requests, {limits.max_num_batched_tokens} tokens a batch, "
        f"{limits.num_blocks} KV blocks of {limits.block_size}",
        f"- requests: {len(requests)}; output tokens: {requests['num_decode_tokens_actual'].sum()}; "
        f"iterations: {len(iterations)}",
        f"- engine time outside the profiled range: {share_outside_profile(iterations):.1%}",
        f"- times scaled by {speed:.3f}, the machine's slowness during the real run against the profile's",
        f"- preemptions: {int(requests['num_preemptions'].sum())}",
    ]
