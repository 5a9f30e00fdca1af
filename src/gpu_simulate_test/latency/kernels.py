"""An iteration as the sum of the kernels it launches, for profiles of kernels that somebody else measured.

Beyond Vidur's operators such a profile knows three things: what runs once an iteration (embedding, LM head,
sampler), attention of prompts and decoding sequences in one launch, and attention of unequal contexts.
"""

from dataclasses import dataclass
from math import log

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.grid import Grid
from gpu_simulate_test.latency.model import decode_run
from gpu_simulate_test.latency.operators import OperatorModel


@dataclass(frozen=True)
class Kernels:
    """Kernel tables beside a bundle's operators; times in ms.

    Attributes
    ----------
    per_token, per_sequence : pandas.DataFrame
        ``op``, ``num_tokens`` or ``num_seqs``, ``median_ms``: what runs once an iteration.
    attention : pandas.DataFrame
        ``prefill_chunk_size``, ``prefill_kv``, ``batch_size`` (decoding), ``decode_kv``, ``median_ms``: one layer.
    skew : pandas.DataFrame
        ``prefill_chunk_size``, ``batch_size``, and one layer's attention with unequal decode contexts,
        ``skewed_ms``, with all of them at the mean, ``mean_ms``, and with all at the longest, ``longest_ms``.
        No rows where nobody measured it.
    """

    per_token: pd.DataFrame
    per_sequence: pd.DataFrame
    attention: pd.DataFrame
    skew: pd.DataFrame


class KernelModel:
    """Whole-iteration time, from kernels.

    The host's own work between kernels is not part of it: an engine that schedules the next iteration while
    the device works hides it.
    """

    def __init__(self, operators: OperatorModel, kernels: Kernels) -> None:
        self._operators = operators
        self._per_token = Grid(_summed(kernels.per_token, "num_tokens"), ["num_tokens"], "median_ms")
        self._per_sequence = Grid(_summed(kernels.per_sequence, "num_seqs"), ["num_seqs"], "median_ms")
        self._attention = _Attention(kernels.attention)
        self._skew = _Skew(kernels.skew)

    def high(self) -> dict[str, float]:
        """The largest batch that the tables cover, by quantity."""
        tokens, seqs = self._per_token.high[0], self._per_sequence.high[0]
        chunk, kv = self._attention.mixed.high[0], self._attention.mixed.high[1]
        batch, context = self._attention.mixed.high[2:]
        return {
            "num_prefill_tokens": min(tokens, chunk),
            "num_prefill_seqs": seqs,
            "num_decode_seqs": min(seqs, batch),
            "kv_tokens_prefill": kv,
            "kv_tokens_decode": batch * context,
            "prefill_pairs": chunk * (chunk + kv),
            "max_kv_decode": context,
        }

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns, at any time."""
        tokens = batch.num_prefill_tokens + batch.num_decode_seqs
        layer = self._operators.compute_ms(tokens) + self._attention_ms(batch)
        once = self._per_token(tokens) + self._per_sequence(batch.num_prefill_seqs + batch.num_decode_seqs)
        return 1e6 * (self._operators.num_layers * layer + once)

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray:
        """What the batches of `decode_run` take, ns, shape (count,)."""
        return np.array([self.step_ns(one, 0.0) for one in decode_run(batch, count)])

    def _attention_ms(self, batch: Composition) -> float:
        chunk, cached = _one_chunk(batch)
        decoding = batch.num_decode_seqs
        if not decoding:
            return self._attention(chunk, cached, 0, 0)
        equal = self._attention(chunk, cached, decoding, batch.kv_tokens_decode / decoding)
        longest = self._attention(chunk, cached, decoding, batch.max_kv_decode)
        return equal + self._skew(chunk, decoding) * (longest - equal)


def _summed(table: pd.DataFrame, size: str) -> pd.DataFrame:
    """All kernels that run once, one row a size."""
    wide = table.pivot_table(index=size, columns="op", values="median_ms").interpolate(method="index")
    return wide.sum(axis=1).rename("median_ms").reset_index()


def _one_chunk(batch: Composition) -> tuple[float, float]:
    """The single prompt chunk, and its cached tokens, with as many queries and causal query-key pairs as all chunks."""
    queries, prompts = batch.num_prefill_tokens, batch.num_prefill_seqs
    if not prompts:
        return 0.0, 0.0
    # Sum of q^2; exact for one chunk, and with cached tokens in the first of several at most a little off.
    squares = batch.prefill_pairs - queries * batch.kv_tokens_prefill / prompts
    squares = min(max(squares, queries**2 / prompts), float(queries**2))
    pairs = batch.prefill_pairs - squares / 2
    cached = pairs / queries - queries / 2
    return (float(queries), cached) if cached >= 0 else (float(np.sqrt(2 * pairs)), 0.0)


class _Attention:
    """One layer's attention over (prompt chunk, its cached tokens, decoding sequences, their context), ms."""

    def __init__(self, table: pd.DataFrame) -> None:
        chunk, batch = table["prefill_chunk_size"] > 0, table["batch_size"] > 0
        axes = ["prefill_chunk_size", "prefill_kv", "batch_size", "decode_kv"]
        self.mixed = Grid(table[chunk & batch], axes, "median_ms")
        self._prefill = Grid(table[chunk & ~batch], axes[:2], "median_ms")
        self._decode = Grid(table[~chunk & batch], axes[2:], "median_ms")

    def __call__(self, chunk: float, cached: float, decoding: float, context: float) -> float:
        if not decoding:
            return self._prefill(chunk, cached)
        return self.mixed(chunk, cached, decoding, context) if chunk else self._decode(decoding, context)


class _Skew:
    """How far attention over unequal contexts goes from the time at their mean (0) to that at the longest (1).

    Per prompt chunk and batch size the slope of ``skewed - mean`` over ``longest - mean`` (least squares through
    the origin, relative errors weighing alike), between them linear in the logarithms of both.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._known = not table.empty
        if table.empty:
            return
        weight = table["mean_ms"] ** -2.0
        span, excess = table["longest_ms"] - table["mean_ms"], table["skewed_ms"] - table["mean_ms"]
        sums = table.assign(xy=weight * span * excess, xx=weight * span**2)
        sums = sums.groupby(["prefill_chunk_size", "batch_size"], as_index=False)[["xy", "xx"]].sum()
        sums["slope"] = (sums["xy"] / sums["xx"]).clip(0, 1)
        sums["log_chunk"] = np.log(sums["prefill_chunk_size"].clip(lower=1))
        sums["log_batch"] = np.log(sums["batch_size"])
        pure = sums["prefill_chunk_size"] == 0
        self._pure = Grid(sums[pure], ["log_batch"], "slope", monotone=False)
        self._mixed = Grid(sums[~pure], ["log_chunk", "log_batch"], "slope", monotone=False)

    def __call__(self, chunk: float, decoding: float) -> float:
        if not self._known:
            return 0.0
        log_batch = min(log(decoding), self._pure.high[0])
        if not chunk:
            return self._pure(log_batch)
        return self._mixed(min(log(max(chunk, 1)), self._mixed.high[0]), log_batch)
