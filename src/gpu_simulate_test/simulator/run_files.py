"""What a simulation writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.io.tables import (
    ITERATION_METRICS,
    REQUEST_METRICS,
    TBT_QUANTILES,
    TOKEN_METRICS,
    write_table,
)
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.run_tables import (
    iteration_tables,
    latency_percentiles,
    request_table,
    token_gaps,
    token_tables,
)
from gpu_simulate_test.simulator.real_run import Cover
from gpu_simulate_test.spans import Floats, Gaps
from gpu_simulate_test.timeline import Timeline

BACKEND = "vidur"  # what simulated runs have been called since the first


@dataclass(frozen=True)
class Totals:
    """What a summary says of a simulation.

    Attributes
    ----------
    outside : float
        Share of the engine time that the profile does not cover; these are the longest iterations mostly.
    latencies : numpy.ndarray of shape (2, 3)
        See `gpu_simulate_test.run_tables.latency_percentiles`.
    """

    num_tokens: int
    num_iterations: int
    num_preemptions: int
    num_cached_tokens: int
    outside: float
    latencies: Floats


def write_simulation(folder: Path, workload: Workload, line: Timeline, cover: Cover) -> Totals:
    """Write the tables of a simulation; tokens and iterations leave as they are made."""
    requests = request_table(workload, line, BACKEND)
    write_table(folder, REQUEST_METRICS, requests)
    num_tokens = int(requests["num_decode_tokens_actual"].sum())
    write_table(folder, TOKEN_METRICS, token_tables(line), num_rows=num_tokens)
    outside: list[int] = []
    iterations = _predicted(line, cover, outside)
    write_table(folder, ITERATION_METRICS, iterations, num_rows=line.num_iterations)
    took, gaps = int((line.end_ns - line.start_ns).sum()), token_gaps(line)
    _write_quantiles(folder, gaps)
    return Totals(
        num_tokens,
        line.num_iterations,
        int(requests["num_preemptions"].sum()),
        int(requests["num_cached_tokens"].sum()),
        sum(outside) / took,
        latency_percentiles(requests, gaps),
    )


def _predicted(line: Timeline, cover: Cover, outside: list[int]) -> Iterator[pd.DataFrame]:
    for frame in iteration_tables(line):
        took, covered = frame["end_time_ns"] - frame["start_time_ns"], cover(frame)
        outside.append(int(took[~covered].sum()))
        yield frame.assign(predicted_ns=took, in_profile=covered)


def write_sample(folder: Path, workload: Workload, line: Timeline) -> Floats:
    """Write what a comparison needs of a simulation with noise; its `latency_percentiles`."""
    requests, gaps = request_table(workload, line, BACKEND), token_gaps(line)
    write_table(folder, REQUEST_METRICS, requests)
    _write_quantiles(folder, gaps)
    return latency_percentiles(requests, gaps)


def _write_quantiles(folder: Path, gaps: Gaps) -> None:
    level = np.linspace(0, 1, 1001).round(3) if len(gaps.values) else np.empty(0)
    quantiles = pd.DataFrame({"level": level, "token_latency_ns": gaps.quantiles(level)})
    write_table(folder, TBT_QUANTILES, quantiles)
