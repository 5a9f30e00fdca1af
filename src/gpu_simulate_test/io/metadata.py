"""What the metadata files say: every key with its meaning. The reference page is generated from it."""

from collections.abc import Mapping
from typing import NamedTuple


class Key(NamedTuple):
    """A key at the top of a metadata file, or of a record in it."""

    doc: str
    always: bool = True  # False: only where the meaning says


_SCHEMA = {"schema_version": Key("`v1`")}
_CODE = {
    "git_commit": Key("of this code; null outside a checkout"),
    "git_dirty": Key("whether tracked files were changed; null outside a checkout"),
}
_TIMES = {
    "started_at": Key("ISO 8601 with zone"),
    "ended_at": Key("likewise"),
}
_SETTINGS = {
    "params": Key("the settings; of a comparison, those of the real run where they are of the runs"),
    "hydra": Key("`config_path`, `config_name`"),
}
WORKLOAD = {
    **_SCHEMA,
    "workload_id": Key("the name of the directory"),
    "model": Key("its id"),
    "created_at": Key("ISO 8601 with zone"),
    **_CODE,
    **_SETTINGS,
    "workload_sha256": Key(
        "SHA-256 over `trace_lengths.csv`, `trace_intervals.csv` and `prompts.jsonl`, each preceded by its name, a "
        "zero byte, its size in decimal and a zero byte. It is checked whenever the workload is read"
    ),
    "seed": Key("of all draws"),
    "tokenizer_ref": Key(
        "what the tokenizer was, with the SHA-256 of its file or of its training text; `none` where there are no files"
    ),
    "left_out": Key("of a trace: reason to number of requests that did not become part of the workload; else empty"),
    "paths": Key("the data files, by name without ending"),
}
RUN = {
    **_SCHEMA,
    "run_id": Key("the name of the directory; of a profile: hardware, model and backend"),
    "run_type": Key("`real`, `vidur`, `vidur_profile`, `compare`"),
    "model": Key("its id"),
    **_TIMES,
    **_CODE,
    "env": Key("`python`, `platform`, `cpu`, `cpu_count`, `versions`; empty for a run that was recorded elsewhere"),
    **_SETTINGS,
}
_WORKLOAD_OF_RUN = {
    "workload_dir": Key("what was served or simulated"),
    "workload_sha256": Key("the workload's"),
    "closed_loop": Key("whether requests were sent when others ended, and so at times of the run's own", always=False),
}
REAL = {
    **_WORKLOAD_OF_RUN,
    "backend": Key("name of the engine"),
    "engine": Key("settings in force, see [engine](runs.md#engine)"),
    "reference_ns": Key(
        "mean reference burst, timed before, after and while the engine waits for requests; not of a recorded run",
        always=False,
    ),
    "peak_memory_bytes": Key("of the process, not of a GPU; not of a recorded run", always=False),
    "repeat_run_dirs": Key("of the first repeat: names of the directories of all, itself first", always=False),
    "repeat_of": Key("of the other repeats: name of the first one's directory", always=False),
    "source": Key("of a recorded run: the file", always=False),
    "arrivals_recorded": Key("of a recorded run: false where the workload's arrivals were taken", always=False),
}
VIDUR = {
    **_WORKLOAD_OF_RUN,
    "profiling_root": Key("where the profile lies"),
    "profile_mismatch": Key(
        "a list of `what`, `profile`, `settings`: engine, engine version, attention kernel or threads where the "
        "profile's are not those of the real run or of the settings"
    ),
    "profile_held_out": Key("the profile's `held_out`"),
    "profile_sources": Key("the profile's `sources`, or null"),
    "profile_source": Key("where a profile that was not measured here is from: its `source`, or null"),
    "real_run_dir": Key("the real run whose settings and output lengths were taken, or null"),
    "settings": Key(
        "`model_id`, `device`, `network_device`, `scheduler`, [`limits`](runs.md#limits), `num_blocks_estimated`: "
        "whether their number of KV blocks is the profile's estimate, and `router`, of `limits.data_parallel` replicas"
    ),
    "predictor": Key("`iterations`, `operators`, `kernels`, `stock` or `calibrated`"),
    "calibration": Key(
        "of the predictor `calibrated`: the profile's `calibration.json`, whole; else null. Not in older runs",
        always=False,
    ),
    "loop": Key(
        "`name`: `core` or `vidur`; `checked`: on how many requests the core was identical to Vidur's, 0 with "
        "`vidur/scheduler=vllm_v1`, which Vidur has not; `difference`: where it was not, or null"
    ),
    "reference_ns": Key("the profile's"),
    "machine_speed": Key(
        "predicted times were multiplied by it: the real run's reference burst, the mean over its repeats, divided by "
        "the profile's; 1 where there is none or `match_speed=false`"
    ),
}
VIDUR_PROFILE = {
    "profiling_root": Key("the root itself"),
    "held_out": Key("as in `profile_meta.json`; empty for a recorded profile"),
}
COMPARE = {
    "real_run_dir": Key("the first repeat"),
    "sim_run_dir": Key("the simulated run"),
    "verdict": Key("see [percentiles.csv](comparison.md#percentilescsv)"),
}
ENGINE = {
    "name": Key("`transformers`, `vllm`, `sarathi`; `recorded`: the limits are as the settings state them"),
    "limits": Key("see [limits](runs.md#limits)"),
    "device": Key("such as `cuda`"),
    "max_model_len": Key("tokens of one request; not of a recorded run", always=False),
    "details": Key(
        "`scheduler`, `torch`, `device_name` and `cuda` (null on a CPU), and what else the engine was set to; not of a "
        "recorded run",
        always=False,
    ),
}
# What of a model its operators' cost depends on.
MODEL_DIMENSIONS = (
    "num_layers",
    "num_q_heads",
    "num_kv_heads",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
    "num_experts",
    "num_experts_per_tok",
    "quantization",
)
_LATER = "not in older profiles"
PROFILE = {
    **_SCHEMA,
    "model_id": Key("what the profile is valid for, as all to `tie_word_embeddings`; any other is refused"),
    "device": Key("Vidur's name of it"),
    "dtype": Key("of weights and KV cache"),
    **{
        name: Key(f"see [limits](runs.md#limits); {_LATER}", always=False)
        for name in ("kv_cache_dtype", "tensor_parallel", "pipeline_parallel", "expert_parallel")
    },
    **{
        name: Key("of the model") if name == "num_layers" else Key(f"of the model; {_LATER}", always=False)
        for name in MODEL_DIMENSIONS
    },
    "backend": Key(
        "name of the engine; where the simulated one differs in this or the next two, it is told and flagged; null, as "
        "they, where a recorded profile does not say it"
    ),
    "attn_implementation": Key("the engine's attention kernel"),
    "num_threads": Key("of the CPU; null: as the engine chose"),
    **_CODE,
    "rows": Key("of each table: one that has others is refused"),
    **{name: Key(f"{key.doc}; not of a recorded profile", always=False) for name, key in _TIMES.items()},
    "env": Key("as in `run_meta.json`; not of a recorded profile", always=False),
    "engine": Key("as in `run_meta.json`; of a recorded profile its name and version, or null", always=False),
    "created_at": Key("of a recorded profile: when it was read", always=False),
    "source": Key("of a recorded profile: its folder", always=False),
    "reach": Key(
        "what was to be covered: `max_tokens` and `max_seqs` of a batch, `max_context` of a request, `max_cached` "
        "tokens; of a recorded profile the largest batch that its tables cover"
    ),
    "operators": Key(
        "`points` (0: this engine's operators cannot be called by themselves, and there are no tables of them), "
        "`median_spread` (standard deviation / median of a point's repeats, the median over points); not of a recorded "
        "profile",
        always=False,
    ),
    "reference_ns": Key(
        "the mean reference burst: the speed that `iteration.csv` is scaled to; not of a recorded profile",
        always=False,
    ),
    "drift": Key(
        "how far the machine's speed wandered meanwhile: slowest minus fastest, as a fraction of the mean; not of a "
        "recorded profile",
        always=False,
    ),
    "iterations": Key(
        "`points`, `measured`, `bursts_that_did_not_fit` (into the time, or not with all their requests, of one round: "
        "larger batches are extrapolated); not of a recorded profile",
        always=False,
    ),
    "held_out": Key(
        "a predictor fitted without some of the iterations, on these (the profile's tables hold all): `iterations` "
        "and, unless that is 0, the relative errors `median_error`, `median_abs_error`, `p90_abs_error`, and "
        "`total_error` (of the summed time); not of a recorded profile",
        always=False,
    ),
    "sources": Key(
        "by kind of batch (`prompts`, `decoding`), the share of its time that is `measured`, `interpolated` and "
        "`estimated`; of the operator database",
        always=False,
    ),
    "kv_tokens": Key(
        "tokens that the KV cache of a replica holds, by the operator database's memory model", always=False
    ),
    "kv_tokens_by_batch": Key(
        "the same for other `limits.max_num_batched_tokens`; a simulation takes that of its own limits", always=False
    ),
    "how": Key("how each figure was measured, in words"),
}

