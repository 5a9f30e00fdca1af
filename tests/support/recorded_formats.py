"""One run as each tool tells it: writers of every format that is read, for tests."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

US = 1000


@dataclass(frozen=True)
class Request:
    """Whole microseconds; `gaps` between its tokens. One that failed has an `error` and no times."""

    arrival: int
    prefill: int
    ttft: int
    gaps: tuple[int, ...]
    error: str = ""

    @property
    def decode(self) -> int:
        return 0 if self.error else 1 + len(self.gaps)

    @property
    def e2e(self) -> int:
        return self.ttft + sum(self.gaps)

    @property
    def queue(self) -> int:
        return self.ttft // 2

    def tokens(self) -> list[int]:
        """When each came."""
        times = [self.arrival + self.ttft]
        for gap in self.gaps:
            times.append(times[-1] + gap)
        return [] if self.error else times


Requests = Sequence[Request]


def _dump(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def vllm(requests: Requests) -> bytes:
    document = {
        "tokenizer_id": "m",
        "request_throughput": 2.0,
        "input_lens": [one.prefill for one in requests],
        "output_lens": [one.decode for one in requests],
        "ttfts": [0.0 if one.error else one.ttft / 1e6 for one in requests],
        "itls": [[] if one.error else [gap / 1e6 for gap in one.gaps] for one in requests],
        "start_times": [25834.25 + one.arrival / 1e6 for one in requests],
        "errors": [one.error for one in requests],
    }
    return json.dumps(document).encode()


def sglang(requests: Requests) -> bytes:
    """It has no arrivals, unless all were sent at once."""
    document = json.loads(vllm(requests))
    del document["start_times"], document["tokenizer_id"]
    return _dump([document | {"dataset_name": "random", "request_rate": 4.0, "mean_e2e_latency_ms": 1.0}])


def aiperf(requests: Requests) -> bytes:
    records = []
    for one in requests:
        metadata = {"request_start_ns": 1_759_813_207_532_900_363 + one.arrival * US, "benchmark_phase": "profiling"}
        metrics: dict[str, Any] = {"input_sequence_length": {"value": one.prefill, "unit": "tokens"}}
        if not one.error:
            metrics |= {
                "output_sequence_length": {"value": one.decode, "unit": "tokens"},
                "time_to_first_token": {"value": one.ttft / 1e3, "unit": "ms"},
                "request_latency": {"value": one.e2e / 1e3, "unit": "ms"},
                "inter_chunk_latency": {"value": [gap / 1e3 for gap in one.gaps], "unit": "ms"},
            }
        error = {"code": 499, "type": "ClientOSError", "message": one.error} if one.error else None
        records.append({"metadata": metadata, "metrics": metrics, "error": error})
    return _dump(records)


def guidellm(requests: Requests) -> bytes:
    groups: dict[str, list[dict[str, Any]]] = {"successful": [], "errored": [], "incomplete": []}
    for one in requests:
        start = 1_795_333_490.0 + one.arrival / 1e6
        timings = {"request_start": start}
        told: dict[str, Any] = {"prompt_tokens": one.prefill, "output_tokens": one.decode or None}
        if not one.error:
            timings["last_token_iteration"] = start + one.e2e / 1e6
            told |= {"time_to_first_token_ms": one.ttft / 1e3, "request_latency": one.e2e / 1e6}
        told["info"] = {"timings": timings, "error": one.error or None}
        groups["errored" if one.error else "successful"].append(told)
    totals = {"request_totals": {"total": len(requests)}}
    return json.dumps({"metadata": {}, "args": {}, "benchmarks": [{"requests": groups, "metrics": totals}]}).encode()


def inference_perf(requests: Requests) -> bytes:
    records = []
    for one in requests:
        answer = None
        if not one.error:
            times = [300.5 + time / 1e6 for time in one.tokens()]
            usage = {"prompt_tokens": one.prefill, "completion_tokens": one.decode}
            answer = {"output_tokens": one.decode + 3, "server_usage": usage, "output_token_times": times}
        records.append(
            {
                "start_time": 300.5 + one.arrival / 1e6,
                "end_time": 300.5 + (one.arrival + one.e2e) / 1e6,
                "request": "{}",
                "response": None,
                "info": {"request_metrics": {"text": {"input_tokens": one.prefill}}, "response_metrics": answer},
                "error": {"error_type": "ClientOSError", "error_msg": one.error} if one.error else None,
            }
        )
    return json.dumps(records, indent=2).encode()


def vllm_spans(requests: Requests) -> bytes:
    lines = []
    for one in requests:
        values: dict[str, Any] = {
            "gen_ai.usage.prompt_tokens": {"intValue": f"{one.prefill}"},
            "gen_ai.usage.completion_tokens": {"intValue": f"{one.decode}"},
            "gen_ai.latency.e2e": {"doubleValue": one.e2e / 1e6},
        }
        if not one.error:
            values["gen_ai.latency.time_to_first_token"] = {"doubleValue": one.ttft / 1e6}
            values["gen_ai.latency.time_in_queue"] = {"doubleValue": one.queue / 1e6}
        span = {
            "name": "llm_request",
            "startTimeUnixNano": f"{1_759_813_207_532_900_363 + one.arrival * US}",
            "attributes": [{"key": key, "value": value} for key, value in values.items()],
            "status": {"code": 2, "message": one.error} if one.error else {},
        }
        lines.append({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [span]}]}]})
    return _dump(lines)


def llmservingsim(requests: Requests) -> bytes:
    records = []
    for one in requests:
        record: dict[str, Any] = {"input_toks": one.prefill, "output_toks": one.decode}
        record["queued_ts"] = 1e5 + one.arrival / 1e6
        moments = {"scheduled_ts": one.queue, "first_token_ts": one.ttft, "last_token_ts": one.e2e}
        for name, late in moments.items():
            record[name] = None if one.error else 1e5 + (one.arrival + late) / 1e6
        records.append(record)
    return _dump(records)


def mooncake(requests: Requests) -> bytes:
    """Whole milliseconds."""
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    rows = [(one.arrival // 1000, one.prefill, one.decode, [0, 7]) for one in requests]
    return _dump([dict(zip(names, row, strict=True)) for row in rows])


def _csv(header: str, rows: list[tuple[Any, ...]], separator: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerows([header.split(","), *rows])
    return out.getvalue().encode()


def azure(requests: Requests) -> bytes:
    rows = []
    for one in requests:
        seconds, us = divmod(one.arrival, 1_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{us:06}0"
        rows.append((f"2023-11-16 {clock}", one.prefill, one.decode))
    return _csv("TIMESTAMP,ContextTokens,GeneratedTokens", rows)


def burstgpt(requests: Requests) -> bytes:
    rows = [(one.arrival / 1e6 + 5, "ChatGPT", one.prefill, one.decode, "Conversation log") for one in requests]
    return _csv("Timestamp,Model,Request tokens,Response tokens,Log Type", rows)


def vidur(requests: Requests) -> bytes:
    rows = [(one.arrival / 1e6, one.prefill, one.decode) for one in requests]
    return _csv("arrived_at,num_prefill_tokens,num_decode_tokens", rows)


OWN_COLUMNS = {
    "num_prefill_tokens": "in",
    "num_decode_tokens": "out",
    "arrival_time_us": "start",
    "ttft_s": "first",
    "e2e_ms": "latency",
    "error_msg": "problem",
}


def _own(requests: Requests) -> list[dict[str, Any]]:
    return [
        {
            "note": "a text;\nof two lines",
            "in": one.prefill,
            "out": one.decode,
            "start": 1_700_000_000_000_000 + one.arrival,
            "first": None if one.error else one.ttft / 1e6,
            "latency": None if one.error else one.e2e / 1e3,
            "problem": one.error or None,
        }
        for one in requests
    ]


def own_csv(requests: Requests) -> bytes:
    header = ["note", *OWN_COLUMNS.values()]
    return _csv(",".join(header), [tuple(row[name] for name in header) for row in _own(requests)], ";")


def own_parquet(requests: Requests) -> bytes:
    out = io.BytesIO()
    kinds = {"note": pa.string(), "in": pa.int64(), "out": pa.int32(), "start": pa.int64(), "problem": pa.string()}
    schema = pa.schema(kinds | {"first": pa.float64(), "latency": pa.float64()})
    pq.write_table(pa.Table.from_pylist(_own(requests), schema=schema), out)
    return out.getvalue()


@dataclass(frozen=True)
class Writer:
    """A format: how it is written, and what it has."""

    write: Callable[[Requests], bytes]
    arrivals: bool = True
    answers: bool = True
    first_token: bool = True
    queue: bool = False
    tokens: bool = False
    unit_us: int = 1  # of its arrivals
    error_ns: int = 0  # of a float of seconds since 1970
    columns: dict[str, str] | None = None


WRITERS = {
    "vllm": Writer(vllm, tokens=True),
    "sglang": Writer(sglang, arrivals=False, tokens=True),
    "aiperf": Writer(aiperf, tokens=True),
    "guidellm": Writer(guidellm, error_ns=700),
    "inference-perf": Writer(inference_perf, tokens=True),
    "vllm spans": Writer(vllm_spans, queue=True),
    "llmservingsim": Writer(llmservingsim, queue=True),
    "mooncake": Writer(mooncake, answers=False, unit_us=1000),
    "azure": Writer(azure, answers=False),
    "burstgpt": Writer(burstgpt, answers=False),
    "vidur": Writer(vidur, answers=False),
    "csv": Writer(own_csv, columns=OWN_COLUMNS),
    "parquet": Writer(own_parquet, columns=OWN_COLUMNS),
}
