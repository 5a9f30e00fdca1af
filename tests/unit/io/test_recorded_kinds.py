"""Files that people brought and that went wrong: each kind is read right, or refused with what to do."""

import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import read_recorded
from gpu_simulate_test.io.recorded.conversations import read_conversations
from gpu_simulate_test.io.workload import workload_path
from tests.support.configs import typed_config
from tests.support.recorded_formats import (
    OWN_COLUMNS,
    WRITERS,
    Request,
    aiperf,
    azure,
    burstgpt,
    guidellm,
    inference_perf,
    llmservingsim,
    own_csv,
    sglang,
    vidur,
    vllm,
    vllm_spans,
)

RUN = [Request(0, 40, 50_000, (10_000, 11_000, 12_000)), Request(250_000, 30, 20_000, (10_000, 15_000))]
REFUSED = [*RUN, Request(500_000, 10, 0, (), "gone")]
MOONCAKE = {"timestamp": 61.114, "input_length": 521, "output_length": 132, "hash_ids": [1, 2]}


def read(folder: Path, content: bytes, *more: Any) -> pd.DataFrame:
    path = folder / "some file"
    path.write_bytes(content)
    return read_recorded(path, *more)


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def edited(content: bytes, *edits: tuple[str, Any], line: int = 0) -> bytes:
    """One JSON document of the lines with some of its fields another."""
    documents = [json.loads(one) for one in content.splitlines()]
    for path, value in edits:
        target = documents[line]
        *parents, last = (int(key) if key.isdigit() else key for key in path.split("/"))
        for key in parents:
            target = target[key]
        target[last] = value
    return lines(*documents)


def changed(content: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(content) | fields).encode()


# 1. A unit is known, or asked for.


def test_the_unit_of_a_trace_with_mooncakes_keys_is_known_or_asked_for(tmp_path: Path) -> None:
    qwen = {"chat_id": 159, "parent_chat_id": -1, "type": "text", "turn": 1}
    two = (MOONCAKE | qwen, MOONCAKE | qwen | {"timestamp": 62.5})
    assert read(tmp_path, lines(*two))["arrival_time_ns"].tolist() == [0, 1_386_000_000]
    guidellm = lines(MOONCAKE, MOONCAKE | {"timestamp": 62.5})
    with pytest.raises(ConfigError, match=r"timestamp has no known unit; set workload\.trace_time_unit.*some file"):
        read(tmp_path, guidellm)
    for unit, gap_ns in {"s": 1_386_000_000, "ms": 1_386_000, "us": 1386, "ns": 1}.items():
        assert read(tmp_path, guidellm, None, unit)["arrival_time_ns"].tolist() == [0, gap_ns]
    with pytest.raises(ConfigError, match="contradicts"):
        read(tmp_path, lines(*two), None, "ms")
    mooncake = lines(MOONCAKE | {"timestamp": 61}, MOONCAKE | {"timestamp": 62})
    assert read(tmp_path, mooncake)["arrival_time_ns"].tolist() == [0, 1_000_000]
    with pytest.raises(ConfigError, match="trace_time_unit is not for"):
        read(tmp_path, vllm(RUN), None, "s")
    with pytest.raises(ConfigError, match="trace_time_unit is not for a table"):
        read(tmp_path, vidur(RUN), None, "s")


def test_times_of_two_clocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"request 2: first_token_ts is more than ten years .* another clock"):
        read(tmp_path, edited(llmservingsim(RUN), ("first_token_ts", 1.76e9), line=1))
    with pytest.raises(ArtifactError, match=r"request 2: ttfts .* out of range"):
        read(tmp_path, changed(vllm(RUN), ttfts=[0.05, 1.7e9]))
    late = [*RUN, Request(600_000, 5, 10, (5,))]
    with pytest.raises(ArtifactError, match=r"request 3: queued_ts is missing"):  # 0 is what was not recorded
        read(tmp_path, edited(llmservingsim(late), ("queued_ts", 0), line=2))
    with pytest.raises(ArtifactError, match=r"request 3: start_times is 7\.2 hours away from all others"):
        read(tmp_path, changed(vllm(late), start_times=[25834.25, 25834.5, 0.001]))


# 2. Numbers are checked before they are integers.


@pytest.mark.parametrize("value", [-0.011, float("inf"), float("nan"), 1e300, 2**80, None, "0.01", True])
def test_a_gap_that_is_none_is_refused_by_request_and_field(tmp_path: Path, value: Any) -> None:
    gaps = [[0.01, 0.011, 0.012], [0.01, value]]
    with pytest.raises(ArtifactError, match=r"some file, taken for a result of vLLM's bench serve: request 2: itls"):
        read(tmp_path, changed(vllm(RUN), itls=gaps))


