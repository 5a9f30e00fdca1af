"""Constants that are known, planted in an engine on a virtual clock: whether they are found, and nothing without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.table import Row, Scale
from benchmarks.timing import seconds
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.calibration.estimate import Estimate, estimate
from gpu_simulate_test.calibration.observed import Iterations, Observed
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.calibration import NAMES, NOTHING, Calibrated, Constants
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.run_tables import first_and_last_tokens
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.vidur_ext.simulation import Loop
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings

PLANTED = Constants(step_ns=3e6, sequence_ns=0.2e6, kernel_factor=1.15, front_end_ns=20e6)
Source = Literal["iterations", "requests"]
_SCATTER = 0.05  # of iterations
_DRIFT, _DRIFT_STEP_NS = 0.02, 100_000_000  # of the speed of the machine, within about a second
_LIMITS = EngineLimits(max_num_seqs=128, max_num_batched_tokens=2048, block_size=16, num_blocks=50_000)


def rows(scale: Scale) -> Iterator[Row]:
    """Trials of either kind, by iteration records and by request times alone; and how long one takes."""
    trials = 20 if scale == "full" else 3
    for source in ("iterations", "requests"):
        for what, planted in (("planted", PLANTED), ("none planted", NOTHING)):
            right = sum(is_right(planted, estimated(seed, planted, source)) for seed in range(trials))
            figure = f"{right} of {trials} trials right"
            yield Row(f"constants from {source}, {what}", figure, ratio=right / trials, at_least=0.95)
    took = seconds(lambda: estimated(0, PLANTED, "requests"))
    yield Row("calibration on 1,000 requests, s", f"{took:.1f} s", ratio=took, at_most=60)


def is_right(planted: Constants, found: Estimate) -> bool:
    """Whether the intervals hold all that was planted, or nothing was found where nothing was."""
    if planted == NOTHING:
        return not found.found
    values = np.array([getattr(planted, name) for name in NAMES])
    return bool(((found.low <= values) & (values <= found.high)).all())


def estimated(seed: int, planted: Constants, source: Source, count: int = 1000) -> Estimate:
    """Calibrate on a run of an engine that has these constants."""
    run = planted_run(seed, planted, source, count)
    return estimate(run.observations)


class _Kernels:
    """About those of a model of 8 B parameters on an H100, as a formula."""

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        prompts = 28e3 * max(0, batch.num_prefill_tokens - 128) + 3.0 * batch.prefill_pairs
        return 6.5e6 + prompts + 15e3 * batch.num_decode_seqs + 60.0 * batch.kv_tokens_decode

    def decode_run_ns(self, batch: Composition, count: int) -> None:
        return None


class _Scattered:
    """Iterations that scatter, on a machine whose speed drifts; on average as fast as the model says."""

    def __init__(self, model: LatencyModel, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng
        drift = np.zeros(4096)
        for index, moved in enumerate(rng.normal(0, _DRIFT * np.sqrt(1 - 0.9**2), len(drift) - 1)):
            drift[index + 1] = 0.9 * drift[index] + moved
        self._drift = np.exp(drift - _DRIFT**2 / 2)

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        scatter = np.exp(self._rng.normal(0, _SCATTER) - _SCATTER**2 / 2)
        drift = self._drift[int(now_ns / _DRIFT_STEP_NS) % len(self._drift)]
        return float(self._model.step_ns(batch, now_ns) * scatter * drift)

    def decode_run_ns(self, batch: Composition, count: int) -> None:
        return None


def planted_run(seed: int, planted: Constants, source: Source, count: int = 1000) -> Observed:
    """A run of an engine that has these constants, at eight requests a second."""
    rng = np.random.default_rng(seed)
    arrival_ns = np.rint(np.cumsum(rng.exponential(1e9 / 8, count))).astype(np.int64)
    prompts = np.clip(rng.lognormal(5.3, 0.8, count), 8, 2000).astype(np.int64)
    outputs = rng.integers(16, 200, count)
    kernels = _Kernels()
    loop = _loop((arrival_ns, prompts, outputs), kernels)
    line = loop.calibrated(planted).run(_Scattered(Calibrated(kernels, planted, _LIMITS), rng), lambda _count: None)
    first, last = first_and_last_tokens(line)
    recorded = None
    if source == "iterations":
        of_kernels = np.array([kernels.step_ns(batch, 0.0) for batch in line.batches], dtype=np.float64)
        seqs = line.num_seqs.astype(np.float64)
        took = (line.end_ns - line.start_ns).astype(np.float64)
        recorded = Iterations(line.start_ns, of_kernels, seqs, took)
    moved = np.sort(np.maximum(0, arrival_ns + rng.integers(-10_000_000, 10_000_000, count)))
    return Observed(
        number=0,
        path=Path(),
        run_id=f"trial {seed}",
        sha256="",
        workload_sha256="",
        ok=np.ones(count, dtype=bool),
        arrival_ns=arrival_ns,
        ttft_ns=line.out_ns[first] - arrival_ns,
        e2e_ns=line.out_ns[last] - arrival_ns,
        num_tokens=outputs,
        iterations=recorded,
        loop=loop,
        beside=_loop((moved, prompts, outputs), kernels),
        kernels=kernels,
        speed=1.0,
    )


def _loop(requests: tuple[Ints, Ints, Ints], kernels: LatencyModel) -> Loop:
    settings = SimSettings("", "", "", "vllm_v1", _LIMITS, False, "round_robin")
    arrival_ns, prompts, outputs = requests
    return Loop("core", settings, (ArrivalProcess.at(arrival_ns), prompts, outputs), kernels)
