"""The tables of a profiling bundle; those in Vidur's own columns are readable by Vidur."""

import pyarrow as pa

from gpu_simulate_test.io.table_files import BOOL, FLOAT, INT, STR, Table, column
from gpu_simulate_test.io.tables import COMPOSITION_COLUMNS

_TIMES = column(
    "time_stats.<operator>.<statistic>",
    FLOAT,
    "**milliseconds**, one layer; the statistic is `median`, `min`, `max`, `mean` or `std` of the repeats",
)
_TENSOR_PARALLEL = column("num_tensor_parallel_workers", INT, "1: all tables are of one worker")
_KV_HEADS = column("n_kv_head", INT, "key and value heads")
_HIDDEN = column("n_embd", INT, "hidden size")
_OP = column("op", STR, "what the kernel does, as the profile's source names it")
_MEDIAN = column("median_ms", FLOAT, "what it takes, **milliseconds**")
_CHUNK = column("prefill_chunk_size", INT, "prompt tokens; 0: none")
_CALLS = column("calls", INT, "how often it runs in an iteration; once where it is not said")
_SOURCE = column("source", STR, "of a database's figure: `measured`, `interpolated` or `estimated`")
_DECODING = column("batch_size", INT, "requests that decode")

MLP = Table(
    "mlp",
    "Vidur's columns. The operators are `input_layernorm`, `attn_pre_proj` (with the query and key norms), "
    "`attn_rope`, `attn_post_proj`, `post_attention_layernorm`, `mlp_up_proj` (gate and up), `mlp_act`, "
    "`mlp_down_proj`, `add` (both additions of a block); of several GPUs `all_reduces` (both of a layer). A recorded "
    "profile has `num_tokens` and medians only.",
    "vidur-profile",
    pa.schema(
        [
            column("n_head", INT, "query heads"),
            _KV_HEADS,
            _HIDDEN,
            column("n_expanded_embd", INT, "intermediate size"),
            column("vocab_size", INT, "tokens in the vocabulary"),
            column("use_gated_mlp", BOOL, "whether there is a gate beside the up projection"),
            column("num_tokens", INT, "tokens in the batch"),
            _TENSOR_PARALLEL,
        ]
    ),
    optional=frozenset(
        {
            "n_head",
            "n_kv_head",
            "n_embd",
            "n_expanded_embd",
            "vocab_size",
            "use_gated_mlp",
            "num_tensor_parallel_workers",
        }
    ),
    family=_TIMES,
)
ATTENTION = Table(
    "attention",
    "Vidur's columns. The operators are `attn_prefill`, `attn_decode`, `attn_kv_cache_save`. A row measures prefill or "
    "decode; the times of the other are 0, as in Vidur's own tables. A recorded profile has `batch_size`, "
    "`prefill_chunk_size`, `kv_cache_size` and medians only.",
    "vidur-profile",
    pa.schema(
        [
            _HIDDEN,
            column("n_q_head", INT, "query heads"),
            _KV_HEADS,
            column("block_size", INT, "tokens in a block of the KV cache"),
            _TENSOR_PARALLEL,
            column("max_model_len", INT, "tokens of one request"),
            column("batch_size", INT, "requests in the batch"),
            column("prefill_chunk_size", INT, "prompt tokens; 0: decode"),
            column("kv_cache_size", INT, "cached tokens of each request"),
            column("is_prefill", BOOL, "whether `prefill_chunk_size` is not 0"),
        ]
    ),
    optional=frozenset(
        {
            "n_embd",
            "n_q_head",
            "n_kv_head",
            "block_size",
            "num_tensor_parallel_workers",
            "max_model_len",
            "is_prefill",
        }
    ),
    family=_TIMES,
)
ITERATION = Table(
    "iteration",
    "Whole engine steps, measured on the engine; times are scaled to the mean speed of the machine.",
    "vidur-profile",
    pa.schema(
        [
            *COMPOSITION_COLUMNS,
            column("repeats", INT, "times measured"),
            column("median_ns", INT, "of the repeats"),
            column("p10_ns", INT, "of the repeats"),
            column("p90_ns", INT, "of the repeats"),
        ]
    ),
)
NOISE = Table(
    "noise",
    "Every measured iteration in order of time. Where there is `iteration.csv`.",
    "vidur-profile",
    pa.schema(
        [
            column("time_ns", INT, "start, since that of the first"),
            column("ratio", FLOAT, "of its time, not scaled, to the predicted one"),
        ]
    ),
)
KERNELS = {
    "per_token": Table(
        "kernels_per_token",
        "What runs by the tokens in the batch: embedding, last norm; of an operator database and of a mixture of "
        "experts, all but attention and LM head.",
        "vidur-profile",
        pa.schema([_OP, column("num_tokens", INT, "tokens in the batch"), _MEDIAN, _CALLS, _SOURCE]),
        optional=frozenset({"calls", "source"}),
    ),
    "per_sequence": Table(
        "kernels_per_sequence",
        "What runs once an iteration, by the requests in the batch: LM head, sampler.",
        "vidur-profile",
        pa.schema([_OP, column("num_seqs", INT, "requests in the batch"), _MEDIAN, _CALLS, _SOURCE]),
        optional=frozenset({"calls", "source"}),
    ),
    "attention": Table(
        "kernels_attention",
        "Attention of one layer, prompts and decoding in one launch; without rows of both, each in its own.",
        "vidur-profile",
        pa.schema(
            [
                _CHUNK,
                column("prefill_kv", INT, "cached tokens that the prompt attends to"),
                _DECODING,
                column("decode_kv", INT, "cached tokens of each request that decodes"),
                _MEDIAN,
                _SOURCE,
            ]
        ),
        optional=frozenset({"source"}),
    ),
    "skew": Table(
        "kernels_skew",
        "Attention of one layer with unequal contexts. No rows where it was not measured.",
        "vidur-profile",
        pa.schema(
            [
                _CHUNK,
                _DECODING,
                column("skewed_ms", FLOAT, "**milliseconds**, with unequal contexts"),
                column("mean_ms", FLOAT, "**milliseconds**, with all contexts at their mean"),
                column("longest_ms", FLOAT, "**milliseconds**, with all contexts at the longest"),
            ]
        ),
    ),
}