@pytest.mark.parametrize("length", ["99999999999999999999", "1e20", "-5", "3.5", "nan", "inf", "many", ""])
def test_a_length_that_is_none_is_refused_by_request_and_field(tmp_path: Path, length: str) -> None:
    content = f"arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,44\n1,{length},5\n".encode()
    with pytest.raises(ArtifactError, match=r"taken for Vidur's trace: request 2: num_prefill_tokens"):
        read(tmp_path, content)


# 3. Text from other tools is text.


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({"code": 500}, "500", '{"code": 500}'),
        ({"type": "HTTPError", "message": 500}, "HTTPError", "500"),
        (500, "error", "500"),
        (" \n ", "error", "no text of it"),
        ("half \ud83d", "error", "half \ufffd"),
        (["a", 1], "error", '["a", 1]'),
        ("nul \0, \x1b[31mred\x1b[0m\u2028end\r", "error", "nul , [31mred [0m end"),
        ("Traceback:\n  x\naiohttp.Gone: bye\n", "aiohttp.Gone", "aiohttp.Gone: bye"),
    ],
)
def test_an_error_of_any_kind_is_a_failed_request_with_a_text(
    tmp_path: Path, error: Any, kind: str, message: str
) -> None:
    files = [
        changed(vllm(REFUSED), errors=["", "", error]),
        edited(aiperf(REFUSED), ("error", error), line=2),
        edited(inference_perf(REFUSED).replace(b"\n", b""), ("2/error", error)),
    ]
    for content in files:
        frame = read(tmp_path, content)
        assert frame["error_type"].tolist() == [None, None, kind]
        assert frame["error_msg"].tolist() == [None, None, message]
        frame["error_msg"].str.encode("utf-8")
    frame = read(tmp_path, edited(guidellm(REFUSED), ("benchmarks/0/requests/errored/0/info/error", error)))
    assert frame["error_msg"].tolist() == [None, None, message]


def test_line_breaks_in_other_columns_are_text_in_files_of_any_size(tmp_path: Path) -> None:
    out = io.StringIO()
    rows = [(n, f"a text\nof {n},\n\n{'lines ' * 30}", 5, 6) for n in range(6000)]
    csv.writer(out).writerows([("Timestamp", "Log", "Request tokens", "Response tokens"), *rows])
    content = out.getvalue().encode()
    assert len(content) > 1 << 20
    assert len(read(tmp_path, content)) == 6000


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/trace", content)
    return out.getvalue()


