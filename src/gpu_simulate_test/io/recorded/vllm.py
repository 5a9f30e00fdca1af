"""A result of ``vllm bench serve --save-result --save-detailed``: times a client saw, in seconds."""

from collections.abc import Iterator

from gpu_simulate_test.io.recorded.formats import Document, Format, lists, only
from gpu_simulate_test.io.recorded.numbers import Malformed, Table

FIELDS = {
    "num_prefill_tokens": "input_lens",
    "num_decode_tokens": "output_lens",
    "ttft_s": "ttfts",
    "token_gaps_s": "itls",
    "error": "errors",
}
_FIELDS = FIELDS | {"arrival_time_s": "start_times"}


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    result = only(documents)
    if absent := [
        path for name, path in _FIELDS.items() if name not in ("error", "arrival_time_s") and path not in result
    ]:
        raise Malformed(f"no times of each request: {', '.join(absent)} missing; run it with --save-detailed")
    if "start_times" not in result:
        raise Malformed("start_times missing: this vLLM did not write when requests were sent; a newer one is needed")
    return lists(result, _FIELDS)


FORMAT = Format(
    "a result of vLLM's bench serve",
    (
        "request_throughput",
        "tokenizer_id",
        "endpoint_type",
        "start_times",
        "input_lens",
        "output_lens",
        "ttfts",
        "itls",
    ),
    _read,
    _FIELDS,
)
