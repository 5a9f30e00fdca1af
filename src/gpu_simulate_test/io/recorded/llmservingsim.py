"""``requests.jsonl`` of LLMServingSim's vLLM benchmark: the engine's own times, in seconds.

A request arrives when the engine queues it: the file's own ``arrival_time`` is of another clock.
"""

from collections.abc import Iterator

from gpu_simulate_test.io.recorded.formats import Document, Format, picked
from gpu_simulate_test.io.recorded.numbers import Table

_FIELDS = {
    "num_prefill_tokens": "input_toks",
    "num_decode_tokens": "output_toks",
    "arrival_time_s": "queued_ts",
    "first_scheduled_time_s": "scheduled_ts",
    "first_token_time_s": "first_token_ts",
    "completion_time_s": "last_token_ts",
    "error": "error",
}


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    table = picked(documents, _FIELDS)
    stamps = {name: [None if value == 0 else value for value in table[name]] for name in _FIELDS if "_time_" in name}
    return {**table, **stamps}  # the engine's clock is never at 0: vLLM has 0 for what it did not record


FORMAT = Format("LLMServingSim's requests.jsonl", ("queued_ts", "input_toks", "first_token_ts"), _read, _FIELDS)