def zstandard(content: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return compressed


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zip": zipped,
    "zstd": zstandard,
    "BOM": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-16 without BOM": lambda content: content.decode().encode("utf-16-le"),
    "empty lines": lambda content: b"\n\r\n" + content + b"\n\n",
    "CR LF": lambda content: content.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("pack", PACKINGS.values(), ids=PACKINGS)
@pytest.mark.parametrize("name", ["vllm", "aiperf", "inference-perf", "azure", "vidur"])
def test_a_file_is_read_however_it_is_packed(tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
    content = WRITERS[name].write(RUN)
    pd.testing.assert_frame_equal(read(tmp_path, pack(content)), read(tmp_path, content))


@pytest.mark.parametrize("pack", [gzip.compress, zipped, zstandard])
def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = pack(vidur([Request(n * n, n % 97 + 1, 1, (1,)) for n in range(500)]))
    for size in range(5, len(content), len(content) // 20):
        with pytest.raises(ArtifactError, match="some file"):
            read(tmp_path, content[:size])


def test_a_table_is_read_with_any_separator_and_spaces(tmp_path: Path) -> None:
    expected = read(tmp_path, burstgpt(RUN))
    for separator in (b";", b"\t", b" , ", b", "):
        pd.testing.assert_frame_equal(read(tmp_path, burstgpt(RUN).replace(b",", separator)), expected)


@pytest.mark.parametrize("zone", ["+00:00", "-05:00", "Z", "+0530"])
def test_times_with_a_zone_are_read(tmp_path: Path, zone: str) -> None:
    content = azure(RUN).decode().replace("0,40", f"{zone},40").replace("0,30", f"{zone},30").encode()
    assert read(tmp_path, content)["arrival_time_ns"].tolist() == [0, 250_000_000]


def test_a_zone_that_only_some_times_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="some dates have a zone"):
        read(tmp_path, azure(RUN).replace(b"0,40", b"Z,40"))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    content = b"arrived_at,num_prefill_tokens,num_decode_tokens,num_prefill_tokens\n0,5,6,7\n"
    with pytest.raises(ArtifactError, match="two columns of one name: num_prefill_tokens"):
        read(tmp_path, content)


def test_a_table_that_ends_in_the_middle_of_a_line_is_refused(tmp_path: Path) -> None:
    """But for those of CR LF: Azure's own end in nothing."""
    content = vidur([*RUN, Request(500_000, 10, 1, tuple(range(99)))])
    with pytest.raises(ArtifactError, match="its last line does not end"):
        read(tmp_path, content[:-2])
    crlf = content.replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    pd.testing.assert_frame_equal(read(tmp_path, crlf), read(tmp_path, content))


@pytest.mark.parametrize("key", ["prompts", "trace"])
def test_a_pipe_is_refused_by_name_unread(tmp_path: Path, key: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # to open it would wait for ever
    config = typed_config("workload_spec", "experiment=cpu_demo", f"workload={key}", f"workload.{key}={pipe}")
    for refuse in (lambda: workload_path(config), lambda: read_recorded(pipe)):
        with pytest.raises(ArtifactError, match=f"not a file: {pipe}: what comes through a pipe"):
            refuse()


def test_half_a_surrogate_pair_in_a_prompt_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "talks.json"
    turns = [{"from": "human", "value": "half \ud83d"}, {"from": "gpt", "value": "\udc00 other"}]
    path.write_text(json.dumps([{"conversations": turns}]))
    assert list(read_conversations(path)) == [[("half \ufffd", "\ufffd other")]]


# 4. What was not measured is unknown.


def test_answers_in_one_piece_have_an_end_and_no_first_token(tmp_path: Path) -> None:
    for content in (changed(vllm(RUN), itls=[[], []]), edited(sglang(RUN), ("itls", [[], []]))):
        frame = read(tmp_path, content)
        assert frame["first_token_time_ns"].isna().all()
        late = frame["completion_time_ns"] - frame.get("arrival_time_ns", 0)
        assert late.tolist() == [50_000_000, 20_000_000]
        assert frame["token_times_ns"].isna().all()


def test_a_first_token_that_a_client_did_not_time_is_unknown(tmp_path: Path) -> None:
    records = [json.loads(line) for line in aiperf(RUN).splitlines()]
    for record in records:
        del record["metrics"]["time_to_first_token"], record["metrics"]["inter_chunk_latency"]
    frames = [read(tmp_path, lines(*records))]
    path = "benchmarks/0/requests/successful/{}/time_to_first_token_ms"
    for nothing in (None, 0, 0.0):
        frames += [read(tmp_path, edited(guidellm(RUN), *((path.format(n), nothing) for n in (0, 1))))]
    for frame in frames:
        assert "first_token_time_ns" not in frame or frame["first_token_time_ns"].isna().all()
        late = (frame["completion_time_ns"] - frame["arrival_time_ns"]).tolist()
        assert late == pytest.approx([83_000_000, 45_000_000], abs=500)
    one = read(tmp_path, edited(guidellm(RUN), (path.format(0), 0)))
    assert one["first_token_time_ns"].isna().tolist() == [True, False]


def test_a_time_to_first_token_of_zero_is_no_measurement(tmp_path: Path) -> None:
    assert read(tmp_path, edited(aiperf(RUN), ("metrics/time_to_first_token/value", 0)))["first_token_time_ns"].isna()[
        0
    ]
    now = edited(inference_perf(RUN).replace(b"\n", b""), ("0/info/response_metrics/output_token_times/0", 300.5))
    assert read(tmp_path, now)["first_token_time_ns"].isna().tolist() == [True, False]
    with pytest.raises(ArtifactError, match=r"request 1: .* is missing, and the request has not failed"):
        read(tmp_path, changed(vllm(RUN), ttfts=[0.0, 0.02]))  # and nothing else says when its answer ended


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if writer.answers and name != "parquet"])
def test_a_request_without_output_tokens_has_failed_in_every_format(tmp_path: Path, name: str) -> None:
    content = WRITERS[name].write([*RUN, Request(500_000, 10, 0, (), "gone")])
    for said in (b"ClientOSError", b"gone"):
        content = content.replace(said, b"")
    content = content.replace(b'"code": 2', b'"code": 0').replace(b'"code": 499, "type": "", "message": ""', b"")
    if name == "guidellm":
        groups = json.loads(content)
        requests = groups["benchmarks"][0]["requests"]
        requests["successful"] += requests.pop("errored")
        content = json.dumps(groups).encode()
    frame = read(tmp_path, content, WRITERS[name].columns)
    assert frame["error_type"].notna().tolist() == [False, False, True]
    assert frame.loc[2, "error_msg"] in ("no output token", '{"error_type": "", "error_msg": ""}')


def test_a_run_in_which_all_failed_says_so_with_the_first_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="every request failed; the first: gone"):
        read(tmp_path, vllm(REFUSED[2:] * 2))


