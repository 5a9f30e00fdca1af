"""The same inputs and seed give the same bytes; another seed gives others."""

import hashlib
import random
from decimal import Context, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.config.schema import (
    ArrivalConfig,
    HydraRecord,
    LengthConfig,
    RealBenchConfig,
    WorkloadSpecConfig,
)
from gpu_simulate_test.errors import ArtifactError, ConfigError, MachineError
from gpu_simulate_test.io.run_dir import WORKLOAD_META, open_run_dir
from gpu_simulate_test.io.workload import DATA_FILES, PROMPTS, load_workload, read_prompts, token_ids, workload_path
from gpu_simulate_test.real_bench.stage import load_requests
from gpu_simulate_test.workloads.arrival_schedule import inter_arrivals
from gpu_simulate_test.workloads.lengths import draw_lengths
from gpu_simulate_test.workloads.spec import write_workload
from tests.support.configs import typed_config

TINY = "gsim/qwen3-tiny"
RECORD = HydraRecord("workload_spec", "configs", [])

# What the shipped prompts gave when this test was written: a change here changes everybody's workloads.
GOLDEN_SETTINGS = ("workload.num_decode_tokens=16", "workload.seed=7", "workload.arrival.rate_per_s=2.5")
GOLDEN = {
    "trace_lengths.csv": "1696e844afca0ac0673118be08e84d4b3d466a42a59afea55f628b68e3aa1d8e",
    "trace_intervals.csv": "4499953940ed6d10d614ea02c48e8485a3cc5e65375b37ab219592a65becb467",
    "prompts.jsonl": "bb902314a8d0c62197a7685ede09c671ea55397796580c02a24e895853d32f2d",
}


# Likewise a synthetic workload with every kind of draw.
SYNTHETIC_SETTINGS = (
    "workload=synthetic",
    "workload.num_requests=200",
    "workload.num_prefill_tokens_median=60.5",
    "workload.num_prefill_tokens_sigma=1.2",
    "workload.num_decode_tokens_zipf=1.1",
    "workload.arrival.kind=gamma",
    "workload.arrival.cv=2.5",
)
SYNTHETIC = {
    "trace_lengths.csv": "2f06ae8482d2d201a115d928f3086c44a6dfc44054249640965fee093697332e",
    "trace_intervals.csv": "67472f3ddd9324159108e4d742561d2818030b8928e17fad231980fb89a510cb",
    "prompts.jsonl": "51875c85719dcad8eb8cd085ca301abaa81ca709ef884c17163f54b32969ce87",
}


def build(root: Path, *overrides: str) -> Path:
    config = typed_config("workload_spec", "experiment=cpu_demo", f"output.root={root}", *overrides)
    assert isinstance(config, WorkloadSpecConfig)
    path = workload_path(config)
    with open_run_dir(path, config, RECORD, meta=WORKLOAD_META) as run:
        write_workload(config, run)
    return path


def digests(path: Path) -> dict[str, str]:
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in DATA_FILES}


