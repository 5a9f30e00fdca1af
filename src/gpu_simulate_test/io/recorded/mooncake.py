"""Traces with Mooncake's keys, and conversations with AIPerf's more of them.

Mooncake's own have whole milliseconds. Others use its keys with seconds: the Qwen traces of Alibaba Bailian, which know
of chats, and GuideLLM, which cannot be told from a shortened Mooncake. So any but the first two asks for the unit.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.recorded.formats import Document, Format, picked
from gpu_simulate_test.io.recorded.numbers import Table

_KEYS = {"timestamp", "input_length", "output_length", "hash_ids"}
_SESSIONS = {"session_id", "delay"}


def _of_sessions(documents: Iterator[Document]) -> Iterator[Document]:
    """Requests by the conversation that they are of: a turn has its chat's, a later one need not have a timestamp."""
    session_of: dict[Any, Any] = {}
    sent: dict[Any, Any] = {}
    for document in documents:
        session = document.get("session_id")
        if "chat_id" in document:
            parent = document.get("parent_chat_id")
            session = session_of.setdefault(document["chat_id"], session_of.get(parent, document["chat_id"]))
        if session is not None:
            sent.setdefault(session, document.get("timestamp"))
        yield {"timestamp": sent.get(session), **document, "session": session}


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    first = next(documents)
    known = None
    if {"chat_id", "parent_chat_id"} <= first.keys():
        known = "s"
    elif first.keys() - _SESSIONS == _KEYS and not isinstance(first["timestamp"], float):
        known = "ms"
    if unit is None and known is None:
        raise ConfigError("timestamp has no known unit; set workload.trace_time_unit to s, ms, us or ns")
    if unit is not None and known not in (None, unit):
        raise ConfigError(f"workload.trace_time_unit={unit} contradicts the file, whose timestamp is in {known}")
    names = {f"arrival_time_{unit or known}": "timestamp"}
    names |= {"num_prefill_tokens": "input_length", "num_decode_tokens": "output_length", "hash_ids": "hash_ids"}
    documents = chain([first], documents)
    if _SESSIONS & first.keys() or "chat_id" in first:
        names |= {"session": "session", f"delay_{unit or known}": "delay"}
        documents = _of_sessions(documents)
    return picked(documents, names)


FORMAT = Format(
    "a trace with Mooncake's keys",
    ("timestamp", "input_length", "output_length", "hash_ids"),
    _read,
    {f"arrival_time_{unit}": "timestamp" for unit in ("s", "ms", "us", "ns")}
    | {"num_prefill_tokens": "input_length", "num_decode_tokens": "output_length"},
    asks_unit=True,
)
