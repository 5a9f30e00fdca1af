"""The iteration predictor: Vidur's operators plus everything they leave out.

An iteration's time is modelled as a sum of monotone, piecewise-linear functions of what the batch is
made of, with the operators' own prediction as one of them. The slopes are found by non-negative least
squares (Lawson and Hanson 1974) on whole iterations measured on the real engine, relative errors weighing
alike. Non-negative slopes make the prediction never decrease when a batch grows, and beyond the profiled
range it goes on in a straight line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.vidur_ext.operators import OperatorModel
from gpu_simulate_test.vidur_ext.profiling_root import Profile

COMPOSITION = tuple(Composition.__dataclass_fields__)
_KNOTS = 10  # at most, per piecewise-linear feature
_RIDGE = 1e-3  # settles slopes that the data leave open, in units of a relative error


def _quantities(columns: dict[str, np.ndarray], operators_ns: np.ndarray) -> dict[str, np.ndarray]:
    """The quantities an iteration's time grows with; every one grows with the batch."""
    tokens = columns["num_prefill_tokens"] + columns["num_decode_seqs"]
    cached = columns["kv_tokens_prefill"] + columns["kv_tokens_decode"]
    return {
        "operators_ns": operators_ns,
        "tokens": tokens,
        "seqs": columns["num_prefill_seqs"] + columns["num_decode_seqs"],
        "cached": cached,
        "pairs": columns["prefill_pairs"] + columns["kv_tokens_decode"] + columns["num_decode_seqs"],
        # An engine without a varlen kernel attends with all queries to all keys, masked.
        "dense_pairs": tokens * (tokens + cached),
    }


_PIECEWISE = ("tokens", "seqs", "cached", "dense_pairs")


class IterationModel:
    """Whole-iteration time, from operators and measured iterations.

    Parameters
    ----------
    profile_iterations : pandas.DataFrame of shape (n_points, ...)
        ``iteration.csv``: composition columns and ``median_ns``.
    operators_ns : numpy.ndarray of shape (n_points,)
        The operators' prediction of the same points.
    """

    def __init__(self, profile_iterations: pd.DataFrame, operators_ns: np.ndarray) -> None:
        columns = {name: profile_iterations[name].to_numpy(dtype=float) for name in COMPOSITION}
        measured = profile_iterations["median_ns"].to_numpy(dtype=float)
        quantities = _quantities(columns, operators_ns)
        self._knots = {name: _knots(quantities[name]) for name in _PIECEWISE}
        features = self._features(quantities)
        self._scale = np.maximum(features.max(axis=0), 1e-12)
        design = features / self._scale / measured[:, None]
        ridge = np.sqrt(len(measured)) * _RIDGE * np.eye(design.shape[1]) / measured.mean()
        slopes, _residual = nnls(np.vstack([design, ridge]), np.append(np.ones(len(measured)), np.zeros(len(ridge))))
        self._slopes = slopes / self._scale

    def _features(self, quantities: dict[str, np.ndarray]) -> np.ndarray:
        columns = [np.ones_like(quantities["tokens"]), quantities["operators_ns"], quantities["pairs"]]
        columns.append((quantities["cached"] > 0).astype(float))  # reading the cache at all has a cost
        for name in _PIECEWISE:
            columns.extend(_ramps(quantities[name], self._knots[name]))
        return np.column_stack(columns)

    def predict(self, columns: dict[str, np.ndarray], operators_ns: np.ndarray) -> np.ndarray:
        """Predicted times, ns, of compositions given as arrays of shape (n,)."""
        prediction: np.ndarray = self._features(_quantities(columns, operators_ns)) @ self._slopes
        return prediction


def _knots(values: np.ndarray) -> np.ndarray:
    """Powers of two over the profiled range, thinned to a few."""
    positive = values[values > 0]
    if positive.size == 0:
        return np.array([0.0])
    knots = np.geomspace(positive.min(), positive.max(), num=_KNOTS)[:-1]
    return np.unique(np.concatenate([[0.0], knots]))


def _ramps(values: np.ndarray, knots: np.ndarray) -> list[np.ndarray]:
    """One ramp between each two knots, the last one without an end; their sum is the value itself."""
    ends = np.append(knots[1:], np.inf)
    return [np.clip(values, start, end) - start for start, end in zip(knots, ends, strict=True)]


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
        points = profile.iteration
        return cls.fit(operators, points)

    @classmethod
    def fit(cls, operators: OperatorModel, points: pd.DataFrame) -> "Predictors":
        """Fit the iteration model on measured `points`."""
        operators_ns = np.array([operators.predict_ns(_typical_batch(row)) for row in points.to_dict("records")])
        ranges = points[list(COMPOSITION)]
        return cls(operators, IterationModel(points, operators_ns), ranges.min().to_dict(), ranges.max().to_dict())

    def covers(self, composition: Composition) -> bool:
        """True when every quantity lies within the profiled range."""
        return all(self.low[name] <= value <= self.high[name] for name, value in asdict(composition).items())

    def predict_ns(self, batch: Sequence[ScheduledSeq]) -> float:
        """Predicted time of a batch, ns."""
        composition = Composition.of(batch)
        operators_ns = self.operators.predict_ns(_typical_batch(asdict(composition)))
        columns = {name: np.array([value], dtype=float) for name, value in asdict(composition).items()}
        return float(self.iterations.predict(columns, np.array([operators_ns]))[0])

    def predict_table(self, points: pd.DataFrame) -> np.ndarray:
        """Predicted times, ns, of the rows of an iteration table, shape (n,)."""
        rows = points[list(COMPOSITION)].to_dict("records")
        operators_ns = np.array([self.operators.predict_ns(_typical_batch(row)) for row in rows])
        return self.iterations.predict({name: points[name].to_numpy(dtype=float) for name in COMPOSITION}, operators_ns)


def _typical_batch(row: Mapping[Any, Any]) -> list[ScheduledSeq]:
    """A batch of that composition, its tokens and contexts shared out evenly.

    Iteration records keep sums, not sequences; operators are looked up the same way when fitting and
    when predicting, so that the two agree.
    """
    batch = []
    for kind, is_prefill in (("prefill", True), ("decode", False)):
        count = int(row[f"num_{kind}_seqs"])
        tokens = int(row["num_prefill_tokens"]) if is_prefill else count
        for index in range(count):
            batch.append(
                ScheduledSeq(
                    index,
                    tokens // count + (index < tokens % count),
                    int(row[f"kv_tokens_{kind}"]) // count,
                    is_prefill,
                )
            )
    return batch
