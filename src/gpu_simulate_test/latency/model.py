"""The protocol: what an iteration costs, one batch at a time or a run of decode steps at once."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import COMPOSITION, Composition


class LatencyModel(Protocol):
    """Whatever knows how long a batch takes."""

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns.

        Parameters
        ----------
        batch : Composition
        now_ns : float
            The virtual time at which it begins; only `Noisy` looks at it.
        """

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray | None:
        """What the batches of `decode_run` take, bit for bit as `step_ns` would say in turn.

        Returns
        -------
        numpy.ndarray of shape (count,), float64, or None
            None: not known beforehand, for it depends on when each batch begins; ask `step_ns` one by one.
        """


def decode_run(batch: Composition, count: int) -> Iterator[Composition]:
    """`count` consecutive iterations of the same decoding sequences, of which `batch` is the first.

    Each of the sequences has one cached token more in every next one; nothing else changes.
    """
    decoding, cached, longest = batch.num_decode_seqs, batch.kv_tokens_decode, batch.max_kv_decode
    for number in range(count):
        yield batch._replace(kv_tokens_decode=cached + number * decoding, max_kv_decode=longest + number)


class Slowed:
    """A latency model on a machine `factor` times as slow as the one it was measured on."""

    def __init__(self, model: LatencyModel, factor: float) -> None:
        self._model = model
        self._factor = factor

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns."""
        return self._model.step_ns(batch, now_ns) * self._factor

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray | None:
        """What the batches of `decode_run` take, ns, shape (count,)."""
        times = self._model.decode_run_ns(batch, count)
        return None if times is None else times * self._factor


class Pipelined:
    """A latency model whose layers are shared among stages that a batch passes one after the other.

    Attributes
    ----------
    stages : sequence of LatencyModel
        What a batch takes in each.
    """

    def __init__(self, stages: Sequence[LatencyModel]) -> None:
        self.stages = stages

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes that waits for no other between two stages, ns."""
        return sum(stage.step_ns(batch, now_ns) for stage in self.stages)

    def decode_run_ns(self, batch: Composition, count: int) -> None:
        """None: when a batch begins depends on those before it in the pipeline."""


def stages_of(model: LatencyModel) -> Sequence[LatencyModel]:
    """What a batch takes in each stage of a pipeline; of a model without one, itself."""
    return model.stages if isinstance(model, Pipelined) else (model,)


def batches_of(table: pd.DataFrame) -> list[Composition]:
    """The batches of an iteration table."""
    return [Composition(*map(int, row)) for row in table[list(COMPOSITION)].itertuples(index=False, name=None)]
