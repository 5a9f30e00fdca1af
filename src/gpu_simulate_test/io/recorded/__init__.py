"""Requests that somebody else recorded: how long they were, when they came and, where they were served, when answered.

The format is found from the content. A traffic trace has lengths and arrivals, a benchmark's result answers as well.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import WorkloadConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import flat
from gpu_simulate_test.io.recorded.bench import read_aiperf, read_guidellm, read_vllm
from gpu_simulate_test.io.recorded.conversations import is_conversations
from gpu_simulate_test.io.recorded.frame import LENGTHS, TIMES, finished

__all__ = ["LENGTHS", "TIMES", "is_conversations", "read_recorded", "select"]

_LINES: dict[str, Callable[[Path], pd.DataFrame]] = {  # by a key that only its lines have
    "queued_ts": flat.read_llmservingsim,
    "hash_ids": flat.read_mooncake,
    "input_length": flat.read_mooncake,
    "metadata": read_aiperf,
}
_DOCUMENTS: dict[str, Callable[[dict[str, Any], Path], pd.DataFrame]] = {
    "request_throughput": read_vllm,
    "benchmarks": read_guidellm,
}


def read_recorded(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read recorded requests.

    Parameters
    ----------
    path : pathlib.Path
        A result of vLLM's ``bench serve`` (with ``--save-detailed``), AIPerf's ``profile_export.jsonl``, GuideLLM's
        ``benchmarks.json``, ``requests.jsonl`` of LLMServingSim's vLLM benchmark, or a trace: Azure's of 2023 and 2024,
        BurstGPT's, Mooncake's, Vidur's, or another CSV.
    columns : mapping of str to str, optional
        For another CSV: what is in which column; see `flat.read_csv`.

    Returns
    -------
    pandas.DataFrame of shape (n_requests, n_columns)
        In order of arrival: the columns of `LENGTHS`, and ``arrival_time_ns`` since the first of them. Where they were
        recorded, the other columns of `TIMES` in ns likewise; ``error_type`` and ``error_msg``, missing unless the
        request failed; ``token_times_ns``, an array of the times of its output tokens, None where they are unknown.
        A failed request has an arrival and no other time, and a length that was not recorded is 1.

    Raises
    ------
    ArtifactError
        Missing, malformed, of no known format, or with a time or a length that cannot be.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline()
            more = bool(stream.read(4096).strip())
        document = _object(first)
        if document is None and first.lstrip()[:1] == b"{":
            document, more = _object(path.read_bytes()), False
    except OSError as error:
        raise ArtifactError(f"cannot read recorded requests: {path}: {error.strerror}") from error
    if not first.strip():
        raise ArtifactError(f"no recorded requests: {path}")
    if document is None and first.lstrip()[:1] in (b"{", b"["):
        raise ArtifactError(f"malformed recorded requests: {path}: its first line is no JSON object")
    if document is None or columns is not None:
        return finished(flat.read_csv(path, columns), path)
    for key, read in _DOCUMENTS.items():
        if key in document and more:
            raise ArtifactError(f"several results in one file: {path}; give the file of one")
        if key in document:
            return finished(read(document, path), path)
    for key, read_lines in _LINES.items():
        if key in document:
            return finished(read_lines(path), path)
    raise ArtifactError(
        f"recorded requests of no known format: {path}: keys {', '.join(list(document)[:8])}; name a file of vLLM's, "
        "AIPerf's, GuideLLM's or LLMServingSim's, a trace, or a CSV"
    )


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def select(
    requests: pd.DataFrame, workload: WorkloadConfig, max_tokens: int, source: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The recorded requests that a workload is made of.

    The window, the scales and the number of requests are the workload's; a request is left out when it has no prompt or
    no output, as failed ones in traffic traces, or more than `max_tokens` tokens.

    Returns
    -------
    requests : pandas.DataFrame
        As read, with arrivals since the first that is left, all times in ns; gaps between arrivals and lengths scaled.
    left_out : dict of str to int
        The reason, and how many requests of the window.

    Raises
    ------
    ConfigError
        No request is left.
    """
    seconds = requests["arrival_time_ns"].to_numpy() / 1e9
    start = workload.trace_start_s or 0.0
    end = np.inf if workload.trace_end_s is None else workload.trace_end_s
    requests = requests[(seconds >= start) & (seconds < end)]
    lengths = requests[list(LENGTHS)].to_numpy()
    empty = np.asarray((lengths < 1).any(axis=1))
    if workload.trace_length_scale != 1:
        lengths = np.maximum(np.rint(lengths * workload.trace_length_scale), 1).astype(np.int64)
    too_long = np.asarray(~empty & (lengths.sum(axis=1) > max_tokens))
    left_out = {
        "without prompt or output tokens": int(empty.sum()),
        f"above the model's limit of {max_tokens} tokens": int(too_long.sum()),
    }
    kept = np.flatnonzero(~empty & ~too_long)[: workload.num_requests]
    if not kept.size:
        raise ConfigError(
            f"no request is left: {source}: {len(requests)} in the window, "
            + ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        )
    if kept.size == workload.num_requests:  # of those after the last one nobody asked
        left_out = dict(zip(left_out, (int(mask[: kept[-1]].sum()) for mask in (empty, too_long)), strict=True))
    chosen = requests.iloc[kept].reset_index(drop=True)
    first = int(chosen["arrival_time_ns"].iloc[0])
    times = {name: chosen[name] - first for name in TIMES if name in chosen}
    if workload.trace_time_scale != 1:
        scaled = np.rint(times["arrival_time_ns"].to_numpy() * workload.trace_time_scale)
        times["arrival_time_ns"] = pd.Series(scaled.astype(np.int64))
    chosen = chosen.assign(**times, **{name: lengths[kept, i] for i, name in enumerate(LENGTHS)})
    if "token_times_ns" in chosen:
        chosen["token_times_ns"] = [None if one is None else one - first for one in chosen["token_times_ns"]]
    return chosen, {reason: count for reason, count in left_out.items() if count}