def test_two_folders_hold_the_same_bytes(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    assert first.name == second.name
    assert digests(first) == digests(second)


def test_the_shipped_workload_has_not_changed(tmp_path: Path) -> None:
    assert digests(build(tmp_path, *GOLDEN_SETTINGS)) == GOLDEN


def test_a_synthetic_workload_has_not_changed(tmp_path: Path) -> None:
    assert digests(build(tmp_path, *SYNTHETIC_SETTINGS)) == SYNTHETIC


def test_another_seed_is_another_workload(tmp_path: Path) -> None:
    first, second = build(tmp_path), build(tmp_path, "workload.seed=1")
    assert first != second
    assert digests(first)["trace_intervals.csv"] != digests(second)["trace_intervals.csv"]


def test_a_finished_workload_reads_back_and_agrees_with_itself(tmp_path: Path) -> None:
    workload = load_workload(build(tmp_path), TINY)
    assert len(workload) == 40
    assert (workload.lengths["num_decode_tokens"] == 32).all()
    assert workload.arrivals.known_ns[0] == 0


ARRIVALS = st.builds(
    ArrivalConfig,
    kind=st.sampled_from(["poisson", "gamma", "ramp"]),
    inter_arrival_ns=st.just(0),
    rate_per_s=st.floats(0.01, 1000),
    cv=st.floats(0.1, 10),
    end_rate_per_s=st.floats(0.01, 1000),
)


@given(ARRIVALS, st.integers(0, 2**32), st.integers(1, 200))
def test_gaps_are_whole_nanoseconds_and_the_same_every_time(arrival: ArrivalConfig, seed: int, count: int) -> None:
    gaps = inter_arrivals(arrival, count, seed)
    assert gaps.dtype == np.int64
    assert gaps.shape == (count,)
    assert gaps[0] == 0
    assert (gaps >= 0).all()
    assert (gaps == inter_arrivals(arrival, count, seed)).all()


@given(st.integers(0, 2**32), st.floats(1e-7, 1000))
def test_poisson_gaps_are_the_exact_draws_rounded_down(seed: int, rate: float) -> None:
    uniform, mean, exact = random.Random(seed).random, Decimal(1e9 / rate), Context(prec=20)
    expected = [int(-exact.ln(Decimal(1 - uniform())) * mean) for _ in range(30)]
    assert (
        inter_arrivals(ArrivalConfig(kind="poisson", inter_arrival_ns=0, rate_per_s=rate), 30, seed)[1:].tolist()
        == expected[1:]
    )


def test_poisson_gaps_have_the_exponential_mean_and_spread() -> None:
    gaps = inter_arrivals(ArrivalConfig(kind="poisson", inter_arrival_ns=0, rate_per_s=10.0), 20_000, seed=3)[1:]
    assert gaps.mean() == pytest.approx(1e8, rel=0.03)
    assert gaps.std() == pytest.approx(1e8, rel=0.05)


@pytest.mark.parametrize("cv", [0.2, 1.0, 4.0])
def test_gamma_gaps_have_the_asked_rate_and_coefficient_of_variation(cv: float) -> None:
    gaps = inter_arrivals(ArrivalConfig(kind="gamma", inter_arrival_ns=0, rate_per_s=10.0, cv=cv), 100_000, seed=3)[1:]
    assert gaps.mean() == pytest.approx(1e8, rel=0.04)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.04)


def test_a_ramp_goes_from_one_rate_to_the_other() -> None:
    gaps = inter_arrivals(
        ArrivalConfig(kind="ramp", inter_arrival_ns=0, rate_per_s=1.0, end_rate_per_s=9.0), 100_000, seed=3
    )
    rates = 1e9 / gaps[1:].reshape(3, -1).mean(axis=1)
    assert rates[1] == pytest.approx(5.0, rel=0.05)
    assert 1 < rates[0] < 4 < 6 < rates[2] < 9
    assert 1e9 / gaps[1:3000].mean() == pytest.approx(1.1, rel=0.1)
    assert 1e9 / gaps[-3000:].mean() == pytest.approx(8.9, rel=0.1)


def test_a_ramp_between_equal_rates_is_poisson() -> None:
    ramp, poisson = (
        ArrivalConfig(kind="ramp", inter_arrival_ns=0, rate_per_s=3.7, end_rate_per_s=3.7),
        ArrivalConfig(kind="poisson", inter_arrival_ns=0, rate_per_s=3.7),
    )
    assert (inter_arrivals(ramp, 500, seed=1) == inter_arrivals(poisson, 500, seed=1)).all()


def test_fixed_gaps_are_equal() -> None:
    gaps = inter_arrivals(ArrivalConfig(kind="fixed_interval", inter_arrival_ns=250, rate_per_s=1.0), 4, seed=0)
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


LIMITS = st.tuples(st.integers(1, 3000), st.integers(1, 3000)).map(sorted)