# 5. Roles.


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (("system", "human", "gpt"), [("1", "2")]),
        (("gpt", "human", "gpt", "human"), [("1", "2")]),
        (("user", "assistant", "user", "assistant"), [("0", "1"), ("2", "3")]),
        (("human", "human", "gpt", "gpt", "human", "gpt"), [("0", "2"), ("4", "5")]),
        (("gpt", "human"), []),
        (("system", "gpt"), []),
        ((), []),
    ],
)
def test_a_human_turn_asks_and_what_follows_answers(
    tmp_path: Path, roles: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    path = tmp_path / "talks.json"
    path.write_text(json.dumps([{"conversations": [{"from": role, "value": str(n)} for n, role in enumerate(roles)]}]))
    assert list(read_conversations(path)) == [expected]


# 6. Contradictions are refused.


def test_a_latency_below_the_time_to_first_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="request 2: request_latency is before time_to_first_token"):
        read(tmp_path, edited(aiperf(RUN), ("metrics/request_latency/value", 10), line=1))
    with pytest.raises(ArtifactError, match="request 1: latency is before first"):
        read(tmp_path, own_csv(RUN).replace(b"83.0", b"49.9"), OWN_COLUMNS)


def test_decreasing_times_of_tokens_are_refused_when_read(tmp_path: Path) -> None:
    content = inference_perf(RUN).replace(b"\n", b"")
    path = "0/info/response_metrics/output_token_times/2"
    with pytest.raises(ArtifactError, match="request 1: output_token_times decreases"):
        read(tmp_path, edited(content, (path, 300.55)))


@pytest.mark.parametrize(
    "two", [("arrival_time_s", "arrival_time_ms"), ("ttft_s", "first_token_time_s"), ("e2e_ms", "completion_time_s")]
)
def test_two_columns_for_one_quantity_are_refused(tmp_path: Path, two: tuple[str, str]) -> None:
    columns = {"num_prefill_tokens": "in", "num_decode_tokens": "out", **dict.fromkeys(two, "start")}
    with pytest.raises(ConfigError, match=rf"trace_columns: {two[0]} and {two[1]} say the same"):
        read(tmp_path, own_csv(RUN), columns)


def test_columns_are_for_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trace_columns is for a table, and this is JSON: .*some file"):
        read(tmp_path, vllm(RUN), OWN_COLUMNS)


# 7. A file that is another says which one is needed.


@pytest.mark.parametrize(
    ("document", "needed"),
    [
        (
            {
                "input_config": {},
                "was_cancelled": False,
                "request_throughput": {"avg": 1},
                "start_time": "",
                "end_time": "",
            },
            r"profile_export\.jsonl",
        ),
        ({"successes": {}, "failures": {}, "load_summary": {}}, r"per_request_lifecycle_metrics\.json"),
        ({"ttft_s": 1, "end_to_end_latency_s": 2, "number_input_tokens": 5}, "LLMPerf does not"),
        ({"dataset_name": "random", "request_throughput": 2, "mean_e2e_latency_ms": 3}, "--output-details"),
        ({"tokenizer_id": "m", "request_throughput": 2}, "--save-detailed"),
        ({key: value for key, value in json.loads(vllm(RUN)).items() if key != "start_times"}, "a newer one is needed"),
        ({"timestamp": 5, "answer": 42}, "no known format: keys timestamp, answer"),
    ],
)
def test_another_file_of_a_known_tool_is_told_from_its_own(tmp_path: Path, document: Any, needed: str) -> None:
    with pytest.raises(ArtifactError, match=needed):
        read(tmp_path, lines(document))


def test_several_results_in_one_file_are_refused(tmp_path: Path) -> None:
    for write in (vllm, sglang):
        with pytest.raises(ArtifactError, match="several results in one file"):
            read(tmp_path, write(RUN).rstrip() + b"\n" + write(RUN))


# Formats that say more or less than others.


def test_requests_sent_all_at_once_arrived_at_once(tmp_path: Path) -> None:
    frame = read(tmp_path, edited(sglang(RUN), ("request_rate", float("inf")), ("max_concurrency", None)))
    assert frame["arrival_time_ns"].tolist() == [0, 0]
    for more in (("request_rate", 2.0), ("max_concurrency", 8)):
        fields = {"request_rate": float("inf"), "max_concurrency": None} | dict([more])
        assert "arrival_time_ns" not in read(tmp_path, edited(sglang(RUN), *fields.items()))


def test_a_servers_own_spans_say_how_long_a_request_was_queued(tmp_path: Path) -> None:
    http = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [{"name": "POST", "attributes": []}]}]}]}
    frame = read(tmp_path, lines(http) + vllm_spans(RUN))
    assert (frame["first_scheduled_time_ns"] - frame["arrival_time_ns"]).tolist() == [25_000_000, 10_000_000]
    with pytest.raises(ArtifactError, match="no span of a request"):
        read(tmp_path, lines(http))
