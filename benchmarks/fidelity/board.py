"""The rows of the board, measured one by one: one that fails says why and leaves the others."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

METRICS = ("ttft", "tpot", "e2e")
LEVELS = ("p50", "p90", "p99")
NONE = "-"  # of a cell


@dataclass(frozen=True)
class Errors:
    """Relative errors of one simulation, simulated over real - 1.

    Attributes
    ----------
    requests : int
        Behind each figure.
    table : mapping of str to tuple of float
        By metric, of P50, P90 and P99.
    commits : tuple of str
        Of this project, which simulated and compared.
    date : str
        When they were compared.
    floors : mapping of str to tuple of float
        What another real run could differ by, relative, likewise; empty of one real run.
    inside : tuple of str
        Metrics whose real percentiles all lie where 95 % of the simulations with noise do.
    in_sample : bool
        Something was fitted to the very run that it is compared with.
    """

    requests: int
    table: Mapping[str, tuple[float, ...]]
    commits: tuple[str, ...] = ()
    date: str = ""
    floors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    in_sample: bool = False

    def of(self, metric: str, level: str = "p50") -> float:
        """One of them."""
        return self.table[metric][LEVELS.index(level)]


@dataclass(frozen=True)
class Row:
    """A run of the board.

    Attributes
    ----------
    run, model, engine : str
        What was served, and by what.
    gpus : str
        How many of which.
    line : str
        Of the summary, which it counts in; empty: in none.
    part : bool
        Of a run that has a row of its own: what stands beside calibrated figures, and counts with these alone.
    donor : str
        The run that the calibration is from.
    why, why_calibrated : mapping of str to str
        Why an error is not small, where that is known, by metric.
    plain, calibrated : Errors, optional
        With nothing fitted, and after calibration.
    remark : str
        What is to know of the row; of one that nothing measures, why.
    """

    run: str
    gpus: str = NONE
    model: str = NONE
    engine: str = NONE
    line: str = ""
    part: bool = False
    donor: str = ""
    why: Mapping[str, str] = field(default_factory=dict)
    why_calibrated: Mapping[str, str] = field(default_factory=dict)
    plain: Errors | None = None
    calibrated: Errors | None = None
    remark: str = ""

    @property
    def requests(self) -> str:
        """How many are behind the figures."""
        found = self.plain or self.calibrated
        return NONE if found is None else f"{found.requests:,}"


@dataclass(frozen=True)
class Case:
    """A row that is not measured yet, and how it is."""

    row: Row
    plain: Callable[[], Errors] | None = None
    calibrated: Callable[[], Errors] | None = None


def measured(case: Case) -> Row:
    """Measure a row; whatever fails is said in its remark."""
    remarks = [case.row.remark] if case.row.remark else []

    def figures(what: str, measure: Callable[[], Errors] | None) -> Errors | None:
        errors = measure and attempt(measure)
        if isinstance(errors, str):
            remarks.append(f"{what}: {errors}")
            return None
        return errors

    plain, calibrated = figures("not compared", case.plain), figures("not calibrated", case.calibrated)
    return replace(case.row, plain=plain, calibrated=calibrated, remark="; ".join(remarks))


def attempt(measure: Callable[[], Errors]) -> Errors | str:
    """Errors, or in one line why there are none: one comparison must not end the others."""
    try:
        return measure()
    except Exception as error:
        return one_line(error)


def absent(run: str, data: str) -> list[Case]:
    """The row of data that is not here."""
    return [Case(Row(run, remark=f"skipped: {data} is not here"))]


def one_line(error: Exception) -> str:
    """What an error says, in a cell of a table."""
    return " ".join(f"{error or type(error).__name__}".split()).replace("|", "\\|")


def percent(error: float) -> str:
    """A relative error in %, with its sign."""
    return NONE if math.isnan(error) else f"{100 * error:+.1f}"
