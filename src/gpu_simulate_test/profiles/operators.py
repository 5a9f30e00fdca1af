"""Measuring an engine's operators, and the tables that Vidur has of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import ModelConfig
from gpu_simulate_test.engine import Operators
from gpu_simulate_test.latency.operators import COMPUTE_OPS

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
