"""The board: what is not here is skipped by name, what fails leaves the rest, what is in-sample says so."""

import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity import a100, deployment, h100, rtx_pro_6000
from benchmarks.fidelity.__main__ import DATA_SETS, measure
from benchmarks.fidelity.board import LEVELS, METRICS, Case, Errors, measured
from benchmarks.fidelity.page import PAGE, large, render, summary
from benchmarks.stages import StageFailed, run_command
from gpu_simulate_test.io.comparison_tables import GATES, PERCENTILES
from gpu_simulate_test.io.files import read_json, write_json
from gpu_simulate_test.io.table_files import write_table
from gpu_simulate_test.profiles.bundle import CALIBRATION, PROFILE_META

MISSING = ("real_ns", "sim_ns", "error_ns", "sim_low_ns", "sim_high_ns", "floor_ns", "floor", "ci_low", "ci_high")
TITLES = {
    "h100": "llama-2-7b-tp1-codegen",
    "rtx_pro_6000": "RTX PRO 6000",
    "rtx_4090": "RTX 4090",
    "a100": "A100",
    "transformers": "this machine, transformers",
    "vllm": "this machine, vLLM",
}


def errors(value: float, *, in_sample: bool = False) -> Errors:
    return Errors(10, {metric: (value, 2 * value, 3 * value) for metric in METRICS}, in_sample=in_sample)


def gone() -> Errors:
    raise StageFailed("vidur-sim: a line\n| with a bar")


