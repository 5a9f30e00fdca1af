"""A batch as Vidur's operators have it: all layers, looked up in operator tables."""

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.grid import Grid
from gpu_simulate_test.latency.model import decode_run

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

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns, at any time."""
        milliseconds = self.compute_ms(batch.num_prefill_tokens + batch.num_decode_seqs)
        if prompts := batch.num_prefill_seqs:
            chunk, cached = batch.num_prefill_tokens / prompts, batch.kv_tokens_prefill / prompts
            milliseconds += prompts * self._prefill(chunk, cached)
        if decoding := batch.num_decode_seqs:
            milliseconds += self._decode(decoding, batch.kv_tokens_decode / decoding)
        return milliseconds * self.num_layers * 1e6

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray:
        """What the batches of `decode_run` take, ns, shape (count,)."""
        return np.array([self.step_ns(one, 0.0) for one in decode_run(batch, count)])
