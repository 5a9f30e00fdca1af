"""inference-perf's ``per_request_lifecycle_metrics.json``: times a client saw, in seconds.

Lengths are those the server said, else what the client counted.
"""

from collections.abc import Iterator
from typing import Any

from gpu_simulate_test.io.recorded.formats import Document, Format, columns, tokens
from gpu_simulate_test.io.recorded.numbers import Table


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    return columns(map(_row, documents))


def _row(record: Document) -> dict[str, Any]:
    usage = "info.response_metrics.server_usage"
    return {
        "arrival_time_s": record.get("start_time"),
        "completion_time_s": record.get("end_time"),
        "num_prefill_tokens": tokens(
            *(record, f"{usage}.prompt_tokens", f"{usage}.input_tokens"),
            *("info.request_metrics.text.input_tokens", "info.input_tokens"),
        ),
        "num_decode_tokens": tokens(
            *(record, f"{usage}.completion_tokens", f"{usage}.output_tokens"),
            *("info.response_metrics.output_tokens", "info.output_tokens"),
        ),
        "token_times_s": tokens(
            *(record, "info.response_metrics.output_token_times", "info.output_token_times"),
            "info.response_metrics.chunk_times",
        ),
        "error": record.get("error"),
    }


FORMAT = Format(
    "inference-perf's per-request report",
    ("end_time", "info", "info.request_metrics", "info.response_metrics", "info.input_tokens"),
    _read,
    {
        "arrival_time_s": "start_time",
        "completion_time_s": "end_time",
        "num_prefill_tokens": "input_tokens",
        "num_decode_tokens": "output_tokens",
        "token_times_s": "output_token_times",
    },
)
