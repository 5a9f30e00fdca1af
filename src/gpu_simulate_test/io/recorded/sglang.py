"""A line of SGLang's ``bench_serving --output-details``: times a client saw, in seconds.

It does not say when requests were sent. At an infinite rate and without a limit of concurrency all were, at once.
"""

from collections.abc import Iterator

from gpu_simulate_test.io.recorded.formats import Document, Format, lists, only
from gpu_simulate_test.io.recorded.numbers import Malformed, Table
from gpu_simulate_test.io.recorded.vllm import FIELDS


def _read(documents: Iterator[Document], unit: str | None) -> Table:
    result = only(documents)
    if absent := [path for name, path in FIELDS.items() if name != "error" and path not in result]:
        raise Malformed(f"no times of each request: {', '.join(absent)} missing; run it with --output-details")
    table = dict(lists(result, FIELDS))
    if result.get("request_rate") in (float("inf"), "inf") and not result.get("max_concurrency"):
        table["arrival_time_s"] = [0] * len(result["input_lens"])
    return table


FORMAT = Format(
    "a result of SGLang's bench_serving",
    (
        *("dataset_name", "sharegpt_output_len", "random_range_ratio", "total_output_tokens_retokenized"),
        *(
            "mean_e2e_latency_ms",
            "input_throughput",
            "request_throughput",
            "input_lens",
            "output_lens",
            "ttfts",
            "itls",
        ),
    ),
    _read,
    FIELDS,
)
