#!/usr/bin/env python3
"""How often the verdict is right: real runs against their own repeat, and against a simulation 20 % slow.

A virtual-clock engine plays back a profile's ``noise.csv`` (or any table of ``time_ns`` and ``ratio``), each run from a
random place on, so every truth is known. Run it from the repository's root:
``python -m scripts.verdict_trials --noise tmp/vidur_profiling/cpu/<model>/noise.csv``.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.samples import PERCENTILES
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.noise import Noise
from gpu_simulate_test.real_bench.metrics import build_metrics
from gpu_simulate_test.real_bench.replay import replay
from tests.support.virtual_engine import VirtualClock, VirtualEngine, requests_of

SLOW = 1.2
TOKEN_BUDGET = 512
LOAD = 0.6  # of the capacity


def cost_ns(batch: Composition) -> float:
    """9 ms an iteration and 0.07 ms a prompt token: what the tiny model took on one CPU core."""
    return 9e6 + 7e4 * batch.num_prefill_tokens


def serve(requests: list[EngineRequest], arrival_ns: np.ndarray, factor: Callable[[int], float]) -> Run:
    """One run, each iteration's cost multiplied by `factor` of the time since the run began."""
    clock = VirtualClock()
    start = clock.now_ns()
    engine = VirtualEngine(
        clock,
        lambda batch: round(cost_ns(batch) * factor(clock.now_ns() - start)),
        max_num_batched_tokens=TOKEN_BUDGET,
    )
    lengths = pd.DataFrame(
        {
            "request_id": range(len(requests)),
            "num_prefill_tokens": [len(request.token_ids) for request in requests],
            "num_decode_tokens": [request.max_new_tokens for request in requests],
        }
    )
    workload = Workload(Path("virtual"), {}, lengths, ArrivalProcess.at(arrival_ns))
    metrics = build_metrics(workload, replay(engine, requests, workload.arrivals, clock), "virtual")
    meta = {"workload_sha256": "virtual"}
    return Run(Path("virtual"), meta, metrics.requests, metrics.tokens, metrics.iterations, [])


def draw_requests(count: int, rng: np.random.Generator) -> list[EngineRequest]:
    """Prompts of 16 to 600 tokens, outputs of 8 to 64."""
    lengths = zip(rng.integers(16, 601, count).tolist(), rng.integers(8, 65, count).tolist(), strict=True)
    return requests_of(list(lengths))


def interval_ns(rng: np.random.Generator) -> float:
    """Time between requests at `LOAD`: the capacity is that of requests which all arrive at once."""
    run = serve(draw_requests(400, rng), np.zeros(400, dtype=np.int64), lambda _: 1.0)
    return float(run.requests["completion_time_ns"].max()) / 400 / LOAD


def trial(count: int, repeats: int, noise: Noise, every_ns: float, rng: np.random.Generator) -> list[Assessment]:
    """A workload served `repeats` times, held against one more run and against one more that is slow."""
    requests = draw_requests(count, rng)
    arrival_ns = np.cumsum(rng.exponential(every_ns, count)).astype(np.int64)

    def run(slowdown: float) -> Run:
        offset = noise.draw_offset(rng)
        return serve(requests, arrival_ns, lambda time_ns: slowdown * noise.ratio(offset + time_ns))

    real = [run(1.0) for _ in range(repeats)]
    return [assess(real, run(slowdown)) for slowdown in (1.0, SLOW)]


def main() -> None:
    """Run the trials, print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()

    rng, noise = np.random.default_rng(arguments.seed), Noise(pd.read_csv(arguments.noise))
    every_ns = interval_ns(rng)
    found = [trial(arguments.requests, arguments.repeats, noise, every_ns, rng) for _ in range(arguments.trials)]
    sides = {name: [pair[index] for pair in found] for index, name in enumerate(("another real run", "20 % slow"))}
    print("| against | verdict | trials |\n| --- | --- | --- |")
    for name, assessments in sides.items():
        for verdict, count in Counter(one.verdict for one in assessments).most_common():
            print(f"| {name} | {verdict} | {count} of {arguments.trials} |")
    print(f"\n| beyond its floor | statistic | {' | '.join(sides)} |\n| --- | --- | --- | --- |")
    tables = [pd.concat([one.comparison.percentiles for one in side]) for side in sides.values()]
    beyond = [
        (table["error_ns"].abs() > table["floor_ns"]).groupby([table["metric"], table["statistic"]], sort=False).mean()
        for table in tables
    ]
    for metric, statistic in beyond[0].index:
        if statistic in PERCENTILES:
            print(f"| {metric} | {statistic} | " + " | ".join(f"{b[metric, statistic]:.0%}" for b in beyond) + " |")


if __name__ == "__main__":
    main()
