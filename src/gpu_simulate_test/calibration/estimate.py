"""Constants from what real runs and simulations say of the same things: robust, with intervals, without what is noise.

A simulation is linear in the constants as long as its batches stay what they are, so a few of them, each with the
constants of the one before, lead to where nothing moves any more. Whether a request happens to find the engine busy is
chance, in a simulation as in a real run, and shows in its residual and in its slopes alike: so the slopes of another
simulation, whose requests arrive a little sooner or later, decide what counts (instrumental variables).

Errors of neighbours are alike, so the intervals come from leaving out blocks of neighbours, one after another (the
jackknife; Efron, 1982), with as many degrees of freedom as there are blocks less one. All of them together hold with
95 % (Bonferroni). Each constant is held towards nothing by a normal prior; where runs say little, that decides, and
widens the interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_simulate_test.latency.calibration import NAMES, NOTHING, Constants
from gpu_simulate_test.spans import Floats, Ints

CONFIDENCE = 0.95

# In the order of `NAMES`: what each is where there is nothing, how far from that it may well be, and its bounds.
_NEUTRAL = np.array([getattr(NOTHING, name) for name in NAMES])
_WIDTH = np.array([10e6, 1e6, 0.1, 100e6, 1e6])
_LOWEST = np.array([0.0, 0.0, 0.5, 0.0, 0.0])
_HIGHEST = np.array([1e9, 1e8, 2.0, 10e9, 20e6])
_HUBER = 1.345  # of the scatter: 95 % as good as least squares where errors are normal (Huber, 1964)
_MAD = 0.6745  # median absolute deviation of a normal distribution, of its standard deviation
_LEAST = 1e-6  # scatter: of what is exact, a millionth
_ROUNDS = 10  # of weights and scatter
_BLOCKS = 30  # of a run
MOST_STEPS = 10
_STILL, _TINY = 0.1, 1e-3  # of an interval, and of a width: a step that small is the last
_CALMER = 0.6  # how much of a step is made after one that went too far

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Observations:
    """Of one kind and of one run, in order of time, what constants make of them.

    Attributes
    ----------
    predicted_ns, observed_ns : numpy.ndarray of shape (n,)
    typical_ns : numpy.ndarray of shape (n,)
        What their scatter is in proportion to.
    slopes : numpy.ndarray of shape (n, 5)
        Of the predicted ones, by each of `NAMES`.
    instruments : numpy.ndarray of shape (n, 5)
        The same of another simulation, or whatever else owes nothing to the chance in the residuals.
    run : int
        The number of the run.
    """

    predicted_ns: Floats
    observed_ns: Floats
    typical_ns: Floats
    slopes: Floats
    instruments: Floats
    run: int


Problem = Callable[[Constants], Sequence[Observations]]
"""What real runs say against what constants make of them; always of the same observations."""


@dataclass(frozen=True)
class Estimate:
    """Constants and how sure they are.

    Attributes
    ----------
    constants : Constants
    low, high : numpy.ndarray of shape (5,)
        The interval of each, of `NAMES`, with none left out: what one cannot be told from widens it.
    found : tuple of str
        Those that are told from noise.
    """

    constants: Constants
    low: Floats
    high: Floats
    found: tuple[str, ...]


def estimate(problem: Problem, start: Constants = NOTHING) -> Estimate:
    """Estimate all constants, then without those whose interval holds what is neutral, the least sure one first."""
    values, part, last = np.array([getattr(start, name) for name in NAMES]), 1.0, np.zeros(len(NAMES))
    for _ in range(MOST_STEPS):
        best, spread, every = _Lines(problem(Constants(*values.tolist())), values).best()
        step = best - values
        if step @ (last / _WIDTH**2) < 0:
            part *= _CALMER
        values, last = values + part * step, step
        if (np.abs(step) <= np.maximum(_STILL * spread, _TINY * _WIDTH)).all():
            break
    left = spread == 0
    found = tuple(name for name, out in zip(NAMES, left, strict=True) if not out)
    return Estimate(Constants(*np.where(left, _NEUTRAL, values).tolist()), every[0], every[1], found)


class _Lines:
    """Everything that was observed, linear in the constants around some of them."""

    def __init__(self, observed: Sequence[Observations], around: Floats) -> None:
        sizes = [len(one.predicted_ns) for one in observed]
        self._kind = np.repeat(np.arange(len(observed)), sizes)
        blocks = [
            one.run * _BLOCKS + np.arange(size) * min(_BLOCKS, size) // max(1, size)
            for one, size in zip(observed, sizes, strict=True)
        ]
        self._block: Ints = np.unique(np.concatenate(blocks), return_inverse=True)[1]
        unit = np.concatenate([np.maximum(one.typical_ns, 1.0) for one in observed])[:, None]
        self._slopes = np.concatenate([one.slopes for one in observed]) / unit * _WIDTH
        self._instruments = np.concatenate([one.instruments for one in observed]) / unit * _WIDTH
        residuals = np.concatenate([one.predicted_ns - one.observed_ns for one in observed]) / unit[:, 0]
        self._neutral = residuals + self._slopes @ ((_NEUTRAL - around) / _WIDTH)  # were all constants neutral

    def best(self) -> tuple[Floats, Floats, Floats]:
        """The constants; half their intervals, 0 of what is left out; the same before anything was, shape (5,) all."""
        free = np.ones(len(NAMES), dtype=bool)
        values, spread = self._bounded(free)
        every = np.array([values - spread, values + spread])
        while True:
            nothing = np.flatnonzero(free & (np.abs(values - _NEUTRAL) <= spread))
            if not len(nothing):
                return values, spread, every
            free[min(nothing, key=lambda one: abs(values[one] - _NEUTRAL[one]) / spread[one])] = False
            values, spread = self._bounded(free)

    def _bounded(self, free: Flags) -> tuple[Floats, Floats]:
        """The best of the `free` constants, and half their intervals; one that would be beyond a bound is put there."""
        values, spread, inside = _NEUTRAL.copy(), np.zeros(len(NAMES)), free.copy()
        while inside.any():
            best, half = self._solved(inside, values)
            spread[inside] = half
            values[inside] = np.clip(best, _LOWEST[inside], _HIGHEST[inside])
            if (values[inside] == best).all():
                break
            inside[inside] = values[inside] == best
        return values, spread

    def _solved(self, inside: Flags, values: Floats) -> tuple[Floats, Floats]:
        """The best of some constants where the others have `values`, and half their intervals."""
        from scipy import special  # takes a while, and most of the package does without

        others = np.where(inside, 0.0, (values - _NEUTRAL) / _WIDTH)
        base = self._neutral + self._slopes @ others
        slopes, instruments = self._slopes[:, inside], self._instruments[:, inside]
        prior, moved, scatter = np.eye(int(inside.sum())), np.zeros(int(inside.sum())), np.ones(len(base))
        for _ in range(_ROUNDS):
            residuals = base + slopes @ moved
            for kind in np.unique(self._kind):
                own = self._kind == kind
                scatter[own] = max(float(np.median(np.abs(residuals[own]))) / _MAD, _LEAST)
            far = np.abs(residuals) / (_HUBER * scatter)
            weighted = instruments / (np.maximum(far, 1.0) * scatter**2)[:, None]
            moved = -np.linalg.solve(weighted.T @ slopes + prior, weighted.T @ base)
        count, size = int(self._block.max()) + 1, len(moved)
        scores, curves = np.zeros((count, size)), np.zeros((count, size, size))
        np.add.at(scores, self._block, weighted * (base + slopes @ moved)[:, None])
        near = far < 1  # what is far off pulls no more for being farther
        np.add.at(curves, self._block[near], weighted[near][:, :, None] * slopes[near][:, None, :])
        whole = curves.sum(axis=0) + prior
        without = np.linalg.solve(whole - curves, scores[:, :, None])[:, :, 0]
        of_prior = np.linalg.inv(whole)
        deviation = np.sqrt((without**2).sum(axis=0) * (count - 1) / count + (of_prior**2).sum(axis=1))
        half = special.stdtrit(max(1, count - 1), 1 - (1 - CONFIDENCE) / len(NAMES) / 2) * deviation
        return _NEUTRAL[inside] + moved * _WIDTH[inside], half * _WIDTH[inside]
