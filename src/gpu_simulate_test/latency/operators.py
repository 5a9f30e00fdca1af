"""A batch as Vidur's operators have it: all layers, looked up in operator tables."""

import pandas as pd

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.decoding import DecodeCost, DecodingModel
from gpu_simulate_test.latency.grid import Grid, Line, Surface

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


class OperatorModel(DecodingModel):
    """What Vidur's operators say a batch takes: all layers, nothing else.

    The sum is Vidur's own (its ``ExecutionTime.model_time``): the KV-cache save is measured but not
    added. Sequences are looked up at their mean length and context, as Vidur does for decoding ones.

    Parameters
    ----------
    mlp, attention : pandas.DataFrame
        Vidur's tables, ``mlp.csv`` and ``attention.csv``, ms a layer.
    num_layers : int

    Attributes
    ----------
    compute : Line
        Everything but attention, of all layers, ns, by tokens.
    """

    def __init__(self, mlp: pd.DataFrame, attention: pd.DataFrame, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        self._factor = 1e6 * num_layers
        per_layer = mlp[[f"time_stats.{op}.median" for op in COMPUTE_OPS]].sum(axis=1)
        self.compute = Grid(mlp.assign(per_layer=per_layer), ["num_tokens"], "per_layer").line().of(factor=self._factor)
        is_decode = attention["prefill_chunk_size"] == 0
        prefill, decode = attention[~is_decode], attention[is_decode]
        lengths = ["prefill_chunk_size", "kv_cache_size"]
        self._prefill = Surface(Grid(prefill, lengths, "time_stats.attn_prefill.median"), self._factor)
        self._decode = Grid(decode, ["batch_size", "kv_cache_size"], "time_stats.attn_decode.median")
        self._of_decoding: dict[int, Line] = {}

    def attention_ns(self, batch: Composition) -> float:
        """Attention of a batch, all layers, ns."""
        tokens, prompts, decoding, cached, cached_decoding, _, _ = batch
        time = prompts * self._prefill(tokens / prompts, cached / prompts) if prompts else 0.0
        return time + self.decode_attention(decoding)(cached_decoding) if decoding else time

    def decode_attention(self, decoding: int) -> Line:
        """Attention of so many decoding sequences, all layers, ns, by the cached tokens of all of them."""
        line = self._of_decoding.get(decoding)
        if line is None:
            line = self._decode.line(decoding).of(1 / decoding, factor=self._factor)
            self._of_decoding[decoding] = line
        return line

    def _mixed_ns(self, batch: Composition) -> float:
        return self.compute(batch.num_prefill_tokens + batch.num_decode_seqs) + self.attention_ns(batch)

    def _decode_cost(self, decoding: int) -> DecodeCost:
        return DecodeCost(Line.sum(Line.constant(self.compute(decoding)), self.decode_attention(decoding)))
