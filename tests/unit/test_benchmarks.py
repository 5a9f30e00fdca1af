"""The benchmarks' table says what was measured and whether its target was met; what it measures it does not fake."""

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

import benchmarks
from benchmarks import parallelism
from benchmarks.__main__ import _HELPERS
from benchmarks.table import HEADER, Row, line
from benchmarks.timing import in_turn, measured


@pytest.mark.parametrize(
    ("row", "ratio", "target"),
    [
        (Row("a", "1 s"), "", ""),
        (Row("a", "1 s", ratio=2.0), "2", ""),
        (Row("a", "1 s", ratio=1.3, at_most=1.3), "1.3", "at most 1.3: met"),
        (Row("a", "1 s", ratio=1.31, at_most=1.3), "1.31", "at most 1.3: missed"),
        (Row("a", "1 s", ratio=0.97, at_least=0.97), "0.97", "at least 0.97: met"),
        (Row("a", "1 s", ratio=0.96, at_least=0.97), "0.96", "at least 0.97: missed"),
    ],
)
def test_a_row_says_whether_its_target_was_met(row: Row, ratio: str, target: str) -> None:
    cells = [cell.strip() for cell in line(row).strip("|").split("|")]
    assert cells[:4] == ["a", "1 s", ratio, target]
    assert line(row).count("|") == HEADER.splitlines()[0].count("|")


def test_a_split_that_gains_too_much_or_too_little_is_said() -> None:
    small = parallelism.Case("a/b", "h100_sxm", False, 2, 1)
    figures = parallelism.Figures(per_s=100.0, alone_ms=50.0, theirs_ms=50.0, cache=10**6, preemptions=0)
    done = {small: figures, small._replace(fp8=True): figures}
    for gain, number in ((1.7, None), (0.9, 0), (2.1, 1)):
        found = replace(figures, per_s=100 * gain)
        wanted = [] if number is None else [parallelism.CHECKS[number]]
        assert list(parallelism.broken(small._replace(tensor=4), found, done)) == wanted
    slower = replace(figures, per_s=99.0, alone_ms=52.0)
    assert list(parallelism.broken(small._replace(fp8=True), slower, done)) == [
        parallelism.CHECKS[2],
        parallelism.CHECKS[5],
    ]
    sooner = replace(figures, alone_ms=49.0)
    assert list(parallelism.broken(small._replace(stages=2), sooner, done)) == [*parallelism.CHECKS[3:5]]


def test_every_benchmark_gives_rows() -> None:
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in _HELPERS]
    assert names
    for name in names:
        assert callable(importlib.import_module(f"benchmarks.{name}").rows)


def test_what_is_compared_runs_in_turn_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def call(name: str, first: float) -> Callable[[], float]:
        times = count()
        return lambda: (order.append(name), first if next(times) == 0 else 1.0)[1]

    assert in_turn([call("a", 100.0), call("b", 100.0)], rounds=3) == [[1.0] * 3] * 2
    assert order == ["a", "b"] * 4


def test_a_command_that_fails_is_no_measurement() -> None:
    assert measured([sys.executable, "-c", "bytearray(200_000_000)"]).peak_bytes > 200_000_000
    with pytest.raises(subprocess.CalledProcessError):
        measured([sys.executable, "-c", "exit(3)"])
