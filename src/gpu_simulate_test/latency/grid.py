"""Functions between measured points: of one number a `Line`, of two a `Surface`, of any more a `Grid`.

Below the first point of an axis the first one counts; above the last one the last slope goes on.
"""

from bisect import bisect_right
from collections.abc import Sequence
from copy import copy

import numpy as np
import pandas as pd


class Line:
    """A piecewise-linear function of one number, for one or for many alike.

    Called some times an iteration of a simulation, hence plain lists: for one number they are faster than arrays.

    Parameters
    ----------
    knots : array-like of shape (n,)
        Ascending. Before the first one the function is constant, after the last one it goes straight on.
    values, slopes : array-like of shape (n,)
        At each knot, and from it on.
    below : float, optional
        The constant before the first knot, where it is not the first value.
    """

    def __init__(self, knots: np.ndarray, values: np.ndarray, slopes: np.ndarray, below: float | None = None) -> None:
        self.arrays = (
            np.asarray(knots, dtype=float),
            np.append(knots[0], knots).astype(float),
            np.append(values[0] if below is None else below, values).astype(float),
            np.append(0.0, slopes).astype(float),
        )
        lists: list[list[float]] = [array.tolist() for array in self.arrays]
        self.knots, self.starts, self.values, self.slopes = lists

    def __call__(self, x: float) -> float:
        """The value at `x`."""
        index = bisect_right(self.knots, x)
        return self.values[index] + self.slopes[index] * (x - self.starts[index])

    def many(self, x: np.ndarray) -> np.ndarray:
        """The values at `x`, shape (n,): bit for bit those of one call each."""
        knots, starts, values, slopes = self.arrays
        index = np.searchsorted(knots, x, side="right")
        found: np.ndarray = values[index] + slopes[index] * (x - starts[index])
        return found

    def run(self, x: int, step: int, count: int) -> np.ndarray:
        """The values at `count` numbers from `x` on, `step` (above 0) apart: bit for bit those of one call each."""
        numbers = np.arange(x, x + step * count, step)
        index = bisect_right(self.knots, x)
        if index < len(self.knots) and self.knots[index] <= x + step * (count - 1):
            return self.many(numbers)
        # On one piece, as most runs are.
        found: np.ndarray = self.values[index] + self.slopes[index] * (numbers - self.starts[index])
        return found

    def of(self, scale: float = 1.0, shift: float = 0.0, factor: float = 1.0) -> "Line":
        """The function ``factor * self(scale * x + shift)`` of x; `scale` is above 0."""
        knots, _, values, slopes = self.arrays
        values = values * factor
        return Line((knots - shift) / scale, values[1:], slopes[1:] * (factor * scale), values[0])

    @staticmethod
    def constant(value: float) -> "Line":
        """The same everywhere."""
        return Line(np.zeros(1), np.array([value]), np.zeros(1))

    @staticmethod
    def sum(*lines: "Line") -> "Line":
        """The sum of functions."""
        knots = np.unique(np.concatenate([line.arrays[0] for line in lines]))
        values, slopes = np.zeros(len(knots)), np.zeros(len(knots))
        for line in lines:
            values += line.many(knots)
            slopes += line.arrays[3][np.searchsorted(line.arrays[0], knots, side="right")]
        return Line(knots, values, slopes, sum(line.values[0] for line in lines))


