"""The iteration predictor: Vidur's operators plus everything they leave out.

An iteration's time is modelled as a sum of monotone, piecewise-linear functions of what the batch is
made of, with the operators' own prediction as one of them. The slopes are found by non-negative least
squares (Lawson and Hanson 1974) on whole iterations measured on the real engine, relative errors weighing
alike. Non-negative slopes make the prediction never decrease when a batch grows, and beyond the profiled
range it goes on in a straight line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.vidur_ext.operators import OperatorModel
from gpu_simulate_test.vidur_ext.profiling_root import Profile

COMPOSITION = tuple(Composition.__dataclass_fields__)
_KNOTS = 10  # at most, per piecewise-linear function
_RIDGE = 1e-3  # settles slopes that the data leave open, in units of a relative error


def _quantities(batch: Any, operators_ns: Any) -> tuple[Any, ...]:
    """What an iteration's time grows with, of one batch or of arrays of them; all grow with the batch."""
    tokens = batch.num_prefill_tokens + batch.num_decode_seqs
    cached = batch.kv_tokens_prefill + batch.kv_tokens_decode
    return (
        tokens,
        batch.num_prefill_seqs + batch.num_decode_seqs,
        cached,
        # An engine without a varlen kernel attends with all queries to all keys, masked.
        tokens * (tokens + cached),
        # Linear from here on.
        batch.prefill_pairs + batch.kv_tokens_decode + batch.num_decode_seqs,
        operators_ns,
        (cached > 0) * 1.0,  # reading the cache at all has a cost
        tokens * 0 + 1.0,
    )


_NUM_PIECEWISE = 4  # the first quantities


class IterationModel:
    """Whole-iteration time, from operators and measured iterations.

    Parameters
    ----------
    points : pandas.DataFrame of shape (n_points, ...)
        ``iteration.csv``: composition columns and ``median_ns``.
    operators_ns : numpy.ndarray of shape (n_points,)
        The operators' prediction of the same points.
    """

    def __init__(self, points: pd.DataFrame, operators_ns: np.ndarray) -> None:
        quantities = np.column_stack(_quantities(points.astype(float), operators_ns))
        ramps = [
            (index, start, end)
            for index in range(quantities.shape[1])
            for start, end in (_ramps(quantities[:, index]) if index < _NUM_PIECEWISE else [(0.0, np.inf)])
        ]
        self._index = np.array([ramp[0] for ramp in ramps])
        self._start = np.array([ramp[1] for ramp in ramps])
        self._end = np.array([ramp[2] for ramp in ramps])
        features = self._features(quantities)
        measured = points["median_ns"].to_numpy(dtype=float)
        scale = np.maximum(features.max(axis=0), 1e-12)
        design = features / scale / measured[:, None]
        ridge = np.sqrt(len(measured)) * _RIDGE * np.eye(design.shape[1]) / measured.mean()
        slopes, _residual = nnls(np.vstack([design, ridge]), np.append(np.ones(len(measured)), np.zeros(len(ridge))))
        used = slopes > 0
        self._slopes = (slopes / scale)[used]
        self._index, self._start, self._end = self._index[used], self._start[used], self._end[used]

    def _features(self, quantities: np.ndarray) -> np.ndarray:
        """How far each quantity has climbed each of its ramps, shape (..., n_ramps)."""
        features: np.ndarray = np.clip(quantities[..., self._index], self._start, self._end) - self._start
        return features

    def predict(self, batch: Any, operators_ns: Any) -> np.ndarray:
        """Predicted times, ns, of one batch, shape (), or of a table of them, shape (n,)."""
        quantities = np.stack(_quantities(batch, operators_ns), axis=-1)
        prediction: np.ndarray = self._features(quantities) @ self._slopes
        return prediction


def _ramps(values: np.ndarray) -> list[tuple[float, float]]:
    """Intervals over the profiled range, geometrically spaced; the last one has no end."""
    positive = values[values > 0]
    if positive.size == 0:
        return [(0.0, np.inf)]
    knots = np.unique(np.append(0.0, np.geomspace(positive.min(), positive.max(), num=_KNOTS)[:-1]))
    return list(zip(knots, np.append(knots[1:], np.inf), strict=True))


@dataclass(frozen=True)
class Predictors:
    """A profile's predictors, fitted once, and the range it covers."""

    operators: OperatorModel
    iterations: IterationModel
    low: Mapping[Any, float]
    high: Mapping[Any, float]

    @classmethod
    def from_profile(cls, profile: Profile) -> "Predictors":
        """Fit on a loaded bundle; a fraction of a second."""
        operators = OperatorModel(profile.mlp, profile.attention, int(profile.meta["num_layers"]))
        return cls.fit(operators, profile.iteration)

    @classmethod
    def fit(cls, operators: OperatorModel, points: pd.DataFrame) -> "Predictors":
        """Fit the iteration model on measured `points`."""
        ranges = points[list(COMPOSITION)]
        model = IterationModel(points, _operators_ns(operators, points))
        return cls(operators, model, ranges.min().to_dict(), ranges.max().to_dict())

    def covers(self, batch: Composition) -> bool:
        """True when every quantity lies within the profiled range."""
        return all(self.low[name] <= value <= self.high[name] for name, value in asdict(batch).items())

    def predict_ns(self, batch: Composition) -> float:
        """Predicted time of a batch, ns."""
        return float(self.iterations.predict(batch, self.operators.predict_ns(batch)))

    def predict_table(self, points: pd.DataFrame) -> np.ndarray:
        """Predicted times, ns, of the rows of an iteration table, shape (n,)."""
        return self.iterations.predict(points.astype(float), _operators_ns(self.operators, points))


def _operators_ns(operators: OperatorModel, points: pd.DataFrame) -> np.ndarray:
    rows = points[list(COMPOSITION)].itertuples(index=False, name=None)
    return np.array([operators.predict_ns(Composition(*row)) for row in rows])
