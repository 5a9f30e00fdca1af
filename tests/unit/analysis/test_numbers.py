"""A figure is written one way wherever it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

import gpu_simulate_test.analysis as package
from gpu_simulate_test.analysis.numbers import between, count, decimals, ms, number, percent, points


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (ms(1_234_567_890.0, 1), "1,234.6"),
        (ms(5e6, 2, sign=True), "+5.00"),
        (percent(0.0314), "3.1 %"),
        (percent(-0.0314, sign=True), "-3.1 %"),
        (points(0.25, sign=True), "+25.0 points"),
        (count(1, "request"), "1 request"),
        (count(2304, "token gap"), "2,304 token gaps"),
        (between("1.0", "2.0"), "1.0 to 2.0"),
    ],
)
def test_a_number_has_its_separators_sign_and_unit(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize("tiny", [0.0, -0.0, 1e-9, -1e-9])
def test_nothing_has_no_direction(tiny: float) -> None:
    assert percent(tiny, sign=True) == percent(tiny) == "0.0 %"


def test_what_is_missing_is_blank() -> None:
    assert ms(np.nan) == percent(np.nan) == points(np.nan) == number(np.nan, 3) == between("", "") == ""


@pytest.mark.parametrize(("ns", "digits"), [([2e5, 9e9], 4), ([3e7], 2), ([4e9], 0), ([0.0, np.nan], 0)])
def test_the_smallest_time_has_four_digits(ns: list[float], digits: int) -> None:
    assert decimals(ns) == digits


def test_no_other_module_of_the_analysis_formats_a_figure() -> None:
    for path in Path(package.__path__[0]).glob("*.py"):
        # Hover texts are formatted by the browser: %{x:,.3f}.
        found = re.findall(
            r"(?<!%)(?<!%\{)\{[^{}]*:(?:[-+>\d]*,|[^{}]*\.\d+[f%]|[^{}]*g\})[^{}]*\}", path.read_text(encoding="utf-8")
        )
        assert path.name == "numbers.py" or not found, f"{path.name}: {found}"
