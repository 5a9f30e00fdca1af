"""vidur-sim on the Azure conversation lengths, a thousand requests to a million; the core against Vidur's own loop."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.stages import SHARED
from benchmarks.table import Row, Scale
from benchmarks.timing import Usage, measured, seconds
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.simulator.engine import run_core

TRACE = SHARED / "traces" / "azure_llm_2023_conv.csv"
PROFILE = SHARED / "gpu-public" / "rtxpro6000-llama-3.1-8b" / "profile"
LIMITS = EngineLimits(max_num_seqs=128, max_num_batched_tokens=2048, block_size=16, num_blocks=30_000)
SETTINGS = (
    "model=llama_3_1_8b",
    "hardware=rtx_pro_6000",
    "backend=recorded",
    "workload=trace",
    "workload.trace_time_scale=0.7231",  # 85 % of the simulated capacity
    *(f"limits.{name}={getattr(LIMITS, name)}" for name in ("max_num_seqs", "max_num_batched_tokens", "num_blocks")),
    f"profile.folder={PROFILE}",
)
_MIB = 1 << 20


def rows(scale: Scale) -> list[Row]:
    """How time and memory grow with the requests; the two loops on the same trace at a constant time an iteration."""
    if not TRACE.is_file():
        return [Row("vidur-sim on the Azure trace", f"skipped: {TRACE} is not there")]
    sizes = [1_000, 10_000] + ([100_000, 1_000_000] if scale == "full" else [])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        taken = [_simulated(root, size) for size in sizes]
    table = [
        Row(
            f"vidur-sim, {size:,} requests of the Azure conversation trace at 85 % of capacity",
            f"{usage.wall_s:.1f} s, {usage.cpu_s:.1f} s of CPU, {usage.peak_bytes / _MIB:.0f} MiB",
            ratio=usage.peak_bytes / (2 << 30 if size > 100_000 else 1 << 30),
            at_most=1,
        )
        for size, usage in zip(sizes, taken, strict=True)
    ]
    return [*table, _against_vidur(100_000 if scale == "full" else 1_000)]


def trace(count: int) -> pd.DataFrame:
    """The first `count` requests of the trace, which begins anew where it ends."""
    once = pd.read_csv(TRACE)
    period = once["arrived_at"].iloc[-1] + once["arrived_at"].diff().mean()
    rounds = [once.assign(arrived_at=once["arrived_at"] + number * period) for number in range(-(-count // len(once)))]
    return pd.concat(rounds, ignore_index=True).head(count)


def _run(root: Path, stage: str, more: Sequence[str] = ()) -> Usage:
    settings = [*SETTINGS, f"output.root={root}", *more]
    return measured([sys.executable, "-m", f"gpu_simulate_test.cli.{stage}", *settings])


def _simulated(root: Path, count: int) -> Usage:
    work = root / f"{count}"
    work.mkdir()
    file = f"workload.trace={work}/trace.csv"
    trace(count).to_csv(work / "trace.csv", index=False)
    _run(work, "workload_spec", [file])
    _run(work, "vidur_profile", [file])
    return _run(work, "vidur_sim", [file])


class _Constant:
    """The same time for every iteration."""

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        return 50e6

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray | None:
        return np.full(count, 50e6)


def _against_vidur(count: int) -> Row:
    from gpu_simulate_test.vidur_ext.run_vidur import register_all
    from gpu_simulate_test.vidur_ext.simulation import simulate
    from gpu_simulate_test.vidur_ext.vidur_config import SimSettings

    register_all()
    asked = trace(count)
    arrival = (asked["arrived_at"] * 0.7231e9).round()
    lengths = asked["num_prefill_tokens"], asked["num_decode_tokens"]
    arrivals, prompts, outputs = (column.to_numpy(dtype=np.int64) for column in (arrival, *lengths))
    process = ArrivalProcess.at(arrivals)
    settings = SimSettings("meta-llama/Llama-3.1-8B", "rtx_pro_6000", "rtx_pro_6000_node", "sarathi", LIMITS)
    core_s = seconds(lambda: run_core(LIMITS, _Constant(), process, prompts, outputs))
    vidur_s = seconds(lambda: simulate(settings, _Constant(), process, prompts, outputs))
    return Row(
        f"Vidur's loop against the core, {count:,} of these requests, 50 ms an iteration",
        f"{vidur_s:.1f} s and {core_s:.2f} s",
        ratio=vidur_s / core_s,
        at_least=20,
    )
