"""A figure is within the floor, within tolerance or off; what cannot be compared is void, and says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.gates import dispatch_lag
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.analysis.verdict import judge, verdict_of
from tests.support.builders import MS, edit_csv, write_run
from tests.unit.analysis.test_floor import row, runs, times

ENGINE = {"num_blocks": 64, "block_size": 16, "max_num_seqs": 4, "max_num_batched_tokens": 32}
SETTINGS = {"num_blocks": 64, "block_size": 16, "batch_cap": 4, "token_budget": 32}
REAL_META = {
    "model": "m",
    "params": {"hardware": {"name": "cpu"}},
    "engine": ENGINE,
    "reference_ns": 100,
}
SIM_META = {
    "model": "m",
    "params": {"hardware": {"name": "cpu"}},
    "settings": SETTINGS,
    "reference_ns": 101,
    "profile_held_out": {"median_error": 0.01, "total_error": -0.02},
}
COMPOSITION = dict.fromkeys(
    ("num_prefill_tokens", "num_prefill_seqs", "num_decode_seqs", "kv_tokens_prefill", "kv_tokens_decode"), 1
)


@pytest.mark.parametrize(
    ("error", "floor", "relative", "word"),
    [
        (20.0, 0.2, 0.20, "within the floor"),
        (-21.0, 0.2, -0.21, "off"),
        (-4.0, 0.02, -0.04, "within tolerance"),
        (6.0, 0.02, 0.06, "off"),
        (3.0, 0.9, 0.03, "within tolerance"),
        (50.0, 0.9, 0.50, "too noisy to judge"),
        (5.0, None, 0.05, "within tolerance"),
        (20.0, None, -0.2, "off"),
        (1.0, None, None, "not judged"),
        (None, None, None, "not judged"),
    ],
)
def test_a_figure_is_judged_by_a_floor_that_is_narrow_enough_then_by_the_tolerance(
    error: float | None, floor: float | None, relative: float | None, word: str
) -> None:
    """The real figure is 100 ns."""
    columns = {"error_ns": error, "floor": floor, "floor_ns": floor and 100 * floor, "relative_error": relative}
    table = pd.DataFrame({name: [value] for name, value in columns.items()}, dtype=float)
    assert judge(table, 0.05) == [word]


@pytest.mark.parametrize(
    ("words", "status", "verdict"),
    [
        (["within the floor", "within tolerance", "not judged"], "passed", "within tolerance"),
        (["within the floor", "within the floor", "off"], "flagged", "off"),
        (["within the floor"] * 3, "flagged", "within the floor"),
        (["within the floor"] * 3, "void", "void"),
        (["not judged"] * 3, "passed", "not judged"),
    ],
)
def test_the_run_is_as_good_as_its_worst_percentile(words: list[str], status: str, verdict: str) -> None:
    columns = {"statistic": ["p50", "p90", "p99", "mean"], "verdict": [*words, "off"]}
    table = pd.DataFrame(columns).assign(metric="e2e", floor_ns=np.nan, floor=np.nan, error_ns=9.0, n_repeats=1)
    assert verdict_of(table, pd.DataFrame({"status": ["passed", status]})) == verdict


@pytest.mark.parametrize(
    ("metric", "error", "verdict"),
    [
        ("ttft", 12.0, "within the floor"),
        ("ttft", 40.0, "off"),
        ("e2e", 10.1, "within the floor"),
        ("e2e", 12.0, "off"),
    ],
)
def test_one_figure_barely_beyond_its_floor_is_chance_unless_it_is_the_headlines(
    metric: str, error: float, verdict: str
) -> None:
    """Floors are 10 ns of 100; four repeats. Every first error is beyond its floor and beyond tolerance."""
    table = pd.DataFrame({"metric": [metric, "tbt", "tpot", "e2e_per_token"], "error_ns": [error, 1.0, 1.0, 1.0]})
    table = table.assign(statistic="p50", n_repeats=4, floor_ns=10.0, floor=0.1)
    table = table.assign(relative_error=table["error_ns"] / 100)
    table["verdict"] = judge(table, 0.05)
    assert table["verdict"].tolist() == ["off", *["within the floor"] * 3]
    assert verdict_of(table, pd.DataFrame({"status": ["passed"]})) == verdict


def test_a_figure_too_noisy_to_judge_does_not_hide_those_that_can_be() -> None:
    table = pd.DataFrame({"metric": "e2e", "statistic": ["p50", "p99"], "error_ns": [1.0, 30.0], "n_repeats": 4})
    table = table.assign(floor_ns=[10.0, 40.0], floor=[0.1, 0.4], relative_error=[0.01, 0.3])
    table["verdict"] = judge(table, 0.05)
    assert table["verdict"].tolist() == ["within the floor", "too noisy to judge"]
    gates = pd.DataFrame({"status": ["passed"]})
    assert verdict_of(table, gates) == "within the floor"
    assert verdict_of(table[1:], gates) == "too noisy to judge"


def test_real_runs_that_differ_among_themselves_excuse_as_much_until_they_prove_nothing(tmp_path: Path) -> None:
    apart = runs(tmp_path / "a", [22, 22.4, 23], 24)
    assert row(apart, "ttft")["verdict"] == "within the floor"
    noisy = runs(tmp_path / "c", [20, 22, 27], 25)
    assert row(noisy, "ttft")["verdict"] == noisy.verdict == "too noisy to judge"
    near = runs(tmp_path / "d", [20, 22, 27], 23.5)
    assert row(near, "ttft")["verdict"] == "within tolerance"
    alike = runs(tmp_path / "b", [20, 20.1, 20.2], 25)
    assert row(alike, "ttft")["verdict"] == "off"
    assert alike.verdict == "off"


def judged(folder: Path, real: dict[str, Any] | None = None, sim: dict[str, Any] | None = None) -> Assessment:
    """A pair in which every gate passes but for the repeats, with some metadata changed."""
    sides = []
    for kind, meta in (("real", REAL_META | (real or {})), ("vidur", SIM_META | (sim or {}))):
        path = write_run(folder / kind, kind, times(20, 30), **meta)
        add_iterations(path, [(i * 1000 * MS, i * 1000 * MS + 20 * MS, True) for i in range(30)])
        sides.append(load_run(path, kind))
    return assess(sides[:1], sides[1], allow_mismatch=True)


def add_iterations(path: Path, rows: list[tuple[int, int, bool]]) -> None:
    frame = pd.DataFrame(rows, columns=["start_time_ns", "end_time_ns", "in_profile"]).assign(
        iteration_id=range(len(rows)), num_preempted=0, **COMPOSITION
    )
    frame["in_profile"] = frame["in_profile"].map({True: "true", False: "false"})
    frame.to_csv(path / "iteration_metrics.csv", index=False)


def gate(assessment: Assessment, name: str) -> dict[str, str]:
    return assessment.gates.set_index("gate").loc[name].to_dict()


def test_equal_runs_pass_every_gate_but_that_of_one_repeat(tmp_path: Path) -> None:
    gates = judged(tmp_path).gates
    assert gates.columns.tolist() == ["gate", "status", "value", "detail"]
    assert gates.loc[gates["status"] != "passed", "gate"].tolist() == ["repeats"]
    assert gates["detail"].str.len().min() > 0


@pytest.mark.parametrize(
    ("name", "status", "real", "sim"),
    [
        ("workload", "void", {"workload_sha256": None}, {}),
        ("model", "void", {"model": "another"}, {}),
        ("model", "flagged", {"model": None}, {}),
        ("hardware", "void", {"params": {"hardware": {"name": "a100"}}}, {}),
        ("KV blocks", "flagged", {}, {"settings": SETTINGS | {"num_blocks": 32}}),
        ("tokens in a batch", "flagged", {"engine": ENGINE | {"max_num_batched_tokens": 64}}, {}),
        ("KV block size", "flagged", {"engine": None}, {}),
        (
            "prefix caching",
            "flagged",
            {"engine": {"limits": ENGINE | {"enable_prefix_caching": True}}},
            {"settings": {"limits": SETTINGS | {"enable_prefix_caching": False}}},
        ),
        ("predictor", "flagged", {}, {"profile_held_out": {"median_error": -0.06, "total_error": 0.0}}),
        ("predictor", "flagged", {}, {"profile_held_out": None}),
        ("machine speed", "flagged", {"reference_ns": 110}, {}),
        ("machine speed", "flagged", {"reference_ns": None}, {}),
        ("machine speed", "passed", {"reference_ns": 110}, {"machine_speed": 1.09}),
    ],
)
def test_what_stands_in_the_way_is_flagged_or_void(
    tmp_path: Path, name: str, status: str, real: dict[str, Any], sim: dict[str, Any]
) -> None:
    found = judged(tmp_path, real, sim)
    assert gate(found, name)["status"] == status
    if None in (*real.values(), *sim.values()):
        assert gate(found, name)["value"] == "not recorded"
    assert (found.verdict == "void") == (status == "void")


@pytest.mark.parametrize(("outside", "status"), [(0, "passed"), (1, "flagged"), (7, "void")])
def test_extrapolated_iterations_are_counted(tmp_path: Path, outside: int, status: str) -> None:
    sides = [write_run(tmp_path / kind, kind, times(20, 30)) for kind in ("real", "vidur")]
    add_iterations(sides[1], [(i * 1000 * MS, i * 1000 * MS + 20 * MS, i >= outside) for i in range(30)])
    found = assess([load_run(sides[0], "real")], load_run(sides[1], "vidur"))
    assert gate(found, "profiled range")["status"] == status


def test_one_long_iteration_that_is_extrapolated_weighs_by_its_time(tmp_path: Path) -> None:
    sides = [write_run(tmp_path / kind, kind, times(20, 30)) for kind in ("real", "vidur")]
    add_iterations(sides[1], [(i * 1000 * MS, i * 1000 * MS + (20 if i else 200) * MS, i > 0) for i in range(30)])
    found = assess([load_run(sides[0], "real")], load_run(sides[1], "vidur"))
    assert gate(found, "profiled range") | {"detail": ""} == {"status": "void", "value": "25.6 %", "detail": ""}


@pytest.mark.parametrize(("failed", "status"), [([0], "flagged"), ([0, 1], "void")])
def test_failures_are_flagged_and_many_are_void(tmp_path: Path, failed: list[int], status: str) -> None:
    real = load_run(write_run(tmp_path / "r", "real", times(20, 30), failed=failed), "real")
    sim = load_run(write_run(tmp_path / "s", "vidur", times(20, 30)), "vidur")
    assert gate(assess([real], sim), "failures")["status"] == status


def test_dispatch_lag_counts_only_what_the_engines_own_step_does_not_explain(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", "real", [[90 * MS], [95 * MS], [99 * MS]], arrival_ns=[0, 10 * MS, 60 * MS])
    # Request 1 arrives within an iteration that ends at 50 ms and is handed over at 52; request 2 at an idle engine.
    submits = ["0", str(52 * MS), str(63 * MS)]
    edit_csv(
        path / "request_metrics.csv",
        lambda frame: frame.assign(submit_time_ns=submits, first_scheduled_time_ns=submits),
    )
    add_iterations(path, [(0, 50 * MS, True), (70 * MS, 99 * MS, True)])
    lag = dispatch_lag(load_run(path, "real"))
    assert lag is not None
    assert lag.tolist() == [0, 2 * MS, 3 * MS]


def test_a_run_without_submissions_has_no_lag_to_judge(tmp_path: Path) -> None:
    real: Run = load_run(write_run(tmp_path / "r", "real", times(20, 3), foreign=True), "real")
    sim = load_run(write_run(tmp_path / "s", "vidur", times(20, 3)), "vidur")
    assert gate(assess([real], sim), "dispatch lag")["value"] == "not recorded"
