"""The table that all benchmarks print into."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scale = Literal["quick", "full"]  # seconds to a minute a benchmark; the sizes that are quoted

HEADER = """\
| what | figure | ratio | target | machine | load |
| --- | --- | --- | --- | --- | --- |"""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    what : str
        What was measured, and against what.
    figure : str
        With its unit.
    ratio : float, optional
        Of two figures measured in this run; None where there is nothing to compare with.
    at_most, at_least : float, optional
        The target of `ratio`.
    """

    what: str
    figure: str
    ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def target(self) -> str:
        """The bound, and whether it was met."""
        if self.ratio is None or (self.at_most is None and self.at_least is None):
            return ""
        if self.at_most is not None:
            bound, met = f"at most {self.at_most:g}", self.ratio <= self.at_most
        else:
            assert self.at_least is not None
            bound, met = f"at least {self.at_least:g}", self.ratio >= self.at_least
        return f"{bound}: {'met' if met else 'missed'}"


def line(row: Row) -> str:
    """A row of Markdown, with the machine and how busy it was in the last minute, this benchmark included."""
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return f"| {row.what} | {row.figure} | {ratio} | {row.target()} | {_machine()} | {os.getloadavg()[0]:.1f} |"


def _machine() -> str:
    names = [text for text in _cpuinfo() if text.startswith("model name")]
    cpu = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