@given(LIMITS, st.floats(0, 3), st.floats(0, 1), st.integers(0, 9))
def test_lengths_lie_within_their_limits(limits: list[int], spread: float, part: float, seed: int) -> None:
    low, high = limits
    median = min(low + part * (high - low), float(high))
    for lengths in (
        LengthConfig(high, low, None, None, None),
        LengthConfig(high, low, median, spread, None),
        LengthConfig(high, low, None, None, spread),
    ):
        lengths.check("workload.num_prefill_tokens")
        drawn = draw_lengths(lengths, 100, str(seed))
        assert ((low <= drawn) & (drawn <= high)).all()
        assert (drawn == draw_lengths(lengths, 100, str(seed))).all()


def test_lognormal_lengths_have_the_asked_median_and_spread() -> None:
    drawn = draw_lengths(LengthConfig(10**9, None, 1000.0, 0.7, None), 50_000, "seed")
    assert np.median(drawn) == pytest.approx(1000, rel=0.02)
    assert np.log(drawn).std() == pytest.approx(0.7, rel=0.02)


def test_a_zipf_length_is_as_likely_as_its_power() -> None:
    drawn = draw_lengths(LengthConfig(1000, 10, None, None, 1.5), 200_000, "seed")
    counts = np.bincount(drawn, minlength=1001)
    assert counts[10] / counts[20] == pytest.approx(2**1.5, rel=0.1)
    assert counts[10:20].sum() / counts[40:80].sum() == pytest.approx(2.0, rel=0.1)


def test_without_a_minimum_every_length_is_the_maximum() -> None:
    assert draw_lengths(LengthConfig(7, None, None, None, None), 3, "seed").tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["workload.num_prefill_tokens_median=50"], "num_prefill_tokens_median and .*_sigma go together"),
        (["workload.num_decode_tokens_median=9000", "workload.num_decode_tokens_sigma=1"], "must be from 8 to 32"),
        (["workload.num_prefill_tokens_zipf=-1"], "num_prefill_tokens_zipf=-1 is out of range"),
        (["workload.num_prefill_tokens_min=600"], "num_prefill_tokens_min=600 is above"),
        (["workload.arrival.kind=ramp"], "end_rate_per_s is missing"),
        (["workload.arrival.kind=gamma", "workload.arrival.cv=0"], "cv=0 is out of range"),
        (["workload.arrival.kind=trace"], "only a trace has arrivals"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        typed_config("workload_spec", "experiment=cpu_demo", "workload=synthetic", *overrides)


def test_generated_tokens_are_not_stored_and_read_back_the_same(tmp_path: Path) -> None:
    path = build(tmp_path, "workload=synthetic", "workload.num_requests=5")
    prompts = list(read_prompts(path / PROMPTS))
    assert not any("token_ids" in prompt for prompt in prompts)
    workload = load_workload(path, TINY)
    config = typed_config("real_bench", "experiment=cpu_demo", "workload=synthetic")
    assert isinstance(config, RealBenchConfig)
    requests = load_requests(workload, config)
    assert [len(request.token_ids) for request in requests] == workload.lengths["num_prefill_tokens"].tolist()
    assert all(3 <= token < config.model.vocab_size for request in requests for token in request.token_ids)
    assert list(requests[3].token_ids) == token_ids(prompts[3])
    assert list(requests[3].token_ids[:4]) != list(requests[2].token_ids[:4])


def test_generated_tokens_are_the_same_as_when_this_was_written() -> None:
    prompt = {"prompt_id": "synthetic-3", "text": "", "random_tokens": {"count": 6, "seed": 0, "vocab_size": 4096}}
    assert token_ids(prompt) == [437, 970, 3271, 3537, 2118, 3806]


def test_more_requests_than_prompts_start_again_with_their_own_ids(tmp_path: Path) -> None:
    lengths = load_workload(build(tmp_path, "workload.num_requests=45"), TINY).lengths
    assert lengths["prompt_id"].is_unique
    assert lengths["prompt_id"][40] == lengths["prompt_id"][0] + "#2"
    assert lengths["num_prefill_tokens"][40] == lengths["num_prefill_tokens"][0]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["limits.num_blocks=4"], "KV cache's 4 blocks"),
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