class Grid:
    """Multilinear interpolation over the points of a table.

    Parameters
    ----------
    frame : pandas.DataFrame of shape (n_points, n_columns)
    axes : sequence of str
        Columns of the coordinates; points that lie between measured ones are filled in, the last axis first.
    column : str
        Column of the values.
    monotone : bool
        More never takes less: the larger of two neighbours, and of their slopes beyond the last point, stands where
        noise says otherwise.

    Attributes
    ----------
    high : tuple of float
        The last point of each axis.
    levels : tuple of numpy.ndarray
        The points of each axis, and one more, from which the last slope goes on.
    values : numpy.ndarray of shape (n_levels, ...)
    """

    def __init__(self, frame: pd.DataFrame, axes: Sequence[str], column: str, *, monotone: bool = True) -> None:
        table = frame.groupby(list(axes), sort=True)[column].median()
        levels = [np.unique(frame[axis].to_numpy(dtype=float)) for axis in axes]
        values = np.full([len(level) for level in levels], np.nan)
        codes = [
            np.searchsorted(level, table.index.get_level_values(axis)) for axis, level in zip(axes, levels, strict=True)
        ]
        values[tuple(codes)] = table.to_numpy(dtype=float)
        for axis in reversed(range(len(levels))):
            values = np.apply_along_axis(_filled, axis, values, levels[axis])
        for axis in range(len(levels) if monotone else 0):
            values = np.maximum.accumulate(values, axis=axis)
        self.high = tuple(float(level[-1]) for level in levels)
        for axis in range(len(levels)):
            values, levels[axis] = _continued(values, levels[axis], axis, monotone=monotone)
        self.levels = tuple(levels)
        self.values: np.ndarray = values

    def __call__(self, *point: float) -> float:
        """The value at `point`, one coordinate an axis."""
        return self.line(*point[:-1])(point[-1])

    def axis_first(self, axis: int) -> "Grid":
        """The same with another axis as the first one."""
        other = copy(self)
        order = [axis, *(index for index in range(self.values.ndim) if index != axis)]
        other.high = tuple(self.high[index] for index in order)
        other.levels = tuple(self.levels[index] for index in order)
        other.values = self.values.transpose(order)
        return other

    def line(self, *first: float) -> Line:
        """The function of the last coordinate where the `first` ones are given."""
        values, level = self.fixed(*first), self.levels[-1]
        return Line(level[:-1], values[:-1], np.diff(values) / np.diff(level))

    def fixed(self, *first: float) -> np.ndarray:
        """The values over the other axes where the `first` coordinates are given."""
        values = self.values
        for level, x in zip(self.levels, first, strict=False):
            x = max(x, level[0])
            index = min(int(np.searchsorted(level, x, side="right")), len(level) - 1) - 1
            part = (x - level[index]) / (level[index + 1] - level[index])
            values = (1.0 - part) * values[index] + part * values[index + 1]
        return values


class Surface:
    """A grid of two axes, `factor` times its values, looked up quickly."""

    def __init__(self, grid: Grid, factor: float = 1.0) -> None:
        self._x, self._y = Axis(grid.levels[0]), Axis(grid.levels[1])
        self._values: list[list[float]] = (grid.values * factor).tolist()

    def __call__(self, x: float, y: float) -> float:
        """The value at a point."""
        index, part = self._x(x)
        below, above = self._values[index], self._values[index + 1]
        index, share = self._y(y)
        low, high = below[index], above[index]
        low += share * (below[index + 1] - low)
        high += share * (above[index + 1] - high)
        return low + part * (high - low)


class Axis:
    """Where a number lies among the points of an axis."""

    def __init__(self, level: np.ndarray) -> None:
        self._level: list[float] = level.tolist()
        self._per: list[float] = (1 / np.diff(level)).tolist()
        self._first, self._end = self._level[0], len(level) - 1

    def __call__(self, x: float) -> tuple[int, float]:
        """The interval that holds `x`, and how far into it; above 1 beyond the last point, 0 before the first."""
        if x <= self._first:
            return 0, 0.0
        index = bisect_right(self._level, x, 1, self._end) - 1
        return index, (x - self._level[index]) * self._per[index]


def _continued(values: np.ndarray, level: np.ndarray, axis: int, *, monotone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both with a point more on this axis, from which the last slope goes on: it, too, never falls on another axis."""
    if len(level) == 1:
        return np.repeat(values, 2, axis=axis), np.append(level, level + 1)
    last, before = (np.take(values, [index], axis=axis) for index in (-1, -2))
    slope = last - before
    for other in range(values.ndim if monotone else 0):
        slope = np.maximum.accumulate(slope, axis=other)
    return np.concatenate([values, last + slope], axis=axis), np.append(level, 2 * level[-1] - level[-2])


def _filled(values: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    return np.interp(coordinates, coordinates[known], values[known]) if known.any() else values
