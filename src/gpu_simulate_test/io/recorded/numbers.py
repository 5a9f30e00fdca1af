"""Numbers of a file, checked before they become integers: finite, within a stated range, whole where they count."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # ns of each

_MAX_CLOCK_NS = 4 * 10**18  # the year 2096 of a clock that counts from 1970
MAX_SPAN_NS = 10 * 366 * 86_400 * 10**9  # two clocks differ by more
MAX_LATENCY_NS = 86_400 * 10**9

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Malformed(ValueError):
    """A file cannot be what it was taken for; the message names the request and the field."""


class Column(NamedTuple):
    """Finite numbers, int64 or float64, and which are missing (and 0 here); both of shape (n_rows,)."""

    values: npt.NDArray[Any]
    missing: Mask


Table = Mapping[str, Sequence[Any] | Column]


def quantity(name: str) -> tuple[str, int]:
    """A column's name without its unit, and the nanoseconds of that; 1 for a name without one."""
    head, _, unit = name.rpartition("_")
    return (head, UNITS[unit]) if unit in UNITS else (name, 1)


class Rows:
    """The columns of a table, of requests or of what belongs to them.

    Parameters
    ----------
    table : mapping of str to sequence or Column
    fields : mapping of str to str
        What the file calls a column, for messages.
    requests : numpy.ndarray of shape (n_rows,), optional
        Which request each row belongs to; a row is a request without it.
    """

    def __init__(self, table: Table, fields: Mapping[str, str], requests: Ints | None = None) -> None:
        self.table = table
        self.fields = fields
        first = next(iter(table.values()), ())
        self.size = len(first.values if isinstance(first, Column) else first)
        self.requests = np.arange(self.size) if requests is None else requests

    def field(self, name: str) -> str:
        """What the file calls it."""
        return self.fields.get(name, name)

    def refuse(self, bad: Mask, name: str, what: str, values: npt.NDArray[Any] | None = None) -> None:
        """Raise Malformed for the first row that is bad, with its value."""
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            value = "" if values is None else f" {values[index]:g}"
            raise Malformed(f"request {self.requests[index] + 1}: {self.field(name)}{value} {what}")

    def within(self, name: str, low: int, high: int) -> Column:
        """Numbers from `low` to `high`; all missing where there is no such column."""
        given = self.table.get(name)
        if given is None:
            return Column(np.zeros(self.size, dtype=np.int64), np.ones(self.size, dtype=bool))
        column = given if isinstance(given, Column) else self._numbers(given, name)
        outside = ~column.missing & ~((column.values >= low) & (column.values <= high))
        self.refuse(outside, name, f"is out of range: it must be from {low:,} to {high:,}", column.values)
        return column

    def counts(self, name: str, high: int) -> tuple[Ints, Mask]:
        """Whole numbers from 0 to `high`, and which are missing."""
        values, missing = self.within(name, 0, high)
        self.refuse(values != np.rint(values), name, "is no whole number", values)
        return values.astype(np.int64), missing.copy()

    def durations(self, name: str) -> tuple[Ints, Mask]:
        """Nanoseconds, at most a day, and which are missing."""
        unit = quantity(name)[1]
        values, missing = self.within(name, 0, MAX_LATENCY_NS // unit)
        return np.rint(values * unit).astype(np.int64), missing.copy()

    def clock(self, name: str) -> Column:
        """Times of a clock, in the column's own unit."""
        limit = _MAX_CLOCK_NS // quantity(name)[1]
        return self.within(name, -limit, limit)

    def since(self, name: str, start: float, unit: int) -> tuple[Ints, Mask]:
        """Nanoseconds since `start`, which is in units of `unit` ns, and which are missing.

        The difference of two floats of a clock is exact where their absolute nanoseconds are not.
        """
        own = quantity(name)[1]
        if own != unit:
            whole, rest = divmod(start * unit, own)
            start = whole if not rest else start * unit / own
        values, missing = self.clock(name)
        late = np.where(missing, 0, values - start)
        far = np.abs(late.astype(np.float64)) * own > MAX_SPAN_NS
        self.refuse(far, name, "is more than ten years from the first arrival: of another clock?")
        return np.rint(late * own).astype(np.int64) if late.dtype == np.float64 else late * own, missing.copy()

    def _numbers(self, values: Sequence[Any], name: str) -> Column:
        kinds = set(map(type, values))
        if not kinds <= {int, float, type(None)}:
            wrong = [value is not None and type(value) not in (int, float) for value in values]
            self.refuse(np.array(wrong), name, f"is no number: {ascii(values[wrong.index(True)])[:40]}")
        missing = np.array([value is None for value in values], dtype=bool)
        filled = [0 if value is None else value for value in values]
        try:
            numbers = np.array(filled, dtype=np.float64 if float in kinds else np.int64)
        except OverflowError:
            self.refuse(np.array([abs(value) >= 2**63 for value in filled]), name, "is out of range: it is above 2^63")
            raise
        self.refuse(~np.isfinite(numbers), name, "is not finite", numbers)
        return Column(numbers, missing)
