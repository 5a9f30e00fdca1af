"""Requests as they were recorded: their lengths and arrivals, with random tokens."""

from pathlib import Path
from typing import Any

import numpy as np

from gpu_simulate_test.config.schema import WorkloadConfig
from gpu_simulate_test.io.recorded import read_recorded
from gpu_simulate_test.workloads.prompts import random_prompts


def load_trace(
    workload: WorkloadConfig, vocab_size: int
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray, np.ndarray]:
    """The first ``num_requests`` of a recorded run, all of them without it.

    Returns
    -------
    prompts : list of dict
        Of seeded random tokens: what was asked is not recorded.
    prefill, decode, gaps : numpy.ndarray of shape (n_requests,), int64
        Prompt and output tokens, and ns since the previous arrival; the first request arrives at 0.

    Raises
    ------
    ArtifactError
        The trace is missing or malformed.
    """
    assert workload.trace is not None  # the config's own check
    requests = read_recorded(Path(workload.trace)).iloc[: workload.num_requests]
    prefill, decode, arrival = (
        requests[name].to_numpy() for name in ("num_prefill_tokens", "num_decode_tokens", "arrival_time_ns")
    )
    prompts = list(random_prompts("trace", prefill.tolist(), workload.seed, vocab_size))
    return prompts, prefill, decode, np.diff(arrival, prepend=arrival[0])
