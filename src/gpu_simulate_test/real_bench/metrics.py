"""From a replay's timeline to the three metric tables."""

from dataclasses import dataclass

import pandas as pd

from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.run_tables import iteration_tables, latency_percentiles, request_table, token_gaps, token_tables
from gpu_simulate_test.spans import Floats
from gpu_simulate_test.timeline import Timeline


@dataclass(frozen=True)
class Metrics:
    """Tables as the artifact contracts describe them, and `latency_percentiles`."""

    requests: pd.DataFrame
    tokens: pd.DataFrame
    iterations: pd.DataFrame
    latencies: Floats


def build_metrics(workload: Workload, line: Timeline, backend: str) -> Metrics:
    """Tables of one replay: one row for every request, whatever became of it."""
    requests = request_table(workload, line, backend)
    return Metrics(
        requests,
        pd.concat(token_tables(line), ignore_index=True),
        pd.concat(iteration_tables(line), ignore_index=True),
        latency_percentiles(requests, token_gaps(line)),
    )
