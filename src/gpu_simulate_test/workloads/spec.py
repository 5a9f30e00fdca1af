"""The workload-spec stage: settings in, three data files and their metadata out."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import HydraRecord, StageConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.provenance import SCHEMA_VERSION, git_state, now
from gpu_simulate_test.io.run_dir import RunDir
from gpu_simulate_test.io.tables import TRACE_INTERVALS, TRACE_LENGTHS
from gpu_simulate_test.io.workload import DATA_FILES, PROMPTS, dump_prompts, workload_sha256
from gpu_simulate_test.workloads.arrival_schedule import inter_arrivals
from gpu_simulate_test.workloads.prompts import load_prompts, uniform_lengths
from gpu_simulate_test.workloads.token_lengths import tokenize, tokenizer_ref
from gpu_simulate_test.workloads.trace import load_trace


def write_workload(config: StageConfig, record: HydraRecord, path: Path, target: RunDir) -> None:
    """Write the data files, ``summary.md`` and, last, ``workload_meta.json``.

    Raises
    ------
    ConfigError
        A prompt is malformed, or exceeds the model's or the KV cache's limit.
    """
    workload, model = config.workload, config.model
    if workload.source == "trace":
        prompts, prefill, decode, gaps = load_trace(workload, model.vocab_size)
    else:
        prompts = load_prompts(workload, model.vocab_size)
        token_ids = tokenize(prompts, model)
        prompts = [prompt | {"token_ids": ids} for prompt, ids in zip(prompts, token_ids, strict=True)]
        prefill = np.array([len(ids) for ids in token_ids])
        decode = np.array(
            uniform_lengths(
                workload.num_decode_tokens, workload.num_decode_tokens_min, len(prompts), f"decode-{workload.seed}"
            )
        )
        gaps = inter_arrivals(workload.arrival, len(prompts), workload.seed)
    _check_limits(config, [str(prompt["prompt_id"]) for prompt in prompts], prefill + decode)
    ids = np.arange(len(prompts))
    target.write_table(
        TRACE_LENGTHS,
        pd.DataFrame(
            {
                "request_id": ids,
                "prompt_id": [prompt["prompt_id"] for prompt in prompts],
                "num_prefill_tokens": prefill,
                "num_decode_tokens": decode,
            }
        ),
    )
    arrivals = np.cumsum(gaps)
    target.write_table(
        TRACE_INTERVALS,
        pd.DataFrame({"request_id": ids, "inter_arrival_ns": gaps, "arrival_time_ns": arrivals}),
    )
    # The ids are kept beside the text, so that every engine is given the very same tokens.
    target.write_text(PROMPTS, dump_prompts(prompts))
    sha256 = workload_sha256(target.path)
    target.write_text("summary.md", _summary(config, path.name, sha256, prefill, decode, arrivals))
    target.finish(
        {
            "schema_version": SCHEMA_VERSION,
            "workload_id": path.name,
            "workload_sha256": sha256,
            "model": model.id,
            "seed": workload.seed,
            "tokenizer_ref": tokenizer_ref(model),
            "created_at": now(),
            **git_state(),
            "paths": {name.rsplit(".", 1)[0]: name for name in DATA_FILES},
            "hydra": {"config_path": record.config_path, "config_name": record.config_name},
            "params": asdict(config),
        },
        filename="workload_meta.json",
    )


def _check_limits(config: StageConfig, prompt_ids: list[str], totals: np.ndarray) -> None:
    limits = {
        f"the model's limit of {config.model.max_position_embeddings} tokens": config.model.max_position_embeddings,
        f"the KV cache's {config.backend.num_blocks} blocks of {config.backend.block_size} tokens": (
            config.backend.num_blocks * config.backend.block_size
        ),
    }
    for name, limit in limits.items():
        over = np.flatnonzero(totals > limit)
        if over.size:
            first = int(over[0])
            raise ConfigError(
                f"prompt and output of {prompt_ids[first]} need {totals[first]} tokens, above {name} "
                f"({over.size} such requests); shorten the prompt or lower workload.num_decode_tokens"
            )


def _summary(
    config: StageConfig, workload_id: str, sha256: str, prefill: np.ndarray, decode: np.ndarray, arrivals: np.ndarray
) -> str:
    seconds = arrivals[-1] / 1e9
    return (
        f"# Workload {workload_id}\n\n"
        f"- model: {config.model.id}\n"
        f"- requests: {len(prefill)}\n"
        f"- prompt tokens: {prefill.min()} to {prefill.max()}, median {np.median(prefill):g}, total {prefill.sum()}\n"
        f"- output tokens: {decode.min()} to {decode.max()}, median {np.median(decode):g}, total {decode.sum()}\n"
        f"- arrivals: {config.workload.arrival.kind}, over {seconds:.3f} s\n"
        f"- seed: {config.workload.seed}\n"
        f"- SHA-256 of the data: {sha256}\n"
    )
