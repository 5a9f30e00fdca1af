"""An iteration as the sum of the kernels it launches, for profiles of kernels that somebody else measured.

Beyond Vidur's operators such a profile knows three things: what runs once an iteration (embedding, LM head,
sampler), attention of prompts and decoding sequences in one launch, and attention of unequal contexts.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.latency.decoding import DecodeCost, DecodingModel
from gpu_simulate_test.latency.grid import Axis, Grid, Line, Surface
from gpu_simulate_test.latency.model import Pipelined
from gpu_simulate_test.latency.operators import OperatorModel, largest_batch


@dataclass(frozen=True)
class Kernels:
    """Kernel tables beside a bundle's operators; times in ms.

    Attributes
    ----------
    per_token, per_sequence : pandas.DataFrame
        ``op``, ``num_tokens`` or ``num_seqs``, ``median_ms`` of one call, and ``calls`` an iteration; once without it.
    attention : pandas.DataFrame
        ``prefill_chunk_size``, ``prefill_kv``, ``batch_size`` (decoding), ``decode_kv``, ``median_ms``: one layer.
        Without rows of both kinds in one launch, each has its own.
    skew : pandas.DataFrame
        ``prefill_chunk_size``, ``batch_size``, and one layer's attention with unequal decode contexts,
        ``skewed_ms``, with all of them at the mean, ``mean_ms``, and with all at the longest, ``longest_ms``.
        No rows where nobody measured it.
    """

    per_token: pd.DataFrame
    per_sequence: pd.DataFrame
    attention: pd.DataFrame
    skew: pd.DataFrame

    def stage(self, number: int, stages: int, num_layers: int) -> "Kernels":
        """Those of one of several pipeline stages, which have as many layers each.

        Beside its layers, the first has the embedding, the last the LM head, and each but the last sends to the next.

        Raises
        ------
        ConfigError
            A kernel runs in some of the layers only, so the stages are not alike.
        """

        def share(op: str, calls: int) -> int:
            if calls % num_layers == 0:
                return calls // stages
            if op == "p2p":
                return int(number < stages - 1)
            if op.startswith("embedding"):
                return calls if number == 0 else 0
            raise ConfigError(
                f"limits.pipeline_parallel={stages}: {op} runs {calls} times in {num_layers} layers, which are not "
                "alike; set it to 1"
            )

        calls = [share(op, calls) for op, calls in zip(self.per_token["op"], self.per_token["calls"], strict=True)]
        last = self.per_sequence["calls"] * (number == stages - 1)
        return replace(
            self, per_token=self.per_token.assign(calls=calls), per_sequence=self.per_sequence.assign(calls=last)
        )


def pipeline(kernels: Kernels, stages: int, num_layers: int) -> Pipelined:
    """What a batch takes in each stage of a pipeline; errors as of `Kernels.stage`."""
    parts = (kernels.stage(number, stages, num_layers) for number in range(stages))
    return Pipelined([KernelModel(None, part, num_layers // stages) for part in parts])


class KernelModel(DecodingModel):
    """Whole-iteration time, from kernels.

    The host's own work between kernels is not part of it: an engine that schedules the next iteration while
    the device works hides it.
    """

    def __init__(self, operators: OperatorModel | None, kernels: Kernels, num_layers: int) -> None:
        super().__init__()
        per_token = Grid(_summed(kernels.per_token, "num_tokens"), ["num_tokens"], "median_ms")
        per_sequence = Grid(_summed(kernels.per_sequence, "num_seqs"), ["num_seqs"], "median_ms")
        compute = [] if operators is None else [operators.compute]
        self._tokens = Line.sum(*compute, per_token.line().of(factor=1e6))
        self._sequences = per_sequence.line().of(factor=1e6)
        self._attention = _Attention(kernels, 1e6 * num_layers)
        self._high = per_token.high[0], per_sequence.high[0], *self._attention.high

    def high(self) -> dict[str, float]:
        """The largest batch that the tables cover, by quantity."""
        return largest_batch(*self._high)

    def _mixed_ns(self, batch: Composition) -> float:
        tokens, prompts, decoding, _, cached_decoding, _, longest = batch
        once = self._tokens(tokens + decoding) + self._sequences(prompts + decoding)
        chunk, cached = _one_chunk(batch)
        if not decoding:
            return once + self._attention.prefill(chunk, cached)
        return once + self._attention.mixed(decoding)(chunk, cached, cached_decoding / decoding, longest)

    def _decode_cost(self, decoding: int) -> DecodeCost:
        once = Line.constant(self._tokens(decoding) + self._sequences(decoding))
        of_mean, of_longest = self._attention.decode(decoding)
        return DecodeCost(Line.sum(once, of_mean.of(1 / decoding)), of_longest)


def _summed(table: pd.DataFrame, size: str) -> pd.DataFrame:
    """All kernels of an iteration, one row a size."""
    if "calls" in table:
        table = table.assign(median_ms=table["median_ms"] * table["calls"])
    wide = table.pivot_table(index=size, columns="op", values="median_ms").interpolate(method="index")
    return wide.sum(axis=1).rename("median_ms").reset_index()


def _one_chunk(batch: Composition) -> tuple[float, float]:
    """The single prompt chunk, and its cached tokens, with as many queries and causal query-key pairs as all chunks."""
    queries, prompts = batch.num_prefill_tokens, batch.num_prefill_seqs
    if not prompts:
        return 0.0, 0.0
    if prompts == 1:
        return queries, batch.kv_tokens_prefill
    # Sum of q^2; exact for one chunk, and with cached tokens in the first of several at most a little off.
    squares = batch.prefill_pairs - queries * batch.kv_tokens_prefill / prompts
    squares = min(max(squares, queries**2 / prompts), float(queries**2))
    pairs = batch.prefill_pairs - squares / 2
    cached = pairs / queries - queries / 2
    return (float(queries), cached) if cached >= 0 else (sqrt(2 * pairs), 0.0)


class _Attention:
    """All layers' attention over (prompt chunk, its cached tokens, decoding sequences, their contexts), ns.

    Unequal contexts are a `_Skew`'s share of the way from the time at their mean to that at the longest.
    """

    def __init__(self, kernels: Kernels, factor: float) -> None:
        table = kernels.attention
        chunk, batch = table["prefill_chunk_size"] > 0, table["batch_size"] > 0
        axes = ["prefill_chunk_size", "prefill_kv", "batch_size", "decode_kv"]
        prompts = Grid(table[chunk & ~batch], axes[:2], "median_ms")
        self.prefill = Surface(prompts, factor)
        self._decode = Grid(table[~chunk & batch], axes[2:], "median_ms")
        self._mixed: Grid | None = None
        self.high = *prompts.high, *self._decode.high
        if (chunk & batch).any():
            mixed = Grid(table[chunk & batch], axes, "median_ms")
            self.high = mixed.high
            self._mixed = mixed.axis_first(2)
            self._axes = tuple(Axis(level) for level in self._mixed.levels[1:])
        self._skew = _Skew(kernels.skew)
        self._factor = factor
        self._of_decoding: dict[int, Callable[[float, float, float, float], float]] = {}

    def decode(self, decoding: int) -> tuple[Line, Line | None]:
        """Of decoding sequences alone, by their mean context and, to be added, by the longest."""
        line, share = self._decode.line(decoding), self._skew.alone(decoding)
        return line.of(factor=(1 - share) * self._factor), line.of(factor=share * self._factor) if share else None

    def mixed(self, decoding: int) -> Callable[[float, float, float, float], float]:
        """Of so many decoding sequences and a prompt chunk; made once and kept."""
        found = self._of_decoding.get(decoding)
        if found is None and self._mixed is None:
            found = self._of_decoding[decoding] = _Apart(self.prefill, *self.decode(decoding))
        elif found is None:
            assert self._mixed is not None
            values = self._mixed.fixed(decoding) * self._factor
            found = self._of_decoding[decoding] = _Mixed(values, self._axes, self._skew.beside_chunk(decoding))
        return found


class _Apart:
    """Attention over a prompt chunk, and over decoding sequences in a launch of their own, ns."""

    def __init__(self, prefill: Surface, of_mean: Line, of_longest: Line | None) -> None:
        self._prefill, self._of_mean, self._of_longest = prefill, of_mean, of_longest

    def __call__(self, chunk: float, cached: float, mean: float, longest: float) -> float:
        time = self._prefill(chunk, cached) + self._of_mean(mean)
        return time + self._of_longest(longest) if self._of_longest is not None else time


class _Mixed:
    """Attention over a prompt chunk, its cached tokens, and the mean and the longest context beside it, ns."""

    def __init__(self, values: np.ndarray, axes: Sequence[Axis], share: Line) -> None:
        self._values = array("d", values.tobytes())  # a list would be no faster, and four times as large
        self._per_chunk, self._per_cached = values.shape[1] * values.shape[2], values.shape[2]
        self._chunk, self._cached, self._context = axes
        self._share = share

    def __call__(self, chunk: float, cached: float, mean: float, longest: float) -> float:
        share = self._share(log(chunk) if chunk > 1 else 0.0)
        i, part = self._context(mean)
        b = (1 - share) * part
        a = 1 - share - b
        j, part = self._context(longest)
        d = share * part
        c = share - d
        row, of_chunk = self._chunk(chunk)
        column, of_cached = self._cached(cached)
        values, near = self._values, row * self._per_chunk + column * self._per_cached
        far = near + self._per_chunk
        low = _weighted(values, near + i, a, b, near + j, c, d)
        high = _weighted(values, far + i, a, b, far + j, c, d)
        if of_cached:  # else the chunk is its prompt's first, as most are
            near, far = near + self._per_cached, far + self._per_cached
            low += of_cached * (_weighted(values, near + i, a, b, near + j, c, d) - low)
            high += of_cached * (_weighted(values, far + i, a, b, far + j, c, d) - high)
        return low + of_chunk * (high - low)


def _weighted(values: Sequence[float], i: int, a: float, b: float, j: int, c: float, d: float) -> float:
    """Two neighbours from `i` on and two from `j` on, by their weights."""
    return a * values[i] + b * values[i + 1] + c * values[j] + d * values[j + 1]


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
        self._mixed = Grid(sums[~pure], ["log_chunk", "log_batch"], "slope", monotone=False).axis_first(1)

    def alone(self, decoding: int) -> float:
        """The share of so many decoding sequences."""
        return self._pure(min(log(decoding), self._pure.high[0])) if self._known else 0.0

    def beside_chunk(self, decoding: int) -> Line:
        """The share, by the logarithm of a prompt chunk's length; beyond the longest measured it stays."""
        if not self._known:
            return Line.constant(0.0)
        line = self._mixed.line(min(log(decoding), self._pure.high[0]))
        values, slopes = np.array(line.values[1:]), np.array(line.slopes[1:])
        slopes[-1] = 0.0
        return Line(np.array(line.knots), values, slopes)
