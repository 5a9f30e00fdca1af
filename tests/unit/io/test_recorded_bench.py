"""Results of benchmark clients become real runs: with all that they recorded, and no more."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.cli import real_bench, workload_spec
from gpu_simulate_test.config.schema import HydraRecord
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import read_recorded
from tests.support.builders import MS
from tests.support.configs import typed_config
from tests.support.recorded_formats import Request, sglang

# One run, as each client would tell it: two requests served, one refused between them.
ARRIVAL_MS = (0, 250, 500)
PROMPTS = (30, 10, 20)
TOKEN_TIMES_MS = ((20, 30, 45), (), (520, 540))
ERROR = "ClientOSError: connection reset"


def vllm(**change: Any) -> dict[str, Any]:
    """In the order in which vLLM lists them: by prompt, not by arrival."""
    gaps = [[0.010, 0.015], [0.020], []]
    return {
        "date": "20260101-000000",
        "request_throughput": 2.0,
        "input_lens": [30, 20, 10],
        "output_lens": [3, 2, 0],
        "ttfts": [0.020, 0.020, 0.0],
        "itls": gaps,
        "start_times": [25834.25, 25834.75, 25834.5],
        "generated_texts": ["a", "b", ""],
        "errors": ["", "", f"Traceback (most recent call last):\n  ...\n{ERROR}\n"],
    } | change


def aiperf() -> list[dict[str, Any]]:
    epoch = 1_759_813_207_532_900_363
    records = []
    for arrival, prompt, times in zip(ARRIVAL_MS, PROMPTS, TOKEN_TIMES_MS, strict=True):
        start = epoch + arrival * MS
        metadata = {"request_start_ns": start, "request_end_ns": start + MS, "benchmark_phase": "profiling"}
        metrics: dict[str, Any] = {"error_isl": {"value": prompt, "unit": "tokens"}}
        error: dict[str, Any] | None = {"code": 499, "type": "ClientOSError", "message": ERROR}
        if times:
            error = None
            metrics = {  # what the client counted by itself differs from what the server did
                "input_sequence_length": {"value": prompt - 7, "unit": "tokens"},
                "usage_prompt_tokens": {"value": prompt, "unit": "tokens"},
                "output_sequence_length": {"value": len(times) + 2, "unit": "tokens"},
                "usage_completion_tokens": {"value": len(times), "unit": "tokens"},
                "time_to_first_token": {"value": times[0] - arrival, "unit": "ms"},
                "request_latency": {"value": times[-1] - arrival, "unit": "ms"},
                "inter_chunk_latency": {"value": np.diff(times).tolist(), "unit": "ms"},
            }
        records.append({"metadata": metadata, "metrics": metrics, "error": error})
    warm = {"request_start_ns": epoch - 10**9, "benchmark_phase": "warmup"}
    return [{"metadata": warm, "metrics": {}, "error": None}, *records]


def guidellm() -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = {"successful": [], "errored": [], "incomplete": []}
    for arrival, prompt, times in zip(ARRIVAL_MS, PROMPTS, TOKEN_TIMES_MS, strict=True):
        start = 1_795_333_490.0 + arrival / 1e3
        timings: dict[str, Any] = {"request_start": start}
        request: dict[str, Any] = {"prompt_tokens": prompt, "output_tokens": len(times) or None}
        if times:
            timings["last_token_iteration"] = 1_795_333_490.0 + times[-1] / 1e3
            request |= {"time_to_first_token_ms": times[0] - arrival, "request_latency": 9.0}
        request["info"] = {"timings": timings, "error": None if times else ERROR}
        groups["successful" if times else "errored"].append(request)
    totals = {"successful": 2, "errored": 1, "incomplete": 0, "total": 3}
    return {"metadata": {}, "benchmarks": [{"requests": groups, "metrics": {"request_totals": totals}}]}


def own_csv() -> str:
    rows = ["start,in,out,first,latency,problem"]
    for arrival, prompt, times in zip(ARRIVAL_MS, PROMPTS, TOKEN_TIMES_MS, strict=True):
        answer = f"{len(times)},{(times[0] - arrival) / 1e3},{times[-1] - arrival}," if times else f",,,{ERROR}"
        rows.append(f"{1_700_000_000_000_000_000 + arrival * MS},{prompt},{answer}")
    return "\n".join(rows) + "\n"


OWN_COLUMNS = (
    "{num_prefill_tokens:in,num_decode_tokens:out,arrival_time_ns:start,ttft_s:first,e2e_ms:latency,error_msg:problem}"
)


def write(path: Path, content: Any) -> Path:
    if isinstance(content, list):
        content = "".join(json.dumps(record) + "\n" for record in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def stage(command: ModuleType, root: Path, source: Path, *more: str) -> Path:
    config = typed_config(
        command.__name__.rpartition(".")[2],
        *("experiment=cpu_demo", "backend=recorded", "workload=trace"),
        *("limits.max_num_seqs=128", "limits.max_num_batched_tokens=2048", "limits.num_blocks=30000"),
        *(f"output.root={root}", f"workload.trace={source}", *more),
    )
    path: Path = command.run(config, HydraRecord("test", "", []))
    return path


def recorded(root: Path, source: Path, *more: str) -> Run:
    stage(workload_spec, root, source, *more)
    return load_run(stage(real_bench, root, source, *more), "real")


@pytest.mark.parametrize(
    ("content", "has_tokens", "more"),
    [
        (vllm(), True, ()),
        (json.dumps(vllm(), indent=2), True, ()),
        (aiperf(), True, ()),
        (guidellm(), False, ()),
        (own_csv(), False, (f"workload.trace_columns={OWN_COLUMNS}",)),
    ],
    ids=["vllm", "vllm, indented", "aiperf", "guidellm", "csv"],
)
def test_every_client_tells_the_same_run(tmp_path: Path, content: Any, has_tokens: bool, more: tuple[str, ...]) -> None:
    run = recorded(tmp_path, write(tmp_path / "result", content), *more)
    requests = run.requests
    assert requests["status"].tolist() == ["ok", "error", "ok"]
    assert requests["num_prefill_tokens"].tolist() == list(PROMPTS)
    assert requests["num_decode_tokens_actual"].tolist() == [3, 0, 2]
    assert requests["arrival_time_ns"].tolist() == [arrival * MS for arrival in ARRIVAL_MS]
    # Seconds since 1970 as floats are good to a quarter of a microsecond.
    served = requests[requests["status"] == "ok"]
    assert served["ttft_ns"].tolist() == pytest.approx([20 * MS, 20 * MS], abs=500)
    assert served["completion_time_ns"].tolist() == pytest.approx([45 * MS, 540 * MS], abs=500)
    assert requests["error_msg"][1] == ERROR
    assert requests.loc[1, ["ttft_ns", "submit_time_ns"]].isna().all()
    if has_tokens:
        assert run.tokens["request_id"].tolist() == [0, 0, 0, 2, 2]
        assert run.tokens["token_time_ns"].tolist() == [time * MS for times in TOKEN_TIMES_MS for time in times]
    else:
        assert run.tokens.empty
        assert any("time of each token" in figure for figure in run.missing)


def test_a_failed_request_names_its_error(tmp_path: Path) -> None:
    frame = read_recorded(write(tmp_path / "result.json", vllm()))
    assert frame.loc[1, "error_type"] == "ClientOSError"
    assert frame.loc[1, "num_decode_tokens"] == 1


def test_chunks_that_are_not_tokens_are_not_taken_for_tokens(tmp_path: Path) -> None:
    result = write(tmp_path / "result.json", vllm(output_lens=[4, 2, 0]))
    run = recorded(tmp_path, result)
    assert run.tokens.empty
    assert run.requests["completion_time_ns"].dropna().tolist() == [45 * MS, 540 * MS]
    assert "no times of tokens: of 1 requests" in (run.path / "summary.md").read_text(encoding="utf-8")


def test_the_first_requests_of_a_run_are_a_run(tmp_path: Path) -> None:
    run = recorded(tmp_path, write(tmp_path / "result.json", vllm()), "workload.num_requests=1")
    assert run.requests["completion_time_ns"].tolist() == [45 * MS]


def test_other_times_than_those_recorded_are_no_run(tmp_path: Path) -> None:
    result = write(tmp_path / "result.json", vllm())
    stage(workload_spec, tmp_path, result, "workload.trace_time_scale=2")
    with pytest.raises(ArtifactError, match="other requests than the workload"):
        stage(real_bench, tmp_path, result, "workload.trace_time_scale=2")


def test_a_run_in_which_all_failed_says_so_in_both_stages(tmp_path: Path) -> None:
    result = write(tmp_path / "result.json", vllm(errors=[ERROR] * 3))
    for command in (workload_spec, real_bench):
        with pytest.raises(ArtifactError, match=f"every request failed; the first: {ERROR}"):
            stage(command, tmp_path, result)


def test_a_run_without_arrivals_is_placed_on_those_of_the_workload(tmp_path: Path) -> None:
    run = [Request(0, 30, 20_000, (10_000, 15_000)), Request(0, 20, 20_000, (20_000,))]
    result = tmp_path / "result.jsonl"
    result.write_bytes(sglang(run))
    with pytest.raises(ConfigError, match=r"no arrivals in it: .*result\.jsonl; set workload\.arrival\.kind=poisson"):
        stage(workload_spec, tmp_path, result)
    settings = ("workload.arrival.kind=fixed_interval", "workload.arrival.inter_arrival_ns=100000000")
    real = recorded(tmp_path, result, *settings)
    assert real.requests["arrival_time_ns"].tolist() == [0, 100 * MS]
    assert real.requests["ttft_ns"].tolist() == [20 * MS, 20 * MS]
    assert real.tokens["token_time_ns"].tolist() == [20 * MS, 30 * MS, 45 * MS, 120 * MS, 140 * MS]
    assert real.meta["arrivals_recorded"] is False
    assert "arrivals not recorded" in (real.path / "summary.md").read_text(encoding="utf-8")


def test_a_recorded_run_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    first = write(tmp_path / "result.json", vllm())
    stage(workload_spec, tmp_path, first)
    moved = first.rename(tmp_path / "moved.json")
    stage(workload_spec, tmp_path, moved, "overwrite=true")
    run = stage(real_bench, tmp_path, moved)
    other = write(tmp_path / "result.json", vllm(ttfts=[0.030, 0.020, 0.0]))
    stage(workload_spec, tmp_path, other)
    assert stage(real_bench, tmp_path, other) != run
    copy = write(tmp_path / "copy.json", vllm())
    assert stage(real_bench, tmp_path, copy, "overwrite=true") == run


def test_a_trace_without_answers_is_no_run(tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,6\n")
    stage(workload_spec, tmp_path, trace)
    with pytest.raises(ArtifactError, match=r"requests without answers: .*trace\.csv"):
        stage(real_bench, tmp_path, trace)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"request_throughput": 2.0, "tokenizer_id": "m"}, "--save-detailed"),
        ([vllm(), vllm()], "several results"),
        (vllm(itls=[[0.1]]), "malformed"),
        (vllm(ttfts=[0.02, "soon", 0.0]), "malformed"),
        (vllm(input_lens=[30, None, 10]), "request 2: input_lens is missing"),
        (vllm(ttfts=[0.02, -0.02, 0.0]), "request 2: ttfts -0.02 is out of range"),
        (aiperf()[:1], "no request in it"),
        (
            [*aiperf(), {"metadata": {"request_start_ns": 5}, "metrics": {}}],
            "request 4: request_start_ns is more than ten years from others",
        ),
        (guidellm() | {"benchmarks": []}, "0 benchmarks"),
        (guidellm() | {"benchmarks": guidellm()["benchmarks"] * 2}, "2 benchmarks"),
        ({"benchmarks": [{"requests": {}, "metrics": {"request_totals": {"total": 9}}}]}, "0 of 9"),
        ({"benchmarks": [{}]}, "malformed"),
    ],
)
def test_a_result_that_cannot_be_is_refused_by_name(tmp_path: Path, content: Any, complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint) as refused:
        read_recorded(write(tmp_path / "some result", content))
    assert "some result" in str(refused.value)
