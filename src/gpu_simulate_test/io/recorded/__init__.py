"""Requests that somebody else recorded: how long they were, when they came and, where they were served, when answered.

The format is found from the content. A traffic trace has lengths and arrivals, a benchmark's result answers as well.
"""

from collections.abc import Iterator, Mapping
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import MAX_ARRIVAL_NS, WorkloadConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import (
    aiperf,
    guidellm,
    inference_perf,
    llmservingsim,
    mooncake,
    sglang,
    vllm,
    vllm_spans,
)
from gpu_simulate_test.io.recorded.formats import Document, Format
from gpu_simulate_test.io.recorded.frame import LENGTHS, TIMES, finished
from gpu_simulate_test.io.recorded.numbers import Malformed, Rows
from gpu_simulate_test.io.recorded.source import documents, is_json, opened
from gpu_simulate_test.io.recorded.table import check_columns, known_columns, read_table, rows_of

__all__ = ["LENGTHS", "TIMES", "read_recorded", "select"]

FORMATS: tuple[Format, ...] = tuple(
    module.FORMAT for module in (vllm, sglang, aiperf, guidellm, inference_perf, vllm_spans, llmservingsim, mooncake)
)
# Other files of known tools: what they are, keys of which two are enough, and what is needed instead.
_OTHERS = (
    ("AIPerf's summary", ("input_config", "was_cancelled", "error_summary", "aiperf_version"), "profile_export.jsonl"),
    (
        "inference-perf's summary",
        ("successes", "failures", "load_summary"),
        "per_request_lifecycle_metrics.json, with report.request_lifecycle.per_request: true",
    ),
    (
        "a file of LLMPerf",
        (
            "number_input_tokens",
            "end_to_end_latency_s",
            "results_ttft_s_mean",
            "num_concurrent_requests",
            "mean_input_tokens",
        ),
        "a tool that records when each request was sent: LLMPerf does not",
    ),
    ("a conversation in ShareGPT's form", ("conversations", "conversations.from"), "workload-spec, which takes it"),
)


def read_recorded(path: Path, columns: Mapping[str, str] | None = None, unit: str | None = None) -> pd.DataFrame:
    """Read recorded requests.

    Parameters
    ----------
    path : pathlib.Path
        In one of `FORMATS`, or a table, as CSV or Parquet: Azure's traces of 2023 and 2024, BurstGPT's, Vidur's, or
        another. It may be compressed, by gzip or zstd or as the one file of a zip.
    columns : mapping of str to str, optional
        For another table: from what it is to the name of its column; see `gpu_simulate_test.io.recorded.frame`.
        ``arrival_time`` without a unit is a date and time, ``error_msg`` is not empty for a failed request.
    unit : str, optional
        Of the times, where the format does not say it.

    Returns
    -------
    pandas.DataFrame of shape (n_requests, n_columns)
        In order of arrival: the columns of `LENGTHS`, and ``arrival_time_ns`` since the first of them. Where they were
        recorded, the other columns of `TIMES` in ns likewise, missing where one was not measured; ``error_type`` and
        ``error_msg``, missing unless the request failed; ``token_times_ns``, an array of the times of its output
        tokens, None where they are unknown. A failed request has an arrival and no other time, and a length that was
        not recorded is 1. Without recorded arrivals, the others are since each request's own.

    Raises
    ------
    ArtifactError
        Missing, malformed, of no known format, or with a time or a length that cannot be.
    ConfigError
        `columns` or `unit` say what cannot be, or a unit is needed.
    """
    if columns is not None:
        check_columns(columns)
    taken_for = ""
    try:
        with opened(path) as stream:
            if is_json(stream):
                if columns is not None:
                    raise ConfigError("workload.trace_columns is for a table, and this is JSON")
                values = _objects(stream)
                first = next(values)
                found = _format(first)
                taken_for = found.name
                if unit is not None and not found.asks_unit:
                    raise ConfigError(f"workload.trace_time_unit is not for {found.name}, which says it: {path}")
                rows = Rows(found.read(chain([first], values), unit), found.fields)
            else:
                if unit is not None:
                    raise ConfigError(
                        f"workload.trace_time_unit is not for a table: name its column with a unit: {path}"
                    )
                table = read_table(stream)
                taken_for, names = ("", columns) if columns is not None else known_columns(table)
                rows = rows_of(table, names)
        return finished(rows)
    except ConfigError as error:
        raise ConfigError(f"{error}" if str(path) in str(error) else f"{error}: {path}") from error
    except Malformed as error:
        where = f"{path}, taken for {taken_for}" if taken_for else f"{path}"
        raise ArtifactError(f"malformed recorded requests: {where}: {error}") from error


def _objects(stream: BufferedReader) -> Iterator[Document]:
    number = 0
    for number, value in enumerate(documents(stream), start=1):
        if not isinstance(value, dict):
            raise Malformed(f"number {number} in it is no object")
        yield value
    if not number:
        raise Malformed("nothing in it")


def _format(document: Document) -> Format:
    keys = set(document)
    for key, value in document.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            keys |= {f"{key}.{name}" for name in inner}
    known = [(len(keys.intersection(one.keys)), one) for one in FORMATS]
    most, best = max(known, key=lambda scored: scored[0])
    for name, others, needed in _OTHERS:
        if len(keys.intersection(others)) >= max(2, most):
            raise Malformed(f"this is {name}; needed is {needed}")
    if most >= 2:
        return best
    raise Malformed(
        f"no known format: keys {', '.join(document)[:200]}; name {', '.join(one.name for one in FORMATS)}, or a table"
    )


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
        No request is left, or they would arrive over more than a hundred years.
    """
    timed = "arrival_time_ns" in requests
    if timed:
        seconds = requests["arrival_time_ns"].to_numpy() / 1e9
        end = np.inf if workload.trace_end_s is None else workload.trace_end_s
        requests = requests[(seconds >= (workload.trace_start_s or 0.0)) & (seconds < end)]
    elif workload.arrival.kind == "trace":
        raise ConfigError(f"no arrivals in it: {source}; set workload.arrival.kind=poisson or another")
    elif (workload.trace_start_s, workload.trace_end_s) != (None, None):
        raise ConfigError(f"no arrivals in it, and so no window: {source}; leave workload.trace_start_s and _end_s out")
    lengths = requests[list(LENGTHS)].to_numpy()
    empty = np.asarray((lengths < 1).any(axis=1))
    if workload.trace_length_scale != 1:  # at most the largest length times the largest scale: no overflow
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
    chosen = chosen.assign(**{name: lengths[kept, i] for i, name in enumerate(LENGTHS)})
    if timed:
        chosen = _since_first(chosen, workload.trace_time_scale)
    return chosen, {reason: count for reason, count in left_out.items() if count}


def _since_first(chosen: pd.DataFrame, scale: float) -> pd.DataFrame:
    first = int(chosen["arrival_time_ns"].iloc[0])
    times: dict[str, Any] = {name: chosen[name] - first for name in TIMES if name in chosen}
    if scale != 1:
        scaled = np.rint(times["arrival_time_ns"].to_numpy() * scale)
        if scaled[-1] > MAX_ARRIVAL_NS:
            raise ConfigError(
                f"workload.trace_time_scale={scale:g} makes the requests arrive over more than a hundred years"
            )
        times["arrival_time_ns"] = pd.Series(scaled.astype(np.int64))
    if "token_times_ns" in chosen:
        times["token_times_ns"] = [None if one is None else one - first for one in chosen["token_times_ns"]]
    return chosen.assign(**times)
