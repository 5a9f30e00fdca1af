"""Operator tables: measuring them, and looking a batch's operators up in them."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import ModelConfig
from gpu_simulate_test.engine import Composition, Operators

COMPUTE_OPS = (
    "input_layernorm",
    "attn_pre_proj",
    "attn_rope",
    "attn_post_proj",
    "post_attention_layernorm",
    "mlp_up_proj",
    "mlp_act",
    "mlp_down_proj",
    "add",
)
_STATS: dict[str, Callable[[np.ndarray], float]] = {
    "median": lambda values: float(np.median(values)),
    "min": lambda values: float(values.min()),
    "max": lambda values: float(values.max()),
    "mean": lambda values: float(values.mean()),
    "std": lambda values: float(values.std()),
}


@dataclass(frozen=True)
class Reach:
    """How large batches can get: what the workload and the engine settings allow."""

    max_tokens: int  # tokens in one batch
    max_seqs: int  # requests in one batch
    max_context: int  # tokens of one request, prompt and output
    max_cached: int  # tokens in the KV cache


def powers_of_two(high: int, low: int = 1) -> list[int]:
    """`low`, its doublings below `high`, and `high`."""
    values = []
    while low < high:
        values.append(low)
        low *= 2
    return [*values, high]


@dataclass(frozen=True)
class _Point:
    table: str  # mlp | attention
    key: tuple[int, ...]  # (num_tokens,) | (batch_size, prefill_chunk_size, kv_cache_size)
    op: str
    make: Callable[[], Callable[[], object]]


def operator_points(operators: Operators, reach: Reach) -> list[_Point]:
    """Every operator at every size to be timed."""
    tokens = powers_of_two(reach.max_tokens)
    contexts = [0, *powers_of_two(reach.max_context, 64)]
    points = []
    for count in tokens:
        points += [_Point("mlp", (count,), op, partial(operators.compute, op, count)) for op in COMPUTE_OPS]
        save = partial(operators.kv_cache_save, count)
        for kv in contexts:
            key = (1, count, kv)
            points.append(_Point("attention", key, "attn_prefill", partial(operators.attention, 1, count, kv)))
            points.append(_Point("attention", key, "attn_kv_cache_save", save))
    for batch in powers_of_two(reach.max_seqs):
        save = partial(operators.kv_cache_save, batch)
        for kv in contexts[1:]:
            if batch * kv <= reach.max_cached:
                key = (batch, 0, kv)
                points.append(_Point("attention", key, "attn_decode", partial(operators.attention, batch, 1, kv)))
                points.append(_Point("attention", key, "attn_kv_cache_save", save))
    return points


def time_operators(points: Sequence[_Point], operators: Operators, repeats: int) -> Iterator[np.ndarray]:
    """Warmed-up timings of each point in turn, ms, shape (repeats,)."""
    for point in points:
        call = point.make()
        operators.time_ns(call)
        operators.time_ns(call)
        yield np.array([operators.time_ns(call) for _ in range(repeats)]) / 1e6


def operator_tables(
    points: Sequence[_Point], timings: Sequence[np.ndarray], model: ModelConfig, block_size: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``mlp.csv`` and ``attention.csv`` with Vidur's columns, times in ms.

    An attention row measures prefill or decode; the other's columns are 0, as in Vidur's own tables.
    """
    rows: dict[tuple[str, tuple[int, ...]], dict[str, float]] = {}
    for point, values in zip(points, timings, strict=True):
        row = rows.setdefault((point.table, point.key), {})
        row.update({f"time_stats.{point.op}.{name}": stat(values) for name, stat in _STATS.items()})
    mlp = [
        {
            "n_head": model.num_q_heads,
            "n_kv_head": model.num_kv_heads,
            "n_embd": model.hidden_size,
            "n_expanded_embd": model.intermediate_size,
            "vocab_size": model.vocab_size,
            "use_gated_mlp": True,
            "num_tokens": key[0],
            "num_tensor_parallel_workers": 1,
            **row,
        }
        for (table, key), row in rows.items()
        if table == "mlp"
    ]
    attention = [
        {
            "n_embd": model.hidden_size,
            "n_q_head": model.num_q_heads,
            "n_kv_head": model.num_kv_heads,
            "block_size": block_size,
            "num_tensor_parallel_workers": 1,
            "max_model_len": model.max_position_embeddings,
            "batch_size": key[0],
            "prefill_chunk_size": key[1],
            "kv_cache_size": key[2],
            "is_prefill": key[1] > 0,
            **row,
        }
        for (table, key), row in rows.items()
        if table == "attention"
    ]
    return pd.DataFrame(mlp), pd.DataFrame(attention).fillna(0.0)


