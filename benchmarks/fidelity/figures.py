"""What was measured, one small file a data set, from which the pages are made."""

import importlib.metadata
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter

from benchmarks.fidelity.board import METRICS, Errors, Row
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.io.files import write_text
from gpu_simulate_test.io.provenance import environment

FOLDER = project_root() / "docs" / "fidelity" / "figures"
_PACKAGES = {"Vidur": "vidur", "aiconfigurator-core": "aiconfigurator-core", "PyTorch": "torch"}
_LINE = 110  # letters: what is no longer stands on one

T = TypeVar("T")
Pair = tuple[float, float]
"""Errors of mean TTFT and mean TPOT, simulated / real - 1."""


@dataclass(frozen=True)
class Runs:
    """The rows of a data set, and what ran them; each model predicted with the constants of every one, if so tried."""

    versions: Mapping[str, str]
    rows: Sequence[Row]
    across: Sequence[tuple[str, Sequence[Errors | str]]] = field(default_factory=tuple)

    @property
    def errors(self) -> list[Errors]:
        """Every comparison."""
        found = [errors for row in self.rows for errors in (row.plain, row.calibrated) if errors]
        return found + [errors for _, of_one in self.across for errors in of_one if isinstance(errors, Errors)]

    @property
    def date(self) -> str:
        """The day, or the first and the last."""
        return span({errors.date for errors in self.errors})

    @property
    def commits(self) -> list[str]:
        """Of this project."""
        return sorted({commit for errors in self.errors for commit in errors.commits})


class Point(NamedTuple):
    """A closed-loop run: of what, and its errors; calibrated, unless the constants come from it."""

    kind: str
    concurrency: int
    described: bool
    plain: Pair | None
    calibrated: Pair | None

    @property
    def gpu(self) -> str:
        """The last word of its kind."""
        return self.kind.rpartition(", ")[2]


@dataclass(frozen=True)
class Points:
    """The closed-loop runs, what was left out of them, what is far off and why, and what was learned."""

    date: str
    commits: Sequence[str]
    versions: Mapping[str, str]
    learned: str
    donors: int
    left_out: Sequence[tuple[str, int]]
    far: Sequence[str]
    points: Sequence[Point]


@dataclass(frozen=True)
class Peer:
    """What somebody published; near: of runs like ours, or of the very same."""

    simulator: str
    claim: str
    near: bool = False


@dataclass(frozen=True)
class Peers:
    """All that was collected, and when it was read."""

    date: str
    claims: Sequence[Peer]


def load(kind: type[T], name: str) -> T | None:
    """The figures of a data set; None where there are none."""
    file = FOLDER / f"{name}.json"
    return TypeAdapter(kind).validate_json(file.read_bytes()) if file.is_file() else None


def save(name: str, figures: Runs | Points | Peers) -> None:
    """Keep them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    told = TypeAdapter(type(figures)).dump_python(figures, mode="json")
    write_text(FOLDER / f"{name}.json", f"{_lines(told)}\n")


def _lines(value: Any, margin: str = "") -> str:
    """JSON, what is short on one line."""
    short = json.dumps(value, ensure_ascii=False)
    if len(margin) + len(short) <= _LINE or not isinstance(value, dict | list):
        return short
    inner = f"{margin} "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _lines(one, inner) for one in value) + f"\n{margin}]"
    return (
        "{\n"
        + ",\n".join(f"{inner}{json.dumps(key)}: {_lines(one, inner)}" for key, one in value.items())
        + (f"\n{margin}}}")
    )


def span(days: set[str]) -> str:
    """A day, or the first and the last."""
    return " to ".join(sorted({min(days), max(days)})) if days else "-"


def versions() -> dict[str, str]:
    """Of what makes figures here: name and version."""
    env, found = environment(), {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"Python": env["python"], "simulated on": f"{env['cpu']}, {env['cpu_count']} cores"}


def sides(rows: Sequence[Row]) -> tuple[list[Errors], list[Errors]]:
    """What counts of rows with nothing fitted, and calibrated: no part of a run twice, and nothing in-sample."""
    plain = [row.plain for row in rows if row.plain and not row.part]
    return plain, [row.calibrated for row in rows if row.calibrated and not row.calibrated.in_sample]


def median(errors: Sequence[Errors], metric: str, level: str = "p50") -> float:
    """Of the absolute errors, in %."""
    return statistics.median(100 * abs(one.of(metric, level)) for one in errors)


def largest(errors: Sequence[Errors], metric: str, level: str = "p50") -> float:
    """Of the absolute errors, in %."""
    return max(100 * abs(one.of(metric, level)) for one in errors)


def summary(errors: Sequence[Errors]) -> list[str]:
    """Of each metric the median of the absolute errors of P50, in %; E2E first, as it is what counts."""
    return [f"{median(errors, metric):.1f}" for metric in reversed(METRICS)]
