"""What asking a latency model costs: one batch at a time, and a run of decode iterations as one array."""

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.table import Row, Scale
from benchmarks.timing import seconds
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.latency.iterations import fit_iterations
from gpu_simulate_test.latency.kernels import KernelModel
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.latency.operators import OperatorModel
from gpu_simulate_test.profiles.llmservingsim import read_recorded_profile

PROFILE = (
    Path(os.environ.get("GST_SHARED_DATA", project_root().parent / "shared" / "data"))
    / "gpu-public"
    / "rtxpro6000-llama-3.1-8b"
    / "profile"
)
LAYERS, RUN = 32, 64


def rows(scale: Scale) -> list[Row]:
    """One row a model, all on the tables of the public RTX PRO 6000 profile; the quickest of the rounds."""
    if not PROFILE.is_dir():
        return [Row("latency models", f"not measured: the public profile is not here: {PROFILE.name}")]
    mlp, attention, kernels = read_recorded_profile(PROFILE)
    operators = OperatorModel(mlp, attention, LAYERS)
    by_kernel = KernelModel(operators, kernels, LAYERS)
    rng = random.Random(0)
    decoding, mixed = ([_batch(rng, prompts) for _ in range(2000)] for prompts in (0, 1))
    points = pd.DataFrame([*decoding, *mixed], columns=list(Composition._fields))
    points = points.assign(repeats=1, median_ns=[by_kernel.step_ns(batch, 0.0) for batch in (*decoding, *mixed)])
    models: dict[str, LatencyModel] = {
        "kernels": by_kernel,
        "operators": operators,
        "iterations (fitted to what the kernels say)": fit_iterations(points, operators),
    }
    rounds = 30 if scale == "full" else 10
    return [_row(name, model, decoding, mixed, rounds) for name, model in models.items()]


def _row(
    name: str, model: LatencyModel, decoding: Sequence[Composition], mixed: Sequence[Composition], rounds: int
) -> Row:
    one, with_prompt = (
        _microseconds(lambda batch: model.step_ns(batch, 0.0), batches, rounds) for batches in (decoding, mixed)
    )
    run = _microseconds(lambda batch: model.decode_run_ns(batch, RUN), decoding[:200], rounds) / RUN
    return Row(
        f"latency from {name}: a decode iteration in a run of {RUN}, against asked by itself",
        f"{run:.2f} and {one:.2f} us; with a prompt {with_prompt:.2f} us",
        ratio=run / one,
    )


def _microseconds(call: Callable[[Composition], object], batches: Sequence[Composition], rounds: int) -> float:
    """A call's time; the quickest round counts, for nothing but other work makes one slower."""

    def every() -> None:
        for batch in batches:
            call(batch)

    return min(seconds(every) for _ in range(rounds)) / len(batches) * 1e6


def _batch(rng: random.Random, prompts: int) -> Composition:
    decoding = [ScheduledSeq(index, 1, rng.randint(50, 4000), False) for index in range(rng.randint(1, 128))]
    chunks = [ScheduledSeq(-1 - index, rng.randint(16, 1500), 0, True) for index in range(prompts)]
    return Composition.of([*decoding, *chunks])
