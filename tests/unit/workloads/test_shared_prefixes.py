"""Requests share the beginnings that the settings or a trace say; without any, nothing has changed."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.schema import HydraRecord, RealBenchConfig, WorkloadSpecConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.recorded import read_recorded
from gpu_simulate_test.io.run_dir import WORKLOAD_META, open_run_dir
from gpu_simulate_test.io.tables import REQUEST_METRICS, read_table
from gpu_simulate_test.io.workload import PROMPTS, Workload, load_workload, read_prompts, token_ids, workload_path
from gpu_simulate_test.io.workload_prefixes import block_keys
from gpu_simulate_test.real_bench.recorded import import_recorded, read_run
from gpu_simulate_test.workloads.spec import write_workload
from tests.support.configs import typed_config

RECORD = HydraRecord("workload_spec", "configs", [])
SHARED = Path(os.environ.get("GST_SHARED_DATA", project_root().parent / "shared" / "data"))
H100 = SHARED / "gpu-public" / "h100-vllm-0.15"


def settings(root: Path, *overrides: str) -> Sequence[str]:
    return ("experiment=cpu_demo", f"output.root='{root}'", "overwrite=true", *overrides)


def build(root: Path, *overrides: str) -> Workload:
    config = typed_config("workload_spec", *settings(root, *overrides))
    assert isinstance(config, WorkloadSpecConfig)
    path = workload_path(config)
    with open_run_dir(path, config, RECORD, meta=WORKLOAD_META) as run:
        write_workload(config, run)
    return load_workload(path, config.model.id)


def ids_of(workload: Workload) -> list[list[int]]:
    return [token_ids(prompt) or [] for prompt in read_prompts(workload.path / PROMPTS)]


def common(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def summary(workload: Workload) -> str:
    return (workload.path / "summary.md").read_text(encoding="utf-8")


SYNTHETIC = ("workload=synthetic", "workload.num_requests=60", "workload.num_prefill_tokens_min=70")
PREFIX = (*SYNTHETIC, "workload.prefix.num_prefixes=3", "workload.prefix.num_tokens=64")


def test_synthetic_prompts_begin_with_one_of_the_prefixes(tmp_path: Path) -> None:
    workload = build(tmp_path, *PREFIX)
    ids = ids_of(workload)
    assert [len(one) for one in ids] == workload.lengths["num_prefill_tokens"].tolist()
    groups = {tuple(one[:64]): one for one in ids}
    assert len(groups) == 3
    assert all(common(one, groups[tuple(one[:64])]) in (64, len(one)) for one in ids)
    assert [len(keys) for keys in block_keys(workload, 16)] == [4] * 60
    found = 57 * 64
    assert f"finds {found} prompt tokens, {found / sum(map(len, ids)):.1%}" in summary(workload)


def test_prefixes_are_part_of_a_workloads_identity_and_of_no_other(tmp_path: Path) -> None:
    plain, shared = build(tmp_path, *SYNTHETIC), build(tmp_path, *PREFIX)
    assert plain.path != shared.path
    assert "shared beginnings: none" in summary(plain)
    assert plain.lengths.equals(shared.lengths)
    assert (plain.arrivals.known_ns == shared.arrivals.known_ns).all()
    # as before there were prefixes
    assert build(tmp_path, "workload=synthetic").path.name == "workload_25350f3c07"
    assert build(tmp_path).path.name == "workload_d2ca2b91fc"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (("workload.prefix.num_tokens=70",), r"prefix\.num_tokens=70 leaves nothing of a prompt of 70 tokens: raise"),
        (("workload.num_prefill_tokens_min=null", "workload.prefix.num_tokens=512"), "of a prompt of 512 tokens"),
        (
            (
                *("workload.num_prefill_tokens_min=null", "workload.num_prefill_tokens_zipf=1"),
                "workload.prefix.num_tokens=1",
            ),
            "of a prompt of 1 tokens",
        ),
        (("workload.prefix.num_prefixes=0",), "must be from 1 to"),
        (("workload.source=prompts", "workload.prompts=x", "workload.prefix.num_tokens=9"), "needs workload.source=sy"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused(tmp_path: Path, overrides: Sequence[str], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        typed_config("workload_spec", *settings(tmp_path, *SYNTHETIC, *overrides))


def test_a_prompt_used_again_is_the_same_tokens(tmp_path: Path) -> None:
    workload = build(tmp_path, "workload.num_requests=45")
    ids, keys = ids_of(workload), block_keys(workload, 4)
    assert ids[40:] == ids[:5]
    assert [list(one) for one in keys[40:]] == [list(one) for one in keys[:5]]
    assert [len(one) for one in keys[:5]] == [len(one) // 4 for one in ids[:5]]


HEADER = "request_id,prompt_id,arrival_time_us,num_prefill_tokens,num_decode_tokens,ttft_us,e2e_us,status"
# Three uses of one prompt, one of them shorter, and another prompt; one request failed.
ROWS = ("0,p0,0,100,3,50,900,ok", "1,p1,1000,90,2,60,800,ok", "2,p0,2500,100,4,70,700,ok", "3,p0,9000,80,2,,,error")


def table(path: Path, *rows: str) -> Path:
    path.write_bytes(gzip.compress("\n".join([HEADER, *rows, ""]).encode()))
    return path


def trace(path: Path) -> tuple[str, str]:
    return "workload=trace", f"workload.trace='{path}'"


def test_a_prompt_that_a_table_repeats_is_the_same_tokens_as_far_as_it_goes(tmp_path: Path) -> None:
    workload = build(tmp_path, *trace(table(tmp_path / "runs.csv.gz", *ROWS)))
    assert workload.arrivals.known_ns.tolist() == [0, 1_000_000, 2_500_000, 9_000_000]
    first, other, again, shorter = ids_of(workload)
    assert again == first
    assert shorter == first[:80]
    assert len(other) == 90
    assert common(first, other) < 3
    assert [len(keys) for keys in block_keys(workload, 16)] == [6, 0, 6, 5]
    assert "shared beginnings: 3 prompts" in summary(workload)


def test_a_table_whose_prompts_differ_gives_the_tokens_it_gave(tmp_path: Path) -> None:
    without = tmp_path / "plain.csv"
    without.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,100,3\n0.001,90,2\n", encoding="utf-8")
    assert build(tmp_path, *trace(table(tmp_path / "a.csv.gz", *ROWS[:2]))).sha256 == (
        build(tmp_path, *trace(without)).sha256
    )


def test_such_a_table_is_a_recorded_run_as_it_is(tmp_path: Path) -> None:
    path = table(tmp_path / "runs.csv.gz", *ROWS)
    overrides = (*trace(path), "backend=recorded", f"backend.requests='{path}'")
    workload = build(tmp_path, *overrides)
    config = typed_config("real_bench", *settings(tmp_path, *overrides))
    assert isinstance(config, RealBenchConfig)
    with open_run_dir(tmp_path / "run", config, RECORD) as run:
        import_recorded(config, workload, read_run(config), run)
    requests = read_table(tmp_path / "run", REQUEST_METRICS)
    assert requests["ttft_ns"].tolist()[:3] == [50_000, 60_000, 70_000]
    assert (requests["completion_time_ns"] - requests["arrival_time_ns"]).tolist()[:3] == [900_000, 800_000, 700_000]
    assert requests["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert requests["ttft_ns"].isna().tolist() == [False, False, False, True]


def test_a_status_says_what_failed_unless_the_error_does(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = ["5,3,9,ok,", "5,3,,Aborted,", "5,3,,error,Full: no block is free", "5,3,9, OK ,"]
    path.write_text("\n".join(["num_prefill_tokens,num_decode_tokens,e2e_ms,status,error_msg", *rows, ""]))
    frame = read_recorded(path)
    assert frame["error_type"].tolist() == [None, "error", "Full", None]
    assert frame["error_msg"].tolist() == [None, "Aborted", "Full: no block is free", None]


def mooncake(path: Path, *requests: tuple[int, Any]) -> Path:
    rows = [
        {"timestamp": 1000 * number, "input_length": length, "output_length": 5, "hash_ids": ids}
        for number, (length, ids) in enumerate(requests)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_blocks_of_a_trace_with_equal_hashes_are_equal_tokens(tmp_path: Path) -> None:
    requests = [(1100, [7, 8, 9]), (1100, [7, 8, 10]), (600, [7, 11]), (1030, [12, 8, 9]), (1536, [7, 8, 9])]
    workload = build(tmp_path, *trace(mooncake(tmp_path / "trace", *requests)))
    ids = ids_of(workload)
    assert [len(one) for one in ids] == [length for length, _ in requests]
    shared = [[common(one, other) for other in ids] for one in ids]
    assert shared[0] == [1100, 1024, 512, 0, 1100]
    assert shared[2] == [512, 512, 600, 0, 512]
    assert [len(keys) for keys in block_keys(workload, 16)] == [1100 // 16, 64, 32, 0, 1100 // 16]
    scaled = build(tmp_path, *trace(tmp_path / "trace"), "workload.trace_length_scale=0.1")
    assert [len(keys) for keys in block_keys(scaled, 8)] == [13, 12, 6, 0, 13]


@pytest.mark.parametrize("size", [512, 16, 64])
def test_the_size_of_a_traces_blocks_is_the_one_that_fits(tmp_path: Path, size: int) -> None:
    lengths = (5 * size + 3, 5 * size + 9, size, 7)
    requests = [(length, list(range(-(-length // size)))) for length in lengths]
    frame = read_recorded(mooncake(tmp_path / "trace", *requests, (99, [4, 5, 6, 7, 8, 9]), (50, None)))
    assert (frame["block_tokens"] == size).all()
    assert [len(ids) for ids in frame["block_ids"]] == [6, 6, 1, 1, 0, 0]


def test_a_trace_that_shares_no_block_gives_the_tokens_it_gave(tmp_path: Path) -> None:
    with_ids = mooncake(tmp_path / "a", (600, [1, 2]), (700, [3, 2]), (30, [5]))
    without = mooncake(tmp_path / "b", (600, []), (700, None), (30, []))
    assert build(tmp_path, *trace(with_ids)).sha256 == build(tmp_path, *trace(without)).sha256


@pytest.mark.parametrize("ids", ["7", {"a": 1}, [[1]], [1.5]])
def test_hashes_that_are_none_are_refused_by_their_request(tmp_path: Path, ids: Any) -> None:
    with pytest.raises(ArtifactError, match="request 2: hash_ids is no list of numbers or texts"):
        read_recorded(mooncake(tmp_path / "trace", (5, [1]), (6, ids)))


def test_a_column_of_ones_own_says_which_prompts_repeat(tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    pd.DataFrame({"in": [64, 64, 32], "out": [1, 2, 3], "text": [5, 5, 6], "at": [0.0, 1.0, 2.0]}).to_parquet(path)
    columns = "{num_prefill_tokens: in, num_decode_tokens: out, prompt_id: text, arrival_time_s: at}"
    ids = ids_of(build(tmp_path, *trace(path), f"workload.trace_columns={columns}"))
    assert ids[0] == ids[1]
    assert common(ids[0], ids[2]) < 3


def test_every_prefix_is_as_likely(tmp_path: Path) -> None:
    workload = build(tmp_path, *PREFIX, "workload.num_requests=3000")
    counts = np.unique([keys[0] for keys in block_keys(workload, 64)], return_counts=True)[1]
    assert counts == pytest.approx([1000] * 3, rel=0.1)


@pytest.mark.skipif(not H100.is_dir(), reason="published H100 runs are absent: set GST_SHARED_DATA to their folder")
def test_published_runs_that_repeat_their_prompts_are_read_as_they_are() -> None:
    paths = sorted(H100.glob("*.csv.gz"))
    assert len(paths) == 8
    for path in paths:
        frame = read_recorded(path)
        assert len(frame) == (9000 if "codegen" in path.name else 16_800)
        assert frame["error_type"].isna().all()
        assert len({ids[0] for ids in frame["block_ids"]}) == 100
        assert (frame["completion_time_ns"] > frame["first_token_time_ns"]).all()
