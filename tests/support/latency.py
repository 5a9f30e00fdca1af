"""Latency models with a known truth."""

from collections.abc import Callable

import numpy as np

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.model import decode_run


class Costs:
    """A latency model that is a function of a batch."""

    def __init__(self, cost: Callable[[Composition], float]) -> None:
        self._cost = cost

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        return self._cost(batch)

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray | None:
        return np.array([self._cost(one) for one in decode_run(batch, count)], dtype=np.float64)
