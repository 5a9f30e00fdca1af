"""Results of benchmark clients, request by request: vLLM's ``bench serve``, AIPerf, GuideLLM.

A client sees chunks of text, not tokens. Where a request has as many chunks as output tokens, they are its tokens.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.recorded.frame import TIMES, times_of_tokens

_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9, "sec": 1e9}
_GUIDELLM_GROUPS = ("successful", "incomplete", "errored")
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def read_vllm(result: dict[str, Any], path: Path) -> pd.DataFrame:
    """Read a result of ``vllm bench serve --save-result --save-detailed``.

    Raises
    ------
    ArtifactError
        Without detail, or malformed.
    """
    names = ("input_lens", "output_lens", "ttfts", "itls", "start_times")
    if absent := [name for name in names if name not in result]:
        raise ArtifactError(
            f"no times of each request: {path}: {', '.join(absent)} missing; "
            "run vllm bench serve with --save-result --save-detailed"
        )
    rows: list[dict[str, Any]] = []
    try:
        errors = result.get("errors") or [""] * len(result["start_times"])
        clock = min(result["start_times"], default=0.0)
        for prompt, made, ttft, gaps, start, error in zip(*(result[name] for name in names), errors, strict=True):
            row = {"arrival_time_ns": _ns(start - clock), "num_prefill_tokens": prompt, "num_decode_tokens": made}
            if error or not made:
                rows.append(row | _failure(error or "no output token"))
            else:
                rows.append(row | _answer(row["arrival_time_ns"] + _ns(ttft), np.array(gaps) * 1e9, made))
    except _MALFORMED as error:
        raise ArtifactError(f"malformed recorded requests: {path}: {type(error).__name__} {error}") from error
    return _frame(rows, path)


def read_aiperf(path: Path) -> pd.DataFrame:
    """Read AIPerf's ``profile_export.jsonl``, its warm-up left out.

    Lengths are those the server said; what the client counts in the text is another number where it has to guess.

    Raises
    ------
    ArtifactError
        Malformed; the line is named.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            if line.strip():
                rows += _aiperf(json.loads(line))
        except _MALFORMED as error:
            what = f"{type(error).__name__} {error}"
            raise ArtifactError(f"malformed recorded request: {path}, line {number}: {what}") from error
    return _frame(rows, path)


def _aiperf(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    metadata, metrics = record["metadata"], record["metrics"]

    def ns(name: str) -> Any:
        return np.array(metrics[name]["value"]) * _NS[metrics[name]["unit"]]

    def tokens(*names: str) -> int | None:
        return next((int(metrics[name]["value"]) for name in names if name in metrics), None)

    if metadata.get("benchmark_phase") == "warmup":
        return
    arrival = metadata["request_start_ns"]
    prompt = tokens("usage_prompt_tokens", "input_sequence_length", "error_isl")
    made = tokens("usage_completion_tokens", "output_sequence_length", "output_token_count")
    row = {"arrival_time_ns": arrival, "num_prefill_tokens": prompt, "num_decode_tokens": made}
    error = record.get("error")
    if error or metadata.get("was_cancelled"):
        error = error or {"type": "cancelled", "message": None}
        yield row | {"error_type": str(error.get("type") or "error"), "error_msg": error.get("message")}
        return
    if "time_to_first_token" not in metrics:
        raise ValueError("no time_to_first_token: run aiperf with --streaming")
    first = arrival + round(float(ns("time_to_first_token")))
    gaps = ns("inter_chunk_latency") if "inter_chunk_latency" in metrics else np.empty(0)
    answer = _answer(first, gaps, made or 0)
    if answer["token_times_ns"] is None:
        answer["completion_time_ns"] = max(first, arrival + round(float(ns("request_latency"))))
    yield row | answer


def read_guidellm(report: dict[str, Any], path: Path) -> pd.DataFrame:
    """Read GuideLLM's ``benchmarks.json`` of one benchmark. It has no times of tokens between the first and the last.

    Raises
    ------
    ArtifactError
        Of several benchmarks, of a sample of the requests, or malformed.
    """
    benchmarks = report["benchmarks"]
    if not isinstance(benchmarks, list) or len(benchmarks) != 1:
        count = len(benchmarks) if isinstance(benchmarks, list) else "no"
        raise ArtifactError(f"{count} benchmarks: {path}; give the file of a run at one rate")
    try:
        groups = [(name, benchmarks[0]["requests"].get(name) or []) for name in _GUIDELLM_GROUPS]
        rows = [row for name, group in groups for one in group for row in _guidellm(one, name)]
        served = ((benchmarks[0].get("metrics") or {}).get("request_totals") or {}).get("total") or 0
        clock = min((row["arrival_time_ns"] for row in rows), default=0.0)
        for row in rows:
            row |= {name: _ns(row[name] - clock) for name in row.keys() & set(TIMES)}
    except _MALFORMED as error:
        raise ArtifactError(f"malformed recorded requests: {path}: {type(error).__name__} {error}") from error
    listed = sum(len(group) for _, group in groups)
    if served > listed:
        raise ArtifactError(f"a sample of the requests: {path}: {listed} of {served}; run guidellm without sampling")
    return _frame(rows, path)


def _guidellm(request: dict[str, Any], group: str) -> Iterator[dict[str, Any]]:
    """A request, times in seconds; none for one that was never sent."""
    timings = (request.get("info") or {}).get("timings") or {}

    def first_of(*values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    start = first_of(timings.get("request_start"), request.get("request_start_time"), request.get("start_time"))
    if start is None:
        return
    row = {
        "arrival_time_ns": float(start),
        "num_prefill_tokens": request.get("prompt_tokens"),
        "num_decode_tokens": request.get("output_tokens"),
    }
    if group != "successful":
        message = first_of((request.get("info") or {}).get("error"), request.get("error"))
        yield row | {"error_type": group, "error_msg": message}
        return
    ttft = request["time_to_first_token_ms"]
    end = first_of(timings.get("last_token_iteration"), timings.get("last_iteration"), request.get("last_token_time"))
    yield row | {
        "first_token_time_ns": start + ttft / 1e3,
        "completion_time_ns": start + request["request_latency"] if end is None else end,
    }


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _answer(first_ns: int, gaps_ns: Any, count: int) -> dict[str, Any]:
    """Times of what came, in ns."""
    times = times_of_tokens(first_ns, gaps_ns, count)
    end = first_ns + int(np.rint(gaps_ns).sum()) if times is None else int(times[-1])
    return {"first_token_time_ns": first_ns, "completion_time_ns": end, "token_times_ns": times}


def _failure(error: str) -> dict[str, Any]:
    """What a traceback says at its end."""
    last = error.strip().splitlines()[-1]
    name = last.partition(":")[0]
    return {"error_type": name if name.replace(".", "_").isidentifier() else "error", "error_msg": last}


def _frame(rows: list[dict[str, Any]], path: Path) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    try:
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            kind = "Int64" if name.endswith("_time_ns") else "Float64" if name.startswith("num_") else "object"
            columns[name] = pd.Series(values, dtype=kind)
    except _MALFORMED as error:
        raise ArtifactError(f"malformed recorded requests: {path}: {type(error).__name__} {error}") from error
    return pd.DataFrame(columns)
