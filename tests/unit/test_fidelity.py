"""The board: what is not here is skipped by name, what fails leaves the rest, what is in-sample says so."""

import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.fidelity import a100, h100, rtx_pro_6000
from benchmarks.fidelity.__main__ import DATA_SETS, measure
from benchmarks.fidelity.board import METRICS, Case, Errors, measured
from benchmarks.fidelity.page import PAGE, large, render, summary
from benchmarks.stages import StageFailed, run_command

TITLES = {
    "h100": "llama-2-7b-tp1-codegen",
    "rtx_pro_6000": "RTX PRO 6000",
    "rtx_4090": "RTX 4090",
    "a100": "A100",
    "closed_loop": "silicon_sample.csv",
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
    page = render({"h100": [row, fair]})
    assert "| calibrated | 1 | 2.0 (2.0) | 4.0 (4.0) |" in page
    assert "| nothing fitted | 1 | 1.0 (1.0) |" in page
    assert page.count("*(in-sample)*") == 4  # three figures, and what the mark means


def test_medians_are_of_absolute_errors() -> None:
    assert summary([errors(-0.01), errors(0.02), errors(0.06)])[:2] == ["3", "2.0 (6.0)"]


def test_what_is_far_off_is_said_with_its_reason() -> None:
    rows = [
        measured(Case("a", plain=lambda: errors(0.1), why={"e2e": "known"})),
        measured(Case("b", plain=lambda: errors(-0.06))),
        measured(Case("c", plain=lambda: errors(0.04), calibrated=lambda: errors(0.2))),
    ]
    assert large(rows) == [
        ("nothing fitted, TTFT P50", "a +10.0, b -6.0", "why is not known"),
        ("calibrated, TTFT P50", "c +20.0", "why is not known"),
        ("nothing fitted, E2E P50", "a +10.0", "known"),
        ("nothing fitted, E2E P50", "b -6.0", "why is not known"),
        ("calibrated, E2E P50", "c +20.0", "why is not known"),
    ]


def test_the_floor_of_repeats_is_beside() -> None:
    row = measured(Case("a", plain=lambda: Errors(10, errors(0.1).table, {"e2e": 0.123})))
    assert row.remark == "floor of E2E P50 ±12.3"
    assert [reason for _, _, reason in large([row])] == [
        "why is not known",
        "no more than another real run could differ by",
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
