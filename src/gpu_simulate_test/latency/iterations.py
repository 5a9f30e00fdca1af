"""The iteration model: Vidur's operators plus everything they leave out.

An iteration's time is modelled as a sum of monotone, piecewise-linear functions of what the batch is
made of, with the operators' own prediction as one of them. The slopes are found by non-negative least
squares (Lawson and Hanson 1974) on whole iterations measured on the real engine, relative errors weighing
alike. Non-negative slopes make the prediction never decrease when a batch grows, and beyond the profiled
range it goes on in a straight line.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.decoding import DecodeCost, DecodingModel
from gpu_simulate_test.latency.grid import Line
from gpu_simulate_test.latency.model import batches_of
from gpu_simulate_test.latency.operators import OperatorModel

_KNOTS = 10  # at most, per piecewise-linear function
_RIDGE = 1e-3  # settles slopes that the data leave open, in units of a relative error


class Quantities(NamedTuple):
    """What an iteration's time grows with, of one batch or of arrays of them; all grow with the batch.

    Attributes
    ----------
    tokens, sequences, cached : int or numpy.ndarray
    dense : int or numpy.ndarray
        Pairs of any query and any key: an engine without a varlen kernel attends with all to all, masked.
    pairs : int or numpy.ndarray
        Pairs of each sequence's own queries and keys; linear from here on.
    operators_ns : float or numpy.ndarray
    any_cached : float or numpy.ndarray
        1 where something is cached: reading the cache at all has a cost.
    one : float or numpy.ndarray
        1.
    """

    tokens: Any
    sequences: Any
    cached: Any
    dense: Any
    pairs: Any
    operators_ns: Any
    any_cached: Any
    one: Any

    @classmethod
    def of(cls, batch: Any, operators_ns: Any) -> "Quantities":
        """Those of a `Composition`, or of a table of them."""
        tokens = batch.num_prefill_tokens + batch.num_decode_seqs
        cached = batch.kv_tokens_prefill + batch.kv_tokens_decode
        return cls(
            tokens=tokens,
            sequences=batch.num_prefill_seqs + batch.num_decode_seqs,
            cached=cached,
            dense=tokens * (tokens + cached),
            pairs=batch.prefill_pairs + batch.kv_tokens_decode + batch.num_decode_seqs,
            operators_ns=operators_ns,
            any_cached=(cached > 0) * 1.0,
            one=tokens * 0 + 1.0,
        )


_PIECEWISE = ("tokens", "sequences", "cached", "dense")


class Ramp(NamedTuple):
    """A part of the time: from `start` to `end` of a quantity `slope` ns a unit, before and after it constant."""

    quantity: str
    start: float
    end: float
    slope: float


class IterationModel(DecodingModel):
    """Whole-iteration time: the sum of ramps over a batch's quantities.

    Parameters
    ----------
    ramps : sequence of Ramp
        Those of one quantity adjoin, in ascending order.
    operators : OperatorModel or None
        Without it ``operators_ns`` is 0.
    """

    def __init__(self, ramps: Sequence[Ramp], operators: OperatorModel | None) -> None:
        super().__init__()
        self.ramps = tuple(ramps)
        self._sequences, self._cached, self._dense = (_line(ramps, name) for name in _PIECEWISE[1:])
        slope = {ramp.quantity: ramp.slope for ramp in ramps if ramp.quantity not in _PIECEWISE}
        self._per_pair, self._any_cached = slope["pairs"], slope["any_cached"]
        self._per_operator_ns = slope["operators_ns"] if operators else 0.0
        self._operators = operators if self._per_operator_ns else None
        compute = [operators.compute.of(factor=self._per_operator_ns)] if operators else []
        self._tokens = Line.sum(_line(ramps, "tokens"), Line.constant(slope["one"]), *compute)

    def _mixed_ns(self, batch: Composition) -> float:
        tokens, prompts, decoding, cached, cached_decoding, pairs, _ = batch
        tokens, cached = tokens + decoding, cached + cached_decoding
        time = self._tokens(tokens) + self._sequences(prompts + decoding) + self._dense(tokens * (tokens + cached))
        time += self._per_pair * (pairs + cached_decoding + decoding)
        if cached:
            time += self._cached(cached) + self._any_cached
        if self._operators:
            time += self._per_operator_ns * self._operators.attention_ns(batch)
        return time

    def _decode_cost(self, decoding: int) -> DecodeCost:
        fixed = self._tokens(decoding) + self._sequences(decoding) + self._per_pair * decoding
        lines = [
            Line(np.zeros(1), np.array([fixed]), np.array([self._per_pair])),
            Line(np.ones(1), np.array([self._any_cached]), np.zeros(1), below=0.0),
            self._cached,
            self._dense.of(decoding, decoding * decoding),
        ]
        if self._operators:
            lines.append(self._operators.decode_attention(decoding).of(factor=self._per_operator_ns))
        return DecodeCost(Line.sum(*lines))


def fit_iterations(points: pd.DataFrame, operators: OperatorModel | None) -> IterationModel:
    """Find the slopes.

    Parameters
    ----------
    points : pandas.DataFrame of shape (n_points, ...)
        ``iteration.csv``: composition columns, ``repeats`` and ``median_ns``.
    operators : OperatorModel or None
        Without it the iterations alone tell.
    """
    operators_ns = np.array([operators.step_ns(batch, 0.0) if operators else 0.0 for batch in batches_of(points)])
    quantities = Quantities.of(points.astype(float), operators_ns)
    ramps = [
        (name, start, end)
        for name in Quantities._fields
        for start, end in (_intervals(np.asarray(getattr(quantities, name))) if name in _PIECEWISE else [(0.0, np.inf)])
    ]
    features = np.column_stack([_climbed(quantities, *ramp) for ramp in ramps])
    measured = points["median_ns"].to_numpy(dtype=float)
    scale = np.maximum(features.max(axis=0), 1e-12)
    ridge = np.sqrt(len(measured)) * _RIDGE * np.eye(len(scale)) / measured.mean()
    # Errors relative to a noisy measurement would favour the fast ones: the second fit's are relative to the first.
    size = measured
    for _ in range(2):
        weight = np.sqrt(points["repeats"].to_numpy(dtype=float)) / size
        design = np.vstack([features / scale * weight[:, None], ridge])
        slopes, _residual = nnls(design, np.append(measured * weight, np.zeros(len(ridge))))
        size = features / scale @ slopes
    return IterationModel([Ramp(*ramp, slope) for ramp, slope in zip(ramps, slopes / scale, strict=True)], operators)


def _climbed(quantities: Quantities, name: str, start: float, end: float) -> np.ndarray:
    """How far a quantity has climbed a ramp."""
    climbed: np.ndarray = np.clip(np.asarray(getattr(quantities, name), dtype=float), start, end) - start
    return climbed


def _intervals(values: np.ndarray) -> list[tuple[float, float]]:
    """Intervals over the profiled range, geometrically spaced; the last one has no end."""
    positive = values[values > 0]
    if positive.size == 0:
        return [(0.0, np.inf)]
    knots = np.unique(np.append(0.0, np.geomspace(positive.min(), positive.max(), num=_KNOTS)[:-1]))
    return list(zip(knots.tolist(), np.append(knots[1:], np.inf).tolist(), strict=True))


def _line(ramps: Sequence[Ramp], name: str) -> Line:
    """The ramps of one quantity, end to end."""
    own = [ramp for ramp in ramps if ramp.quantity == name]
    starts, slopes = np.array([ramp.start for ramp in own]), np.array([ramp.slope for ramp in own])
    return Line(starts, np.append(0.0, np.cumsum(np.diff(starts) * slopes[:-1])), slopes)
