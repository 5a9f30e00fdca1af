"""Requests that somebody else recorded: how long they were, when they came, and when they were answered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.errors import ArtifactError

LENGTHS = {"num_prefill_tokens": "input_toks", "num_decode_tokens": "output_toks"}
TIMES = {
    "arrival_time_ns": "queued_ts",
    "first_scheduled_time_ns": "scheduled_ts",
    "first_token_time_ns": "first_token_ts",
    "completion_time_ns": "last_token_ts",
}


def read_recorded(path: Path) -> pd.DataFrame:
    """Read the ``requests.jsonl`` of LLMServingSim's vLLM benchmark: one JSON object a request, times in seconds.

    A request arrives when the engine queues it: the file's own ``arrival_time`` is of another clock.

    Returns
    -------
    pandas.DataFrame of shape (n_requests, 6), int64
        In order of arrival: the columns of `LENGTHS`, and those of `TIMES` in ns since the first arrival.

    Raises
    ------
    ArtifactError
        Missing, malformed, or with a time or a length that cannot be.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"cannot read recorded requests: {path}: {error}") from error
    rows = [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise ArtifactError(f"no recorded requests: {path}")
    frame = pd.DataFrame(rows).sort_values("arrival_time_ns", kind="stable", ignore_index=True)
    start = frame["arrival_time_ns"].min()
    # Seconds of a monotonic clock: their difference is exact in floats, their absolute nanoseconds are not.
    times = {name: ((frame[name] - start) * 1e9).round().astype("int64") for name in TIMES}
    frame = frame.assign(**times).astype("int64")
    order = np.diff(frame[list(TIMES)].to_numpy(), axis=1)
    if (order < 0).any():
        first = int(np.flatnonzero((order < 0).any(axis=1))[0])
        raise ArtifactError(f"times out of order: {path}: the request number {first + 1} by arrival")
    return frame


def _row(line: str, where: str) -> dict[str, float]:
    try:
        record: Any = json.loads(line)
        row = {name: int(record[key]) for name, key in LENGTHS.items()}
        times = {name: float(record[key]) for name, key in TIMES.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"malformed recorded request: {where}: {type(error).__name__} {error}") from error
    if min(row.values()) < 1 or not np.isfinite(list(times.values())).all():
        raise ArtifactError(f"malformed recorded request: {where}: a length below 1 or a time that is none")
    return row | times
