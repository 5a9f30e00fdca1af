"""Operator tables: measuring them, and looking a batch's operators up in them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import ModelConfig
from gpu_simulate_test.engine import Composition, Operators
from gpu_simulate_test.vidur_ext.grid import Grid

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
        per_layer = mlp[[f"time_stats.{op}.median" for op in COMPUTE_OPS]].sum(axis=1)
        self._compute = Grid(mlp.assign(per_layer=per_layer), ["num_tokens"], "per_layer")
        self.num_layers = num_layers
        is_decode = attention["prefill_chunk_size"] == 0
        prefill, decode = attention[~is_decode], attention[is_decode]
        self._prefill = Grid(prefill, ["prefill_chunk_size", "kv_cache_size"], "time_stats.attn_prefill.median")
        self._decode = Grid(decode, ["batch_size", "kv_cache_size"], "time_stats.attn_decode.median")

    def compute_ms(self, num_tokens: int) -> float:
        """Everything but attention of one layer, ms."""
        return self._compute(num_tokens)

    def predict_ns(self, batch: Composition) -> float:
        """Predicted time of a batch, nanoseconds."""
        milliseconds = self.compute_ms(batch.num_prefill_tokens + batch.num_decode_seqs)
        if prompts := batch.num_prefill_seqs:
            chunk, cached = batch.num_prefill_tokens / prompts, batch.kv_tokens_prefill / prompts
            milliseconds += prompts * self._prefill(chunk, cached)
        if decoding := batch.num_decode_seqs:
            milliseconds += self._decode(decoding, batch.kv_tokens_decode / decoding)
        return milliseconds * self.num_layers * 1e6
