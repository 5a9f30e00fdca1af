"""GuideLLM's ``benchmarks.json`` of one benchmark. It has no times of tokens between the first and the last."""

from collections.abc import Iterator
from typing import Any

from gpu_simulate_test.io.recorded.formats import Document, Format, columns, get, only, tokens
from gpu_simulate_test.io.recorded.numbers import Malformed, Table


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    benchmarks = only(documents)["benchmarks"]
    if not isinstance(benchmarks, list) or len(benchmarks) != 1:
        count = len(benchmarks) if isinstance(benchmarks, list) else "no"
        raise Malformed(f"{count} benchmarks; give the file of a run at one rate")
    groups = {name: get(benchmarks[0], f"requests.{name}") or [] for name in ("successful", "incomplete", "errored")}
    for name, group in groups.items():
        if not isinstance(group, list) or not all(isinstance(one, dict) for one in group):
            raise Malformed(f"requests.{name} is no list of objects")
    listed = sum(map(len, groups.values()))
    served = get(benchmarks[0], "metrics.request_totals.total")
    if isinstance(served, int) and served > listed:
        raise Malformed(f"a sample of the requests: {listed} of {served}; run guidellm without sampling")
    return columns(row for name, group in groups.items() for one in group for row in _row(one, name))


def _row(request: Document, group: str) -> Iterator[dict[str, Any]]:
    """A request; none for one that was never sent."""
    start = tokens(request, "info.timings.request_start", "request_start_time", "start_time")
    if start is None and group != "successful":
        return
    row = {
        "arrival_time_s": start,
        "num_prefill_tokens": request.get("prompt_tokens"),
        "num_decode_tokens": request.get("output_tokens"),
        "ttft_ms": request.get("time_to_first_token_ms"),
    }
    if group != "successful":
        row |= {"error": tokens(request, "info.error", "error"), "error_type": group}
    end = tokens(request, "info.timings.last_token_iteration", "info.timings.last_iteration", "last_token_time")
    if (
        end is None
        and isinstance(latency := request.get("request_latency"), int | float)
        and isinstance(start, int | float)
    ):
        end = start + latency
    yield row | {"completion_time_s": end}


FORMAT = Format(
    "GuideLLM's benchmarks.json",
    ("benchmarks", "metadata", "args", "benchmarks.requests", "benchmarks.metrics"),
    _read,
    {
        "arrival_time_s": "request_start",
        "num_prefill_tokens": "prompt_tokens",
        "num_decode_tokens": "output_tokens",
        "ttft_ms": "time_to_first_token_ms",
        "completion_time_s": "last_token_iteration or request_latency",
    },
)
