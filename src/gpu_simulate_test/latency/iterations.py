"""The iteration predictor: Vidur's operators plus everything they leave out.

An iteration's time is modelled as a sum of monotone, piecewise-linear functions of what the batch is
made of, with the operators' own prediction as one of them. The slopes are found by non-negative least
squares (Lawson and Hanson 1974) on whole iterations measured on the real engine, relative errors weighing
alike. Non-negative slopes make the prediction never decrease when a batch grows, and beyond the profiled
range it goes on in a straight line.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.model import batches_of, decode_run
from gpu_simulate_test.latency.operators import OperatorModel

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
    operators : OperatorModel or None
        Without it the iterations alone tell.
    """

    def __init__(self, points: pd.DataFrame, operators: OperatorModel | None) -> None:
        self._operators_ns: Callable[[Composition], float] = (
            partial(operators.step_ns, now_ns=0.0) if operators else lambda _batch: 0.0
        )
        operators_ns = np.array([self._operators_ns(batch) for batch in batches_of(points)])
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
        ridge = np.sqrt(len(measured)) * _RIDGE * np.eye(len(scale)) / measured.mean()
        # Errors relative to a noisy measurement would favour the fast ones: the second fit's are relative to the first.
        size = measured
        for _ in range(2):
            weight = np.sqrt(points["repeats"].to_numpy(dtype=float)) / size
            design = np.vstack([features / scale * weight[:, None], ridge])
            slopes, _residual = nnls(design, np.append(measured * weight, np.zeros(len(ridge))))
            size = features / scale @ slopes
        used = slopes > 0
        self._slopes = (slopes / scale)[used]
        self._index, self._start, self._end = self._index[used], self._start[used], self._end[used]

    def _features(self, quantities: np.ndarray) -> np.ndarray:
        """How far each quantity has climbed each of its ramps, shape (..., n_ramps)."""
        features: np.ndarray = np.clip(quantities[..., self._index], self._start, self._end) - self._start
        return features

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns, at any time."""
        quantities = np.array(_quantities(batch, self._operators_ns(batch)))
        return float(self._features(quantities) @ self._slopes)

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray:
        """What the batches of `decode_run` take, ns, shape (count,)."""
        return np.array([self.step_ns(one, 0.0) for one in decode_run(batch, count)])


def _ramps(values: np.ndarray) -> list[tuple[float, float]]:
    """Intervals over the profiled range, geometrically spaced; the last one has no end."""
    positive = values[values > 0]
    if positive.size == 0:
        return [(0.0, np.inf)]
    knots = np.unique(np.append(0.0, np.geomspace(positive.min(), positive.max(), num=_KNOTS)[:-1]))
    return list(zip(knots, np.append(knots[1:], np.inf), strict=True))
