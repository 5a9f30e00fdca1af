"""The tables that pass between stages.

Times are integer nanoseconds relative to the run's start. A missing value is an empty field.
"""

import pandas as pd
import pyarrow as pa

from gpu_simulate_test.io.table_files import (
    BOOL,
    FLOAT,
    INT,
    STR,
    Table,
    column,
    find_table,
    read_arrow,
    read_table,
    write_both,
    write_table,
)

__all__ = ["Table", "find_table", "read_arrow", "read_table", "write_both", "write_table"]  # and the tables

TRACE_LENGTHS = Table(
    "trace_lengths",
    "One row a request. Always a CSV: its bytes are part of the workload's hash.",
    "workload-spec",
    pa.schema(
        [
            column("request_id", INT, "0 to N-1, in order; request i has line i of `prompts.jsonl`"),
            column("prompt_id", STR, "as there"),
            column("num_prefill_tokens", INT, "prompt tokens, >= 1"),
            column("num_decode_tokens", INT, "output tokens asked for, >= 1"),
        ]
    ),
)
TRACE_INTERVALS = Table(
    "trace_intervals",
    "One row a request. Always a CSV, as `trace_lengths.csv`.",
    "workload-spec",
    pa.schema(
        [
            column("request_id", INT, "0 to N-1, in order"),
            column("inter_arrival_ns", INT, "gap before this request, >= 0; 0 for the first", null=True),
            column("arrival_time_ns", INT, "sum of the gaps so far; empty where it is not known beforehand", null=True),
            column(
                "follows_request_id",
                INT,
                "the earlier request at whose end it is sent; empty and without an arrival: when one ends that nobody "
                "follows, in order",
                null=True,
            ),
            column("delay_ns", INT, "from that end until it is sent: the think time", null=True),
        ]
    ),
    optional=frozenset({"follows_request_id", "delay_ns"}),
)
REQUEST_METRICS = Table(
    "request_metrics",
    "One row for every request, real and simulated alike.",
    "real-bench or vidur-sim",
    pa.schema(
        [
            column("request_id", INT, "joins the workload and the token metrics"),
            column(
                "arrival_time_ns", INT, "when it was sent: as the workload says, or at the end of another and its delay"
            ),
            column("submit_time_ns", INT, "when the engine was handed the request; simulated: the arrival", null=True),
            column("first_scheduled_time_ns", INT, "start of the first iteration that held it", null=True),
            column("first_token_time_ns", INT, "end of the iteration that made its first output token", null=True),
            column("ttft_ns", INT, "`first_token_time_ns` - `arrival_time_ns`", null=True),
            column("completion_time_ns", INT, "end of the iteration that made its last output token", null=True),
            column("num_prefill_tokens", INT, "prompt tokens"),
            column("num_decode_tokens", INT, "output tokens asked for"),
            column("num_decode_tokens_actual", INT, "as made: fewer after an early stop or a failure"),
            column("num_preemptions", INT, "times its cache was taken away", null=True),
            column(
                "num_cached_tokens", INT, "prompt tokens found in the KV cache when it was first taken up", null=True
            ),
            column("status", STR, "`ok` or `error`"),
            column("error_type", STR, "of a failed request: the kind of failure; else empty", null=True),
            column("error_msg", STR, "of a failed request: what went wrong; else empty", null=True),
            column("is_warmup", BOOL, "`true`: kept out of every statistic. Our own runs write no warm-up rows"),
            column("backend", STR, "what served: the engine's name, `recorded`, or `vidur`"),
            column("replica", INT, "which replica served it, from 0; only where there are several"),
        ]
    ),
    optional=frozenset(
        {
            "replica",
            "submit_time_ns",
            "first_scheduled_time_ns",
            "completion_time_ns",
            "num_preemptions",
            "num_cached_tokens",
            "error_type",
            "error_msg",
            "is_warmup",
            "backend",
        }
    ),
    large=True,
)
REQUEST_COLUMNS = tuple(name for name in REQUEST_METRICS.columns if name != "replica")  # of a single engine
TOKEN_METRICS = Table(
    "token_metrics",
    "One row for every output token of an `ok` request.",
    "real-bench or vidur-sim",
    pa.schema(
        [
            column("request_id", INT, "joins the request metrics"),
            column("token_index", INT, "from 0, without gaps"),
            column("token_time_ns", INT, "end of the iteration that made it; never decreasing within a request"),
            column("token_latency_ns", INT, "since the previous token; empty at token_index 0", null=True),
            column("token_id", INT, "in the vocabulary; real runs only", null=True),
            column("iteration_id", INT, "the iteration that made it", null=True),
        ]
    ),
    optional=frozenset({"token_id", "iteration_id"}),
    large=True,
)
# What an iteration's time depends on.
COMPOSITION_COLUMNS = (
    column("num_prefill_tokens", INT, "prompt tokens processed"),
    column("num_prefill_seqs", INT, "requests whose prompt was processed, a last chunk included"),
    column("num_decode_seqs", INT, "requests that decoded, one token each"),
    column("kv_tokens_prefill", INT, "cached tokens that the prompt chunks attend to"),
    column("kv_tokens_decode", INT, "cached tokens that the decoding requests attend to"),
    column("prefill_pairs", INT, "query-key pairs of the prompt chunks: the sum of `q x (cached + q)` over them"),
    column("max_kv_decode", INT, "cached tokens of the decoding request that has most"),
)
_IN_PROFILE = column("in_profile", BOOL, "every quantity lies within the profiled minimum and maximum")
ITERATION_METRICS = Table(
    "iteration_metrics",
    "One row for every engine step. Optional in another tool's run.",
    "real-bench or vidur-sim",
    pa.schema(
        [
            column("iteration_id", INT, "from 0; of several replicas, those of one after those of another"),
            column("start_time_ns", INT, "when the engine began it"),
            column("end_time_ns", INT, "when its tokens were there"),
            *COMPOSITION_COLUMNS,
            column("num_preempted", INT, "requests whose cache was taken away"),
            column("replica", INT, "whose it is, from 0; only where there are several"),
            column(
                "predicted_ns",
                INT,
                "simulated runs: the predicted time of the iteration, in a pipeline with its waits between stages",
            ),
            _IN_PROFILE,
        ]
    ),
    optional=frozenset({"prefill_pairs", "max_kv_decode", "replica", "predicted_ns", "in_profile"}),
    large=True,
)

