"""vLLM's OpenTelemetry spans of requests, as OTLP in JSON lines: the server's own times, in seconds.

Of spans other than vLLM's of a request none counts.
"""

from collections.abc import Iterator
from typing import Any

from gpu_simulate_test.io.recorded.formats import Document, Format, columns
from gpu_simulate_test.io.recorded.numbers import Malformed, Table

_FIELDS = {
    "num_prefill_tokens": "gen_ai.usage.prompt_tokens",
    "num_decode_tokens": "gen_ai.usage.completion_tokens",
    "queue_s": "gen_ai.latency.time_in_queue",
    "ttft_s": "gen_ai.latency.time_to_first_token",
    "e2e_s": "gen_ai.latency.e2e",
}
_ERROR = 2  # of a span's status


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    fields = set(_FIELDS.values())
    rows = [_row(span, values) for one in documents for span, values in _spans(one) if values.keys() & fields]
    if not rows:
        raise Malformed(f"no span of a request: none has {_FIELDS['e2e_s']}")
    return columns(rows)


def _spans(document: Document) -> Iterator[tuple[Document, Document]]:
    for resource in _objects(document, "resourceSpans"):
        for scope in _objects(resource, "scopeSpans"):
            for span in _objects(scope, "spans"):
                pairs = _objects(span, "attributes")
                yield span, {str(one.get("key")): _value(one.get("value")) for one in pairs}


def _objects(parent: Document, key: str) -> list[Document]:
    value = parent.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Malformed(f"{key} is no list of objects")
    return value


def _value(value: Any) -> Any:
    """A number of OTLP's JSON, where 64-bit integers are texts; anything else as it is."""
    if isinstance(value, dict) and len(value) == 1:
        kind, value = next(iter(value.items()))
        return _integer(value) if kind == "intValue" else value
    return value


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and len(value) < 20 and value.lstrip("-").isdecimal() else value


def _row(span: Document, values: Document) -> dict[str, Any]:
    row = {name: values.get(field) for name, field in _FIELDS.items()}
    status = span.get("status")
    error = None
    if isinstance(status, dict) and status.get("code") in (_ERROR, "STATUS_CODE_ERROR"):
        error = status.get("message") or "the span's status is an error"
    return row | {"arrival_time_ns": _integer(span.get("startTimeUnixNano")), "error": error}


FORMAT = Format(
    "vLLM's spans",
    ("resourceSpans", "resourceSpans.resource", "resourceSpans.scopeSpans"),
    _read,
    _FIELDS | {"arrival_time_ns": "startTimeUnixNano"},
)
