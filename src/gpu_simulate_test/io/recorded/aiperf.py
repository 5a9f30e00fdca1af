"""AIPerf's ``profile_export.jsonl``, its warm-up left out.

Lengths are those the server said; what the client counts in the text is another number where it has to guess.
"""

from collections.abc import Iterator
from typing import Any

from gpu_simulate_test.io.recorded.formats import Document, Format, columns, get, tokens
from gpu_simulate_test.io.recorded.numbers import UNITS, Malformed, Table

_TIMES = {"ttft": "time_to_first_token", "e2e": "request_latency", "token_gaps": "inter_chunk_latency"}


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    return columns(_row(one) for one in documents if get(one, "metadata.benchmark_phase") != "warmup")


def _row(record: Document) -> dict[str, Any]:
    error = record.get("error")
    if not error and get(record, "metadata.was_cancelled"):
        error = {"type": "cancelled", "message": "cancelled"}
    row = {
        "arrival_time_ns": get(record, "metadata.request_start_ns"),
        "num_prefill_tokens": _length(record, "usage_prompt_tokens", "input_sequence_length", "error_isl"),
        "num_decode_tokens": _length(record, "usage_completion_tokens", "output_sequence_length", "output_token_count"),
        "error": error,
    }
    for name, metric in _TIMES.items():
        unit = get(record, f"metrics.{metric}.unit")
        if unit is not None:
            known = {"sec": "s"}.get(unit, unit) if isinstance(unit, str) else None
            if known not in UNITS:
                raise Malformed(f"{metric} has an unknown unit: {ascii(unit)[:40]}")
            row[f"{name}_{known}"] = get(record, f"metrics.{metric}.value")
    return row


def _length(record: Document, *metrics: str) -> Any:
    return tokens(record, *(f"metrics.{metric}.value" for metric in metrics))


FORMAT = Format(
    "AIPerf's profile_export.jsonl",
    ("metadata.request_start_ns", "metadata.benchmark_phase", "metrics"),
    _read,
    {"arrival_time_ns": "request_start_ns", "num_prefill_tokens": "input_sequence_length"}
    | {"num_decode_tokens": "output_sequence_length"}
    | {f"{name}_{unit}": metric for name, metric in _TIMES.items() for unit in UNITS},
)