CALIBRATION = {
    **_SCHEMA,
    "created_at": Key("ISO 8601 with zone"),
    **_CODE,
    "scheduler": Key("`vidur/scheduler` of the simulations that the runs were held against"),
    "async_scheduling": Key("whether these scheduled ahead; constants of one kind mean little for the other"),
    "constants": Key(
        "`step_ns`, `sequence_ns`: the host's time an iteration, and for each sequence in it; `kernel_factor`, on the "
        "kernels' time; `front_end_ns`, before the engine sees a request; `after_first_token_ns`, by which tokens "
        "after the first come out later. Of each `value`; `low`, `high`, its interval, all five at once with 95 %, "
        "widened by what it cannot be told from; `found`: false where it is not told from noise, and then nothing (the "
        "factor 1)"
    ),
    "runs": Key(
        "the real runs, every repeat: `run_id`, `path`, `sha256` of the file of their requests, `workload_sha256`, "
        "`window`: the first and the last request that was looked at, at most 20,000, `requests` of them that were "
        "learned from, "
        "`learned_from`: their `iterations` where these were recorded, else times of `requests`"
    ),
    "held_out": Key(
        "of a single run, the errors on the third of it that was held back: `requests`, and by `ttft`, `tpot`, `e2e` "
        "those of `p50`, `p90`, `p99` (simulated / real - 1), with the constants, `errors`, and `without` them; else "
        "null"
    ),
    "leave_one_out": Key("of several runs, the same for each, by the constants of the others, with its `run_id`"),
}


def sources_told(sources: Mapping[str, Mapping[str, float]]) -> str:
    """A profile's `sources` in words."""
    return "; ".join(
        f"{kind} {', '.join(f'{share:.0%} {source}' for source, share in shares.items() if share)}"
        for kind, shares in sources.items()
    )
