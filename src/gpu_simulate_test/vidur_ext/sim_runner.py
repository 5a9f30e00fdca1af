"""The vidur-sim stage: settings and artifacts in, metric tables of the simulation out."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_simulate_test.config.schema import StageConfig, VidurSimConfig
from gpu_simulate_test.io.metadata import sources_told
from gpu_simulate_test.io.progress import Progress, progress
from gpu_simulate_test.io.run_dir import OpenRunDir, RunDir
from gpu_simulate_test.io.summary import latency_lines
from gpu_simulate_test.io.tables import AT_REAL_SPEED, REAL_ITERATIONS, SAMPLES
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.io.workload_prefixes import block_keys
from gpu_simulate_test.latency.calibration import NO_DOUBT, NOTHING, Calibrated
from gpu_simulate_test.latency.model import LatencyModel, Slowed
from gpu_simulate_test.latency.noise import Noise, Noisy
from gpu_simulate_test.profiles.bundle import Profile
from gpu_simulate_test.profiles.calibration import calibrated_constants
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.run_tables import request_table
from gpu_simulate_test.simulator.real_run import RealRun, machine_speed, predicted_iterations, slowness_record
from gpu_simulate_test.simulator.run_files import BACKEND, Totals, write_simulation
from gpu_simulate_test.simulator.samples import Samples
from gpu_simulate_test.spans import Floats
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.profiling_root import profile_mismatch
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.simulation import Loop
from gpu_simulate_test.vidur_ext.stock_predictor import train_stock
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings, check_limits, check_loop, sim_settings

log = logging.getLogger(__name__)

_APART_S = 4.0  # simulations that take longer are worth the start of other processes


def vidur_sim(
    config: VidurSimConfig,
    workload: Workload,
    profile: Profile,
    real: RealRun | None,
    run: OpenRunDir,
) -> dict[str, Any]:
    """Simulate `workload` and write the run directory but for its metadata, which are returned."""
    register_model(config.model)
    register_device(config.hardware)
    settings = sim_settings(config, real, profile.kv_tokens(real.limits if real else config.limits))
    check_limits(workload, settings)
    check_loop(config)
    predictors = Predictors.from_profile(profile)
    speed = machine_speed(profile.meta.get("reference_ns"), real) if config.match_speed else 1.0
    loop, kernels = _loop(config, settings, workload, profile, predictors, real, speed)
    samples = _samples(config, run, workload, settings, profile, predictors.noise, kernels, speed)
    constants = samples.constants
    loop, latency = loop.calibrated(constants), Calibrated.of(kernels, constants, settings.limits)
    runs = 1 + len(samples.folders) + (real is not None and real.iterations is not None)
    with progress("vidur-sim", runs * len(workload), "requests") as bar:
        began_s = time.perf_counter()
        totals = write_simulation(run.path, workload, loop.run(latency, bar.update), predictors.cover)
        took_s = 0.0 if run.record.multirun else time.perf_counter() - began_s  # other jobs have the other processors
        sampled = _sampled(samples, loop, took_s, bar.update)
        if real is not None and real.iterations is not None:
            _at_real_speed(run, workload, loop, latency, real, predictors, bar)
    if totals.outside:
        log.warning("%.1f %% of the simulated engine time lies outside the profiled range", 100 * totals.outside)
    lines = _summary(config, run.name, settings, workload, totals, real, speed, loop)
    mismatch = profile_mismatch(config, profile, real.meta if real else None)
    for one in mismatch:
        lines.append(f"- profile of another {one['what']}: measured with {one['profile']}, this is {one['settings']}")
    if "source" in profile.meta:
        lines.append(f"- profile: {profile.meta['source']}")
    if settings.num_blocks_estimated:
        lines.append("- KV blocks: an estimate of the operator database's memory model")
    if "sources" in profile.meta:
        lines.append(f"- operator times: {sources_told(profile.meta['sources'])}; the host's work is not in them")
    lines += latency_lines(totals.latencies, sampled)
    if config.vidur.samples and not samples.folders:
        lines.append("- no ranges: the profile has no record of how its iterations scattered")
    lines.append("- deterministic: the same profile and workload give the same tables")
    run.write_text("summary.md", "\n".join(lines) + "\n")
    return {
        **workload.record(),
        "profiling_root": str(Path(config.vidur.profiling.root).absolute()),
        "profile_mismatch": mismatch,
        "profile_held_out": profile.meta.get("held_out"),
        "profile_sources": profile.meta.get("sources"),
        "profile_source": profile.meta.get("source"),
        "real_run_dir": str(real.path.absolute()) if real else None,
        "settings": settings.record(),
        "predictor": config.vidur.predictor.name,
        "calibration": profile.calibration if config.vidur.predictor.name == "calibrated" else None,
        "loop": {"name": loop.name, "checked": loop.checked, "difference": loop.difference},
        "reference_ns": profile.meta.get("reference_ns"),
        "machine_speed": speed,
    }


def make_loop(
    config: StageConfig,
    settings: SimSettings,
    workload: Workload,
    real: RealRun | None,
    latency: LatencyModel,
    *,
    look_at: Callable[[Any], object] | None = None,
    count: int | None = None,
) -> Loop:
    """What serves a workload's requests, or the first `count` of them.

    Parameters
    ----------
    real : RealRun or None
        As many output tokens are made as there.
    latency : LatencyModel
        What our core and Vidur's loop are compared with.
    look_at : callable or None
        See `gpu_simulate_test.vidur_ext.simulation.Loop`.
    """
    lengths = workload.lengths
    num_decode = lengths["num_decode_tokens"].to_numpy() if real is None else real.num_decode_actual
    requests = workload.arrivals.first(count), lengths["num_prefill_tokens"].to_numpy()[:count], num_decode[:count]
    prefixes = None
    if settings.scheduler == "vllm_v1" and settings.limits.enable_prefix_caching:
        prefixes = block_keys(workload, settings.limits.block_size)
    return Loop(config.vidur.loop.name, settings, requests, latency, look_at, prefixes)


def _loop(
    config: VidurSimConfig,
    settings: SimSettings,
    workload: Workload,
    profile: Profile,
    predictors: Predictors,
    real: RealRun | None,
    speed: float,
) -> tuple[Loop, LatencyModel]:
    """What serves the requests, and what says how long the kernels of their batches take."""
    name, look_at = config.vidur.predictor.name, None
    model = predictors.model(name)  # where it is stock: or the profile has nothing to train on
    if name == "stock":
        num_decode = workload.lengths["num_decode_tokens"] if real is None else real.num_decode_actual
        model = stock = train_stock(profile, settings, int((workload.lengths["num_prefill_tokens"] + num_decode).max()))
        look_at = stock.look_at
    kernels = model if speed == 1 else Slowed(model, speed)
    return make_loop(config, settings, workload, real, kernels, look_at=look_at), kernels


def _samples(
    config: VidurSimConfig,
    run: RunDir,
    workload: Workload,
    settings: SimSettings,
    profile: Profile,
    noise: Noise | None,
    kernels: LatencyModel,
    speed: float,
) -> Samples:
    """The further simulations that there is something to draw for, and the constants of the one without."""
    constants, deviation = NOTHING, NO_DOUBT
    if config.vidur.predictor.name == "calibrated":
        constants, deviation = (one.slowed(speed) for one in calibrated_constants(profile))
    count = config.vidur.samples if noise or deviation != NO_DOUBT else 0
    folders = [run.path / SAMPLES / str(number) for number in range(count)]
    return Samples(folders, workload, settings.limits, kernels, noise, constants, deviation)


def _sampled(samples: Samples, loop: Loop, took_s: float, on_finished: Callable[[int], object]) -> list[Floats]:
    """Do further simulations, each of about `took_s`; `latency_percentiles` of each."""
    count = len(samples.folders)
    processes = min(count, len(os.sched_getaffinity(0)))
    if loop.name == "core" and processes > 1 and took_s * count > _APART_S:
        return samples.apart(loop.core, processes, on_finished)
    return samples.here(lambda latency, constants, told: loop.calibrated(constants).run(latency, told), on_finished)


def _at_real_speed(
    run: RunDir,
    workload: Workload,
    loop: Loop,
    latency: LatencyModel,
    real: RealRun,
    predictors: Predictors,
    bar: Progress,
) -> None:
    """One whose iterations are as much slower than predicted as the real run's were at the time."""
    assert real.iterations is not None
    predicted = predicted_iterations(real.iterations, latency, predictors.cover)
    run.write_table(REAL_ITERATIONS, predicted)
    noisy = Noisy(latency, Noise(slowness_record(real, real.iterations, predicted)), 0)
    requests = request_table(workload, loop.run(noisy, bar.update), BACKEND)
    run.write_table(AT_REAL_SPEED, requests[list(AT_REAL_SPEED.required)])


def _summary(
    config: VidurSimConfig,
    run_id: str,
    settings: SimSettings,
    workload: Workload,
    totals: Totals,
    real: RealRun | None,
    speed: float,
    loop: Loop,
) -> list[str]:
    limits = settings.limits
    return [
        f"# Simulated run {run_id}",
        "",
        f"- {settings.scheduler} scheduler, predictor {config.vidur.predictor.name}",
        f"- loop: {loop.described()}",
        f"- {config.model.id} on {config.hardware.name}{settings.split()}",
        f"- limits {'of the real run ' + real.path.name if real else 'from the config'}: "
        f"{limits.max_num_seqs} requests, {limits.max_num_batched_tokens} tokens a batch, "
        f"{limits.num_blocks} KV blocks of {limits.block_size}",
        f"- requests: {len(workload)}; output tokens: {totals.num_tokens}; iterations: {totals.num_iterations}",
        f"- engine time outside the profiled range: {totals.outside:.1%}",
        f"- times scaled by {speed:.3f}, the machine's slowness during the real run against the profile's",
        f"- preemptions: {totals.num_preemptions}",
        f"- prompt tokens found in the KV cache: {totals.num_cached_tokens}",
    ]
