"""A batch as Vidur's operators have it: all layers, looked up in operator tables."""

import pandas as pd

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.decoding import DecodeCost, DecodingModel
from gpu_simulate_test.latency.grid import Grid, Line, Surface
from gpu_simulate_test.latency.model import Pipelined

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
ALL_REDUCES, SEND = "all_reduces", "send_recv"  # of a layer, and to the next stage; columns of several GPUs alone


def times_of(op: str) -> str:
    """The column of an operator's times, ms."""
    return f"time_stats.{op}.median"


def largest_batch(
    tokens: float, seqs: float, chunk: float, kv: float, batch: float, context: float
) -> dict[str, float]:
    """The largest batch, by quantity, of tables that end at these tokens, sequences, prompts and decoding sequences.

    Parameters
    ----------
    tokens, seqs : float
        Of a batch.
    chunk, kv : float
        Tokens of a prompt chunk, and before it.
    batch, context : float
        Decoding sequences, and cached tokens of one.
    """
    return {
        "num_prefill_tokens": min(tokens, chunk),
        "num_prefill_seqs": seqs,
        "num_decode_seqs": min(seqs, batch),
        "kv_tokens_prefill": kv,
        "kv_tokens_decode": batch * context,
        "prefill_pairs": chunk * (chunk + kv),
        "max_kv_decode": context,
    }


class OperatorModel(DecodingModel):
    """What Vidur's operators say a batch takes: all layers, nothing else.

    The sum is Vidur's own (its ``ExecutionTime.model_time``): the KV-cache save is measured but not
    added; a collective takes what was measured, without the 20 us that Vidur has the host take for its launch.
    Sequences are looked up at their mean length and context, as Vidur does for decoding ones.

    Parameters
    ----------
    mlp, attention : pandas.DataFrame
        Vidur's tables, ``mlp.csv`` and ``attention.csv``, ms a layer.
    num_layers : int
    sends : bool
        To the next stage of a pipeline.

    Attributes
    ----------
    compute : Line
        Everything but attention, of all layers, ns, by tokens.
    """

    def __init__(self, mlp: pd.DataFrame, attention: pd.DataFrame, num_layers: int, *, sends: bool = False) -> None:
        super().__init__()
        self.num_layers = num_layers
        self._factor = 1e6 * num_layers
        columns = [*map(times_of, COMPUTE_OPS), *({times_of(ALL_REDUCES)} & set(mlp))]
        compute = Grid(mlp.assign(per_layer=mlp[columns].sum(axis=1)), ["num_tokens"], "per_layer")
        self.compute = compute.line().of(factor=self._factor)
        if sends:
            self.compute = Line.sum(self.compute, Grid(mlp, ["num_tokens"], times_of(SEND)).line().of(factor=1e6))
        is_decode = attention["prefill_chunk_size"] == 0
        prefill, decode = attention[~is_decode], attention[is_decode]
        lengths = ["prefill_chunk_size", "kv_cache_size"]
        prompts = Grid(_with_gaps_filled(prefill, *lengths), lengths, times_of("attn_prefill"))
        self._prefill = Surface(prompts, self._factor)
        self._decode = Grid(decode, ["batch_size", "kv_cache_size"], "time_stats.attn_decode.median")
        self._high = compute.high[0], *prompts.high, *self._decode.high
        self._of_decoding: dict[int, Line] = {}

    def high(self) -> dict[str, float]:
        """The largest batch that the tables cover, by quantity."""
        tokens, chunk, kv, batch, context = self._high
        return largest_batch(tokens, tokens, chunk, kv, batch, context)

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


def _with_gaps_filled(prefill: pd.DataFrame, chunk: str, cached: str) -> pd.DataFrame:
    """Where each chunk was measured after multiples of itself alone: between these, and then between chunks, a line."""
    times = times_of("attn_prefill")
    wide = prefill.pivot_table(index=chunk, columns=cached, values=times, aggfunc="median")
    for axis in (1, 0):
        wide = wide.interpolate(axis=axis, method="index", limit_area="inside")
    return wide.melt(ignore_index=False, value_name=times).dropna().reset_index()


def operator_pipeline(mlp: pd.DataFrame, attention: pd.DataFrame, num_layers: int, stages: int) -> Pipelined:
    """Those of the stages of a pipeline, which have as many layers each, and all but the last send to the next."""
    share = num_layers // stages
    return Pipelined([OperatorModel(mlp, attention, share, sends=stage < stages - 1) for stage in range(stages)])
