"""Looking a value up between measured points, in any number of dimensions."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd


class Grid:
    """Multilinear interpolation over the points of a table.

    Called once an iteration of a simulation, hence plain lists: for one point they are faster than arrays.
    Below the first point of an axis the first one counts; above the last one the last slope goes on.

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
        for axis in range(len(levels) if monotone else 0):
            values, levels[axis] = _continued(values, levels[axis], axis)
        self._axes: list[list[float]] = [level.tolist() for level in levels]
        self._strides = [int(np.prod(values.shape[axis + 1 :])) for axis in range(len(levels))]
        self._values: list[float] = values.ravel().tolist()

    def __call__(self, *point: float) -> float:
        """The value at `point`, one coordinate an axis."""
        if len(point) == 1:
            index, part = _position(self._axes[0], point[0])
            values = self._values
            return (1.0 - part) * values[index] + part * values[index + 1] if part else values[index]
        steps = []
        for axis, stride, value in zip(self._axes, self._strides, point, strict=True):
            index, part = _position(axis, value)
            near = (index * stride, 1.0 - part)
            steps.append((near, (near[0] + stride, part)) if part else (near,))
        total = 0.0
        for corner in product(*steps):
            offset, weight = 0, 1.0
            for place, share in corner:
                offset += place
                weight *= share
            total += weight * self._values[offset]
        return total


def _continued(values: np.ndarray, level: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Both with a point more on this axis, from which the last slope goes on: it, too, never falls on another axis."""
    if len(level) == 1:
        return values, level
    last, before = (np.take(values, [index], axis=axis) for index in (-1, -2))
    slope = last - before
    for other in range(values.ndim):
        slope = np.maximum.accumulate(slope, axis=other)
    return np.concatenate([values, last + slope], axis=axis), np.append(level, 2 * level[-1] - level[-2])


def _filled(values: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    return np.interp(coordinates, coordinates[known], values[known]) if known.any() else values


def _position(axis: list[float], value: float) -> tuple[int, float]:
    """Index of the interval that holds `value`, and how far into it; above 1 beyond the axis."""
    if value <= axis[0] or len(axis) == 1:
        return 0, 0.0
    index = min(bisect_right(axis, value) - 1, len(axis) - 2)
    return index, (value - axis[index]) / (axis[index + 1] - axis[index])
