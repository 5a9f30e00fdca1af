"""Batches of nothing but decoding sequences: most of a simulation's iterations, and priced by far the quickest.

With their number given, what such a batch takes is a piecewise-linear function of their cached tokens, and of those
of the longest. The functions are made once a number.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right

import numpy as np

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.grid import Line


class DecodeCost:
    """What a given number of decoding sequences takes, ns.

    Parameters
    ----------
    of_cached : Line
        Of the cached tokens of all of them, from an integer number of tokens.
    of_longest : Line, optional
        To be added: of the cached tokens of the one that has most.
    """

    def __init__(self, of_cached: Line, of_longest: Line | None = None) -> None:
        self.of_cached, self.of_longest = of_cached, of_longest

    def __call__(self, cached: int, longest: int) -> float:
        """Of one batch."""
        # `Line.__call__` written out: what a simulation does most.
        line = self.of_cached
        index = bisect_right(line.knots, cached)
        time = line.values[index] + line.slopes[index] * (cached - line.starts[index])
        if self.of_longest is not None:
            line = self.of_longest
            index = bisect_right(line.knots, longest)
            time += line.values[index] + line.slopes[index] * (longest - line.starts[index])
        return time

    def run(self, decoding: int, cached: int, longest: int, count: int) -> np.ndarray:
        """Of the batches of `decode_run`, shape (count,)."""
        times = self.of_cached.run(cached, decoding, count)
        return times if self.of_longest is None else times + self.of_longest.run(longest, 1, count)


class DecodingModel(ABC):
    """A latency model by kind of batch: decoding sequences alone, or with prompts among them."""

    def __init__(self) -> None:
        self._costs: dict[int, DecodeCost] = {}

    @abstractmethod
    def _decode_cost(self, decoding: int) -> DecodeCost:
        """What so many decoding sequences take."""

    @abstractmethod
    def _mixed_ns(self, batch: Composition) -> float:
        """What any other batch takes, ns."""

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns, at any time."""
        _, prompts, decoding, _, cached, _, longest = batch
        if prompts or not decoding:
            return self._mixed_ns(batch)
        cost = self._costs.get(decoding) or self.decode_cost(decoding)
        return cost(cached, longest)

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray:
        """What the batches of `decode_run` take, ns, shape (count,): bit for bit what `step_ns` says of each."""
        cost = self.decode_cost(batch.num_decode_seqs)
        return cost.run(batch.num_decode_seqs, batch.kv_tokens_decode, batch.max_kv_decode, count)

    def decode_cost(self, decoding: int) -> DecodeCost:
        """What so many decoding sequences take; made once and kept."""
        if decoding not in self._costs:
            self._costs[decoding] = self._decode_cost(decoding)
        return self._costs[decoding]
