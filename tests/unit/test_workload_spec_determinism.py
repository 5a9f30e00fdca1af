"""The same inputs and seed give the same bytes; another seed gives others."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.config.schema import ArrivalConfig, HydraRecord, WorkloadSpecConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError, MachineError
from gpu_simulate_test.io.run_dir import WORKLOAD_META, open_run_dir
from gpu_simulate_test.io.workload import DATA_FILES, load_workload, workload_path
from gpu_simulate_test.workloads.arrival_schedule import inter_arrivals
from gpu_simulate_test.workloads.spec import write_workload
from tests.configs import typed_config

TINY = "gsim/qwen3-tiny"
RECORD = HydraRecord("workload_spec", "configs", [])

# What the shipped prompts gave when this test was written: a change here changes everybody's workloads.
GOLDEN_SETTINGS = ("workload.num_decode_tokens=16", "workload.seed=7", "workload.arrival.rate_per_s=2.5")
GOLDEN = {
    "trace_lengths.csv": "1696e844afca0ac0673118be08e84d4b3d466a42a59afea55f628b68e3aa1d8e",
    "trace_intervals.csv": "4499953940ed6d10d614ea02c48e8485a3cc5e65375b37ab219592a65becb467",
    "prompts.jsonl": "bb902314a8d0c62197a7685ede09c671ea55397796580c02a24e895853d32f2d",
}


def build(root: Path, *overrides: str) -> Path:
    config = typed_config("workload_spec", "experiment=cpu_demo", f"output.root={root}", *overrides)
    assert isinstance(config, WorkloadSpecConfig)
    path = workload_path(config)
    with open_run_dir(path, overwrite=False, meta=WORKLOAD_META) as run:
        write_workload(config, RECORD, path, run)
    return path


def digests(path: Path) -> dict[str, str]:
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in DATA_FILES}


def test_two_folders_hold_the_same_bytes(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    assert first.name == second.name
    assert digests(first) == digests(second)


def test_the_shipped_workload_has_not_changed(tmp_path: Path) -> None:
    assert digests(build(tmp_path, *GOLDEN_SETTINGS)) == GOLDEN


def test_another_seed_is_another_workload(tmp_path: Path) -> None:
    first, second = build(tmp_path), build(tmp_path, "workload.seed=1")
    assert first != second
    assert digests(first)["trace_intervals.csv"] != digests(second)["trace_intervals.csv"]


def test_a_finished_workload_reads_back_and_agrees_with_itself(tmp_path: Path) -> None:
    workload = load_workload(build(tmp_path), TINY)
    assert len(workload) == 40
    assert (workload.lengths["num_decode_tokens"] == 32).all()
    assert workload.arrival_time_ns[0] == 0


@given(st.integers(0, 2**32), st.floats(0.01, 1000), st.integers(1, 200))
def test_poisson_gaps_are_whole_nanoseconds_of_the_asked_rate(seed: int, rate: float, count: int) -> None:
    gaps = inter_arrivals(ArrivalConfig("poisson", 0, rate), count, seed)
    assert gaps.dtype == np.int64
    assert gaps[0] == 0
    assert (gaps >= 0).all()
    assert (gaps == inter_arrivals(ArrivalConfig("poisson", 0, rate), count, seed)).all()


def test_poisson_gaps_have_the_exponential_mean_and_spread() -> None:
    gaps = inter_arrivals(ArrivalConfig("poisson", 0, 10.0), 20_000, seed=3)[1:]
    assert gaps.mean() == pytest.approx(1e8, rel=0.03)
    assert gaps.std() == pytest.approx(1e8, rel=0.05)


def test_fixed_gaps_are_equal() -> None:
    gaps = inter_arrivals(ArrivalConfig("fixed_interval", 250, 1.0), 4, seed=0)
    assert gaps.tolist() == [0, 250, 250, 250]


def test_synthetic_lengths_fill_their_range(tmp_path: Path) -> None:
    path = build(
        tmp_path,
        "workload=synthetic",
        "workload.num_requests=400",
        "workload.num_prefill_tokens=20",
        "workload.num_prefill_tokens_min=11",
    )
    lengths = load_workload(path, TINY).lengths
    assert sorted(lengths["num_prefill_tokens"].unique()) == list(range(11, 21))
    assert lengths["num_decode_tokens"].between(8, 64).all()


def test_more_requests_than_prompts_start_again_with_their_own_ids(tmp_path: Path) -> None:
    lengths = load_workload(build(tmp_path, "workload.num_requests=45"), TINY).lengths
    assert lengths["prompt_id"].is_unique
    assert lengths["prompt_id"][40] == lengths["prompt_id"][0] + "#2"
    assert lengths["num_prefill_tokens"][40] == lengths["num_prefill_tokens"][0]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["backend.num_blocks=4"], "KV cache's 4 blocks"),
        (["workload.num_decode_tokens=5000"], "model's limit of 4096"),
    ],
)
def test_a_request_that_cannot_fit_is_refused_by_name(tmp_path: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build(tmp_path, *overrides)


def test_text_without_the_models_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"tokenizer of Qwen/Qwen3-0\.6B is missing"):
        build(tmp_path, "model=qwen3_0_6b", f"model.path={tmp_path}")


@pytest.mark.parametrize(
    ("name", "edit", "complaint"),
    [
        ("trace_intervals.csv", lambda text: text.rsplit("\n", 2)[0] + "\n", "CSVs disagree"),
        ("trace_lengths.csv", lambda text: text.replace(",32\n", ",33\n", 1), "changed since they were made"),
        ("trace_lengths.csv", lambda text: text[:-3], "truncated"),
        ("prompts.jsonl", lambda text: text + "\n", "changed since they were made"),
    ],
)
def test_a_workload_whose_files_disagree_is_refused(tmp_path: Path, name: str, edit, complaint: str) -> None:  # type: ignore[no-untyped-def]
    path = build(tmp_path)
    (path / name).write_text(edit((path / name).read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ArtifactError, match=complaint):
        load_workload(path, TINY)


def test_a_workload_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="another model"):
        load_workload(build(tmp_path), "Qwen/Qwen3-0.6B")
