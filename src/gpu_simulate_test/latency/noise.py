"""How measured iterations scatter around their prediction, as it was over time while the profile was made."""

from bisect import bisect_right

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.model import LatencyModel


class Noise:
    """Measured over predicted time, iteration by iteration.

    A shared machine is slow for seconds at a time, so the scatter of neighbouring iterations is alike. Playing the
    record back from a random place keeps that: it is a block bootstrap whose one block is the simulated run (circular,
    as Politis and Romano, 1992).

    Parameters
    ----------
    record : pandas.DataFrame of shape (n_iterations, 2)
        ``time_ns``, ascending from 0, and ``ratio``.
    """

    def __init__(self, record: pd.DataFrame) -> None:
        self._times: list[int] = record["time_ns"].tolist()
        self._ratios: list[float] = record["ratio"].tolist()
        self._length = self._times[-1] + 1

    def draw_offset(self, rng: np.random.Generator) -> int:
        """A random place of the record, ns."""
        return int(rng.integers(self._length))

    def ratio(self, time_ns: int) -> float:
        """The ratio in force at `time_ns`; after the record's end comes its start."""
        return self._ratios[bisect_right(self._times, time_ns % self._length) - 1]


class Noisy:
    """A latency model whose batches scatter as recorded iterations did, from `offset_ns` of that record on."""

    def __init__(self, model: LatencyModel, noise: Noise, offset_ns: int) -> None:
        self._model = model
        self._noise = noise
        self._offset_ns = offset_ns

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns, times the ratio in force when it begins."""
        return self._model.step_ns(batch, now_ns) * self._noise.ratio(self._offset_ns + round(now_ns))

    def decode_run_ns(self, batch: Composition, count: int) -> None:
        """None: when a batch begins depends on the ratios before it."""
