"""The board: what is not here is skipped by name, what fails leaves the rest, what is in-sample says so."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity import a100, deployment, figures, h100, rtx_pro_6000, this_machine
from benchmarks.fidelity.__main__ import DATA_SETS, measure, told, update
from benchmarks.fidelity.board import LEVELS, METRICS, Case, Errors, Row
from benchmarks.fidelity.figures import Runs, load, sides, summary
from benchmarks.fidelity.page import (
    PAGES,
    RUNS,
    SCATTER,
    UNKNOWN,
    WITHIN,
    WITHIN_P50,
    index,
    large,
    of_runs,
    pages,
)
from benchmarks.stages import StageFailed, run_command
from gpu_simulate_test.io.comparison_tables import GATES, PERCENTILES
from gpu_simulate_test.io.files import read_json, write_json
from gpu_simulate_test.io.table_files import write_table
from gpu_simulate_test.profiles.bundle import CALIBRATION, PROFILE_META

MISSING = ("real_ns", "sim_ns", "error_ns", "sim_low_ns", "sim_high_ns", "floor_ns", "floor", "ci_low", "ci_high")


def errors(value: float, *, in_sample: bool = False) -> Errors:
    table = {metric: (value, 2 * value, 3 * value) for metric in METRICS}
    return Errors(10, table, ("abc",), "2026-01-02", in_sample=in_sample)


def row(run: str, **told: object) -> Row:
    return replace(Row(run, line="some engine"), **told)


def gone() -> Errors:
    raise StageFailed("vidur-sim: a line\n| with a bar")


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_that_are_not_here_are_named_and_change_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (h100, rtx_pro_6000, a100):
        monkeypatch.setattr(module, "DATA", tmp_path / "nothing")
    monkeypatch.setattr(this_machine, "interpreter", lambda backend: tmp_path / ".venv" / "bin" / "python")
    for one in measure(name, DATA_SETS[name], tmp_path):
        assert re.fullmatch(r"skipped: .+ is not here", one.remark)
        assert (one.plain, one.calibrated) == (None, None)
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    assert not update(name, tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_a_comparison_that_fails_says_why_and_leaves_the_others(tmp_path: Path) -> None:
    cases = [Case(row("a", donor="b"), gone, lambda: errors(0.02)), Case(row("b"), lambda: errors(0.01))]
    first, second = measure("some", lambda scratch: cases, tmp_path)
    assert first.remark == "not compared: vidur-sim: a line \\| with a bar"
    assert first.plain is None
    assert first.calibrated is not None
    assert (second.requests, second.plain) == ("10", errors(0.01))
    assert [told(one) for one in (first, second)] == ["a: +2.0", "b: +1.0"]

    def broken(scratch: Path) -> list[Case]:
        raise OSError("no such thing")

    (only,) = measure("some", broken, tmp_path)
    assert (only.run, only.remark) == ("some", "not compared: no such thing")


def test_a_stage_that_fails_says_its_one_line(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"^vidur-sim: .*model/nothing.*see --help$"):
        run_command("vidur_sim", "model=nothing", f"output.root={tmp_path}")


def test_a_figure_that_is_in_sample_is_marked_and_kept_out_of_the_medians() -> None:
    rows = [row("a", calibrated=errors(0.5, in_sample=True), donor="a")]
    rows += [row(name, plain=errors(-0.01), calibrated=errors(0.02), donor="a") for name in "bc"]
    across = [("a", [errors(0.3, in_sample=True), "why not"]), ("b", [errors(0.1)] * 2)]
    runs = Runs({}, rows, across)
    page = of_runs("h100", runs)
    assert "| a | +30.0 +30.0 *(in-sample)* | why not |\n| b | +10.0 +10.0 | +10.0 +10.0 |" in page
    assert "| E2E P50 | 1.0 (1.0) | 2.0 (2.0) |" in page
    assert page.count("| +50.0 | +100.0 | +150.0 |") == page.count("| a *(in-sample)* | +50.0 |") == 3
    assert "| [some engine](h100.md) | 2 | 2.0 | 2.0 | 2.0 |" in index({"h100": runs}, None, None)


def test_a_part_of_a_run_counts_calibrated_alone() -> None:
    rows = [row("a", plain=errors(0.1)), row("a part", plain=errors(0.2), calibrated=errors(0.03), part=True)]
    assert sides(rows) == ([errors(0.1)], [errors(0.03)])


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
            record |= {"created_at": "2026-01-02T03:04:05"}
            write_json(bundle.with_name(CALIBRATION), record | {"held_out": {"requests": 4} | named})
            return Path(given["vidur.profiling.root"])
        path.mkdir()
        write_json(path / "run_meta.json", {"git_commit": "a" * 40, "git_dirty": False, "ended_at": "2026-01-02T"})
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
        assert (found.requests, found.in_sample, found.floors, found.commits) == (7, False, {}, ("a" * 12,))
        assert found.date == "2026-01-02"
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
    assert run.held_out("errors").commits == ("c" * 12 + " with changes",)


@pytest.mark.parametrize("in_sample", [True, False])
def test_what_compare_runs_finds_in_sample_is(stages: Stages, tmp_path: Path, in_sample: bool) -> None:
    real, sim = tmp_path / "real", tmp_path / "sim"
    stages.asked.append(("vidur_sim", f"from={real if in_sample else 'another'}"))
    assert deployment.compared(tmp_path / "a", real, sim).in_sample == in_sample


def test_medians_are_of_absolute_errors() -> None:
    some = [errors(-0.01), errors(0.02), errors(0.06)]
    assert summary(some) == ["2.0"] * 3
    assert figures.median(some, "e2e", "p90") == pytest.approx(4.0)


def test_what_is_far_off_is_said_with_its_reason() -> None:
    late = replace(errors(0.01), table=errors(0.01).table | {"e2e": (0.0, 0.0, 0.11)})
    rows = [
        row("a", plain=errors(0.1), why={"e2e": "known"}),
        row("b", plain=errors(-0.06)),
        row("c", plain=errors(0.03), calibrated=late),
    ]
    assert large(rows) == [
        ("E2E, TPOT, nothing fitted", "a", "known"),
        ("E2E, TPOT, nothing fitted", "b", UNKNOWN),
        ("TTFT, nothing fitted", "a; b", UNKNOWN),
        ("E2E, calibrated", "c", UNKNOWN),
    ]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"floors": {"e2e": (0.2, 0.3, 0.4)}}, WITHIN),
        ({"floors": {"e2e": (0.2, 0.1, 0.4)}}, WITHIN_P50),
        ({"floors": {"e2e": (0.01, 0.1, 0.4)}}, UNKNOWN),
        ({"floors": {"e2e": (0.01, 0.1, 0.4)}, "inside": ("e2e",)}, SCATTER),
    ],
)
def test_noise_is_a_reason_as_far_as_it_reaches(told: dict[str, object], reason: str) -> None:
    noisy = replace(errors(0.1), **told)
    assert ("E2E", reason) in [(kind.split(",")[0], why) for kind, _, why in large([row("a", plain=noisy)])]


def test_the_pages_are_what_the_figures_say() -> None:
    for path, text in pages().items():
        there = (PAGES / path).read_text(encoding="utf-8")
        bitmaps = re.compile(r"base64,[^\"]+")  # another zlib packs them otherwise
        assert bitmaps.sub("", there) == bitmaps.sub("", text), f"{path}: python -m benchmarks.fidelity --pages"


@pytest.mark.parametrize("name", RUNS)
def test_every_figure_has_a_date_and_a_commit(name: str) -> None:
    runs = load(Runs, name)
    assert runs is not None
    assert runs.errors
    for found in runs.errors:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.date)
        assert all(re.fullmatch(r"[0-9a-f]{12}( with changes)?", commit) for commit in found.commits)
        assert found.commits


def test_every_table_is_one_and_fits_a_phone() -> None:
    for path, text in pages().items():
        lines = text.splitlines()
        rules = [index for index, line in enumerate(lines) if re.fullmatch(r"\|( --- \|)+", line)]
        assert rules or path.suffix == ".svg"
        for line, following in pairwise(lines):
            if line.startswith("|") and following.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", following)) <= 6, path
        assert all(lines[index - 1].startswith("| ") and not lines[index - 2] for index in rules), path