# In a simulated run: a folder for each further simulation with noise, with its requests and times between tokens.
SAMPLES = "samples"
TBT_QUANTILES = Table(
    "tbt_quantiles",
    "Of a simulation, and of each with noise in place of its tokens: the quantiles of its times between tokens, 1,001 "
    "evenly spaced levels.",
    "vidur-sim",
    pa.schema(
        [
            column("level", FLOAT, "from 0 to 1"),
            column("token_latency_ns", FLOAT, "that this share of them does not exceed"),
        ]
    ),
)
REAL_ITERATIONS = Table(
    "real_iterations",
    "In a simulated run that was given `real_run_dir`, one row for every iteration of that real run. Absent where the "
    "real run has no iteration records, or none with every composition column.",
    "vidur-sim",
    pa.schema(
        [
            column("iteration_id", INT, "of the real run"),
            column("predicted_ns", INT, "by the predictor of the simulation, `machine_speed` included"),
            column("host_ns", INT, "of `predicted_ns`, the calibrated host time; only of a calibrated predictor"),
            _IN_PROFILE,
        ]
    ),
    optional=frozenset({"host_ns"}),
    large=True,
)
AT_REAL_SPEED = Table(
    "at_real_speed",
    "Beside `real_iterations.csv`: the requests of one more simulation, in which an iteration takes as much longer "
    "than predicted as that real run's iterations, with the time to the next one, did at the same time since its "
    "start.",
    "vidur-sim",
    pa.schema(
        [
            column("request_id", INT, "joins the request metrics"),
            column("arrival_time_ns", INT, "when it was sent"),
            column("first_token_time_ns", INT, "end of the iteration that made its first output token"),
            column("completion_time_ns", INT, "end of the iteration that made its last output token"),
        ]
    ),
    large=True,
)


def share_outside_profile(iterations: pd.DataFrame) -> float:
    """Share of the time of simulated iterations that the profile does not cover; they are the longest ones mostly."""
    took = iterations["end_time_ns"] - iterations["start_time_ns"]
    return float(took[~iterations["in_profile"]].sum() / took.sum())
