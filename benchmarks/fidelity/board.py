"""The rows of the board, measured one by one: one that fails says why and leaves the others."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
    floors : mapping of str to float
        What another real run could differ by at P50, relative, by metric; empty of one real run.
    in_sample : bool
        Something was fitted to the very run that it is compared with.
    commits : frozenset of str
        Of this project, which simulated and compared.
    """

    requests: int
    table: Mapping[str, tuple[float, ...]]
    floors: Mapping[str, float] = field(default_factory=dict)
    in_sample: bool = False
    commits: frozenset[str] = frozenset()

    def of(self, metric: str, level: str = "p50") -> float:
        """One of them."""
        return self.table[metric][LEVELS.index(level)]

    def cell(self, metric: str) -> str:
        """P50, P90 and P99 in %."""
        return " ".join(percent(error) for error in self.table[metric]) + (" *(in-sample)*" if self.in_sample else "")


@dataclass(frozen=True)
class Case:
    """One row of the board, not measured yet.

    Attributes
    ----------
    run, model, engine : str
        What was served, and by what.
    gpus : str
        How many of which.
    plain, calibrated : callable, optional
        Measure the errors with nothing fitted, and after calibration.
    donor : str
        The run that the calibration is from.
    why, why_calibrated : mapping of str to str
        Why an error is not small, where that is known, by metric.
    remark : str
        What is to know of the row; of one that nothing measures, why.
    """

    run: str
    gpus: str = NONE
    model: str = NONE
    engine: str = NONE
    plain: Callable[[], Errors] | None = None
    calibrated: Callable[[], Errors] | None = None
    donor: str = ""
    why: Mapping[str, str] = field(default_factory=dict)
    why_calibrated: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class Row:
    """A case that was measured, or not and why."""

    case: Case
    plain: Errors | None
    calibrated: Errors | None
    remark: str

    @property
    def requests(self) -> str:
        """How many are behind the figures."""
        found = self.plain or self.calibrated
        return NONE if found is None else f"{found.requests:,}"

    def cells(self) -> list[str]:
        """What stands in the main table, column by column."""
        case, donor = self.case, self.case.donor if self.calibrated else NONE
        plain, calibrated = (
            [NONE] * len(METRICS) if errors is None else [errors.cell(metric) for metric in METRICS]
            for errors in (self.plain, self.calibrated)
        )
        return [case.run, case.gpus, case.model, case.engine, self.requests, *plain, donor, *calibrated, self.remark]


def measured(case: Case) -> Row:
    """Measure a row; whatever fails is said in its remark."""
    remarks = [case.remark] if case.remark else []

    def figures(what: str, measure: Callable[[], Errors] | None) -> Errors | None:
        errors = measure and attempt(measure)
        if isinstance(errors, str):
            remarks.append(f"{what}: {errors}")
            return None
        return errors

    plain, calibrated = figures("not compared", case.plain), figures("not calibrated", case.calibrated)
    if floors := [errors.floors["e2e"] for errors in (plain, calibrated) if errors and errors.floors]:
        remarks.append(f"floor of E2E P50 ±{100 * floors[0]:.1f}")
    return Row(case, plain, calibrated, "; ".join(remarks))


def attempt(measure: Callable[[], Errors]) -> Errors | str:
    """Errors, or in one line why there are none: one comparison must not end the others."""
    try:
        return measure()
    except Exception as error:
        return one_line(error)


def absent(run: str, data: str) -> list[Case]:
    """The row of data that is not here."""
    return [Case(run, remark=f"skipped: {data} is not here")]


def one_line(error: Exception) -> str:
    """What an error says, in a cell of a table."""
    return " ".join(f"{error or type(error).__name__}".split()).replace("|", "\\|")


def percent(error: float) -> str:
    """A relative error in %, with its sign."""
    return NONE if math.isnan(error) else f"{100 * error:+.1f}"