@pytest.mark.parametrize("name", ["h100", "rtx_pro_6000", "a100", "vllm"])
def test_data_that_are_not_here_are_named_and_skipped(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (h100, rtx_pro_6000, a100):
        monkeypatch.setattr(module, "DATA", tmp_path / "nothing")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    (row,) = measure(name, DATA_SETS[name], tmp_path)
    assert "skipped" in row.remark
    assert "is not here" in row.remark
    assert row.case.run.startswith(TITLES[name].partition("llama")[0])
    assert row.plain is None
    assert row.calibrated is None


def test_a_comparison_that_fails_says_why_and_leaves_the_others(tmp_path: Path) -> None:
    cases = [Case("a", plain=gone, calibrated=lambda: errors(0.02), donor="b"), Case("b", plain=lambda: errors(0.01))]
    first, second = measure("some", lambda scratch: cases, tmp_path)
    assert first.remark == "not compared: vidur-sim: a line \\| with a bar"
    assert first.plain is None
    assert first.calibrated is not None
    assert second.cells()[4:8] == ["10", *["+1.0 +2.0 +3.0"] * 3]

    def broken(scratch: Path) -> list[Case]:
        raise OSError("no such thing")

    (row,) = measure("some", broken, tmp_path)
    assert (row.case.run, row.remark) == ("some", "not compared: no such thing")


def test_a_stage_that_fails_says_its_one_line(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"^vidur-sim: .*model/nothing.*see --help$"):
        run_command("vidur_sim", "model=nothing", f"output.root={tmp_path}")


def test_a_figure_that_is_in_sample_is_marked_and_kept_out_of_the_medians() -> None:
    row = measured(Case("a", calibrated=lambda: errors(0.5, in_sample=True), donor="a"))
    assert row.calibrated is not None
    assert all(cell.endswith("*(in-sample)*") for cell in row.cells()[9:12])
    fair = measured(Case("b", plain=lambda: errors(-0.01), calibrated=lambda: errors(0.02), donor="a"))
    page = render({"h100": [row, fair]}, [("a", [errors(0.3, in_sample=True), "why not"]), ("b", [errors(0.1)] * 2)])
    assert "| a | +30.0 +30.0 *(in-sample)* | why not |\n| b | +10.0 +10.0 | +10.0 +10.0 |" in page
    assert "| calibrated | 1 | 2.0 (2.0) | 4.0 (4.0) |" in page
    assert "| nothing fitted | 1 | 1.0 (1.0) |" in page
    figures = "+50.0 +100.0 +150.0"
    assert page.count(figures) == page.count(f"{figures} *(in-sample)*") > 3


class Stages:
    """Stages that leave what is read of them, and remember what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[tuple[str, ...]]()

    def __call__(self, stage: str, *settings: str, python: str = "") -> Path:
        self.asked.append((stage, *settings))
        path = self.folder / f"{stage}_{len(self.asked)}"
        given = dict(setting.split("=", 1) for setting in settings)
        if "calibration.real_run_dir" in given:
            (bundle,) = Path(given["vidur.profiling.root"]).rglob(PROFILE_META)
            told = {"requests": 4, "errors": errors(0.01).table, "without": errors(0.5).table}
            named = {
                kind: {metric: dict(zip(LEVELS, of, strict=True)) for metric, of in told[kind].items()}
                for kind in ("errors", "without")
            }
            record = {"of": given["calibration.real_run_dir"], "git_commit": "c" * 40, "git_dirty": True}
            write_json(bundle.with_name(CALIBRATION), record | {"held_out": {"requests": 4} | named})
            return Path(given["vidur.profiling.root"])
        path.mkdir()
        write_json(path / "run_meta.json", {"git_commit": "a" * 40, "git_dirty": False})
        if stage == "vidur_profile":
            (path / "device").mkdir()
            write_json(path / "device" / PROFILE_META, {})
        if stage == "compare_runs":
            rows = [
                {"metric": metric, "statistic": level, "relative_error": 0.1, "n_real": 7, "n_sim": 7, "n_repeats": 1}
                for metric in METRICS
                for level in LEVELS
            ]
            write_table(path, PERCENTILES, pd.DataFrame(rows).assign(**dict.fromkeys(MISSING, np.nan), verdict="off"))
            calibrated = self.asked[-2]
            own = f"from={given['real_run_dir']}" in calibrated
            gate = {"gate": "calibration", "status": "flagged", "value": "in-sample" if own else "other runs"}
            write_table(path, GATES, pd.DataFrame([gate | {"detail": ""}]))
        return path


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    found = Stages(tmp_path)
    monkeypatch.setattr(deployment, "run_command", found)
    return found


def test_a_run_is_simulated_with_the_constants_of_another(stages: Stages, tmp_path: Path) -> None:
    first, second = (deployment.Deployment(tmp_path / name, ()) for name in "ab")
    donor, other = first.run("x", "workload=x"), first.run("y", "workload=y")
    foreign = second.run("z", "workload=z")
    for run in (other, foreign):
        found = run.calibrated_on(donor)
        assert found.of("e2e") == 0.1
        assert (found.requests, found.in_sample, found.floors, found.commits) == (7, False, {}, {"a" * 12})
        (sim,) = (asked for asked in stages.asked[-2:] if asked[0] == "vidur_sim")
        (root,) = (Path(one.partition("=")[2]) for one in sim if one.startswith("vidur.profiling.root="))
        (constants,) = root.rglob(CALIBRATION)
        assert read_json(constants)["of"] == str(donor.real)
        assert "vidur/predictor=calibrated" in sim
    assert sum(any("calibration.real_run_dir" in one for one in asked) for asked in stages.asked) == 1
    assert not list(first.profile.rglob(CALIBRATION))  # the profile itself stays without


def test_simulations_by_the_constants_of_two_runs_are_two(stages: Stages, tmp_path: Path) -> None:
    found = deployment.Deployment(tmp_path / "a", ())
    predicted, *donors = (found.run(name) for name in "xyz")
    for donor in donors:
        predicted.calibrated_on(donor)
    given = [dict(one.split("=", 1) for one in asked[1:]) for asked in stages.asked if asked[0] == "vidur_sim"]
    assert len({one["output.root"] for one in given}) == 2
    assert [Path(one["vidur.profiling.root"]).parent for one in given] == [Path(one["output.root"]) for one in given]
    assert {one["workload.workload_dir"] for one in given} == {str(predicted.workload_dir)}


def test_what_a_calibration_held_back_is_shown_as_it_says(stages: Stages, tmp_path: Path) -> None:
    run = deployment.Deployment(tmp_path / "a", ()).run("x")
    assert run.held_out("errors").table == errors(0.01).table
    assert run.held_out("without").table == errors(0.5).table
    assert run.held_out("errors").commits == {"c" * 12 + " with changes"}


@pytest.mark.parametrize("in_sample", [True, False])
def test_what_compare_runs_finds_in_sample_is(stages: Stages, tmp_path: Path, in_sample: bool) -> None:
    real, sim = tmp_path / "real", tmp_path / "sim"
    stages.asked.append(("vidur_sim", f"from={real if in_sample else 'another'}"))
    assert deployment.compared(tmp_path / "a", real, sim).in_sample == in_sample


def test_medians_are_of_absolute_errors() -> None:
    assert summary([errors(-0.01), errors(0.02), errors(0.06)])[:2] == ["3", "2.0 (6.0)"]


def test_what_is_far_off_is_said_with_its_reason() -> None:
    late = Errors(10, errors(0.01).table | {"e2e": (0.0, 0.0, 0.11)})
    rows = [
        measured(Case("a", plain=lambda: errors(0.1), why={"e2e": "known"})),
        measured(Case("b", plain=lambda: errors(-0.06))),
        measured(Case("c", plain=lambda: errors(0.03), calibrated=lambda: late)),
    ]
    assert large(rows) == [
        ("TTFT, nothing fitted", "a (+10.0 +20.0 +30.0), b (-6.0 -12.0 -18.0)", "why is not known"),
        ("E2E, nothing fitted", "a (+10.0 +20.0 +30.0)", "known"),
        ("E2E, nothing fitted", "b (-6.0 -12.0 -18.0)", "why is not known"),
        ("E2E, calibrated", "c (+0.0 +0.0 +11.0)", "why is not known"),
    ]


def test_the_floor_of_repeats_is_beside() -> None:
    row = measured(Case("a", plain=lambda: Errors(10, errors(0.1).table, {"e2e": 0.123})))
    assert row.remark == "floor of E2E P50 ±12.3"
    assert [reason for _, _, reason in large([row])] == [
        "why is not known",
        "at P50 no more than another real run could differ by",
    ]
    assert measured(Case("a", plain=lambda: errors(0.1))).remark == ""


@pytest.mark.parametrize("page", [lambda: render({"h100": [measured(Case("a"))]}), lambda: PAGE.read_text("utf-8")])
def test_every_table_is_one(page: Callable[[], str]) -> None:
    lines = page().splitlines()
    rules = [index for index, line in enumerate(lines) if re.fullmatch(r"\|( --- \|)+", line)]
    assert len(rules) >= 2
    for line, following in pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", following))
    assert all(lines[index - 1].startswith("| ") and not lines[index - 2] for index in rules)


def test_the_page_has_a_date_and_every_data_set() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.search(r"Written on \d{4}-\d\d-\d\d by `python -m benchmarks.fidelity`", page)
    assert set(TITLES) == set(DATA_SETS)
    for title in TITLES.values():
        assert title in page