class OperatorModel:
    """What Vidur's operators say a batch takes: all layers, nothing else.

    The sum is Vidur's own (its ``ExecutionTime.model_time``): the KV-cache save is measured but not
    added. Sequences are looked up at their mean length and context, as Vidur does for decoding ones.
    """

    def __init__(self, mlp: pd.DataFrame, attention: pd.DataFrame, num_layers: int) -> None:
        mlp = mlp.sort_values("num_tokens")
        self._tokens = mlp["num_tokens"].to_numpy(dtype=float)
        per_layer = sum(mlp[f"time_stats.{op}.median"].to_numpy(dtype=float) for op in COMPUTE_OPS)
        # More tokens never take less: noise between neighbouring points is smoothed away.
        self._compute_ms = np.maximum.accumulate(per_layer)
        self._num_layers = num_layers
        is_decode = attention["prefill_chunk_size"] == 0
        self._prefill = _Grid(attention[~is_decode], "prefill_chunk_size", "time_stats.attn_prefill.median")
        self._decode = _Grid(attention[is_decode], "batch_size", "time_stats.attn_decode.median")

    def predict_ns(self, batch: Composition) -> float:
        """Predicted time of a batch, nanoseconds."""
        tokens = batch.num_prefill_tokens + batch.num_decode_seqs
        milliseconds = float(np.interp(tokens, self._tokens, self._compute_ms))
        if prompts := batch.num_prefill_seqs:
            chunk, cached = batch.num_prefill_tokens / prompts, batch.kv_tokens_prefill / prompts
            milliseconds += prompts * self._prefill(chunk, cached)
        if decoding := batch.num_decode_seqs:
            milliseconds += self._decode(decoding, batch.kv_tokens_decode / decoding)
        return milliseconds * self._num_layers * 1e6


class _Grid:
    """Bilinear look-up over (size, context), monotone in both, clipped at the table's edges.

    Called once an iteration of a simulation, hence plain lists: for one point they are faster than arrays.
    """

    def __init__(self, frame: pd.DataFrame, size: str, column: str) -> None:
        # A large batch is not measured at contexts that do not fit the cache: the last one that does stands in.
        table = frame.pivot_table(index=size, columns="kv_cache_size", values=column).ffill(axis=1)
        values = np.maximum.accumulate(np.maximum.accumulate(table.to_numpy(), axis=0), axis=1)
        self._values: list[list[float]] = values.tolist()
        self._sizes, self._contexts = ([float(value) for value in axis] for axis in (table.index, table.columns))

    def __call__(self, size: float, context: float) -> float:
        row, row_part = _position(self._sizes, size)
        column, column_part = _position(self._contexts, context)
        low, high = self._values[row], self._values[min(row + 1, len(self._values) - 1)]
        right = min(column + 1, len(low) - 1)
        at_low = low[column] + column_part * (low[right] - low[column])
        at_high = high[column] + column_part * (high[right] - high[column])
        return at_low + row_part * (at_high - at_low)


def _position(axis: list[float], value: float) -> tuple[int, float]:
    """Index of the interval that holds `value`, and how far into it, clipped to the axis."""
    if value <= axis[0] or len(axis) == 1:
        return 0, 0.0
    index = min(bisect_right(axis, value) - 1, len(axis) - 2)
    return index, min(1.0, (value - axis[index]) / (axis[index + 1] - axis[index]))
