"""The workload-spec stage: settings in, three data files and their metadata out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.schema import ArrivalConfig, StageConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.progress import tracked
from gpu_simulate_test.io.recorded.conversations import is_conversations
from gpu_simulate_test.io.run_dir import OpenRunDir
from gpu_simulate_test.io.tables import TRACE_INTERVALS, TRACE_LENGTHS
from gpu_simulate_test.io.workload import DATA_FILES, PROMPTS, dump_prompts, dump_random_prompts, workload_sha256
from gpu_simulate_test.io.workload_prefixes import cached_tokens, keys_of
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.workloads.arrival_schedule import arrival_process
from gpu_simulate_test.workloads.lengths import draw_lengths
from gpu_simulate_test.workloads.prompts import load_prompts
from gpu_simulate_test.workloads.shared_prefixes import drawn_prefixes
from gpu_simulate_test.workloads.token_lengths import tokenize, tokenizer_ref
from gpu_simulate_test.workloads.trace import load_conversations, load_trace


@dataclass(frozen=True)
class _Requests:
    """What is asked, by request: arrays of shape (n_requests,), lines one at a time."""

    lines: Iterable[str]  # of prompts.jsonl
    prompt_ids: list[str]
    prefill: Ints
    decode: Ints
    arrivals: ArrivalProcess
    left_out: dict[str, int]


def write_workload(config: StageConfig, run: OpenRunDir) -> None:
    """Write the data files, ``summary.md`` and, last, ``workload_meta.json``.

    Raises
    ------
    ConfigError
        A prompt is malformed, or exceeds the model's or the KV cache's limit.
    """
    asked = _requests(config)
    prefill, decode = asked.prefill, asked.decode
    _check_limits(config, asked.prompt_ids, prefill + decode)
    ids = np.arange(len(prefill))
    run.write_table(
        TRACE_LENGTHS,
        pd.DataFrame(
            {
                "request_id": ids,
                "prompt_id": asked.prompt_ids,
                "num_prefill_tokens": prefill,
                "num_decode_tokens": decode,
            }
        ),
    )
    run.write_table(TRACE_INTERVALS, _intervals(asked.arrivals))
    run.write_lines(PROMPTS, tracked(asked.lines, "workload-spec", len(prefill), "prompts"))
    sha256 = workload_sha256(run.path)
    shared = _shared(run.path / PROMPTS, prefill, config.limits.block_size)
    run.write_text("summary.md", _summary(config, run.name, sha256, asked, shared))
    run.finish_workload(
        workload_sha256=sha256,
        seed=config.workload.seed,
        tokenizer_ref=tokenizer_ref(config.model),
        left_out=asked.left_out,
        paths={name.rsplit(".", 1)[0]: name for name in DATA_FILES},
    )


def _requests(config: StageConfig) -> _Requests:
    workload, model = config.workload, config.model
    if workload.source == "prompts":
        prompts = load_prompts(workload)
        decode = draw_lengths(workload.decode_lengths, len(prompts), f"decode-{workload.seed}")
        return _texts(config, prompts, decode, arrival_process(workload.arrival, len(prompts), workload.seed), {})
    left_out: dict[str, int] = {}
    if workload.source == "trace":
        assert workload.trace is not None  # the config's own check
        if is_conversations(Path(workload.trace)):
            prompts, decode, arrivals, left_out = load_conversations(workload, model)
            return _texts(config, prompts, decode, arrivals, left_out)
        prefill, decode, arrivals, shared, left_out = load_trace(workload, model.max_position_embeddings)
    else:
        assert workload.num_requests is not None
        prefill = draw_lengths(workload.prefill_lengths, workload.num_requests, f"prefill-{workload.seed}")
        decode = draw_lengths(workload.decode_lengths, workload.num_requests, f"decode-{workload.seed}")
        arrivals = arrival_process(workload.arrival, workload.num_requests, workload.seed)
        shared = drawn_prefixes(workload.prefix, workload.num_requests, workload.seed)
    prompt_ids = [f"{workload.source}-{index}" for index in range(len(prefill))]
    lines = dump_random_prompts(prompt_ids, prefill.tolist(), workload.seed, model.vocab_size, shared)
    return _Requests(lines, prompt_ids, prefill, decode, arrivals, left_out)


def _texts(
    config: StageConfig, prompts: list[dict[str, Any]], decode: Ints, arrivals: ArrivalProcess, left_out: dict[str, int]
) -> _Requests:
    ids = tokenize(prompts, config.model)
    return _Requests(
        # The ids are kept beside the text, so that every engine is given the very same tokens.
        dump_prompts(prompt | {"token_ids": one} for prompt, one in zip(prompts, ids, strict=True)),
        [str(prompt["prompt_id"]) for prompt in prompts],
        np.array([len(one) for one in ids], dtype=np.int64),
        decode,
        arrivals,
        left_out,
    )


def _check_limits(config: StageConfig, prompt_ids: list[str], totals: np.ndarray) -> None:
    limits = {
        f"the model's limit of {config.model.max_position_embeddings} tokens": config.model.max_position_embeddings
    }
    if config.limits.num_blocks:
        cache = f"the KV cache's {config.limits.num_blocks} blocks of {config.limits.block_size} tokens"
        limits[cache] = config.limits.kv_tokens
    advice = "shorten the prompt or lower workload.num_decode_tokens"
    if config.workload.source == "trace":
        advice = "raise limits.num_blocks or lower workload.trace_length_scale"
    for name, limit in limits.items():
        over = np.flatnonzero(totals > limit)
        if over.size:
            first = int(over[0])
            raise ConfigError(
                f"prompt and output of {prompt_ids[first]} need {totals[first]} tokens, above {name} "
                f"({over.size} such requests); {advice}"
            )


def _shared(prompts: Path, prefill: Ints, block_size: int) -> str:
    keys = keys_of(prompts, len(prefill), block_size)
    sharing = sum(map(bool, keys))
    if not sharing:
        return "none"
    found = int(cached_tokens(keys, prefill.tolist(), block_size).sum())
    return (
        f"{sharing} prompts begin with a block of {block_size} tokens of another; a prefix cache without limit finds "
        f"{found} prompt tokens, {found / prefill.sum():.1%}"
    )


def _intervals(arrivals: ArrivalProcess) -> pd.DataFrame:
    """``trace_intervals.csv``: what is not known beforehand is empty."""
    known = arrivals.known_ns >= 0
    gaps = np.zeros(len(arrivals), dtype=np.int64)
    gaps[known] = np.diff(arrivals.known_ns[known], prepend=0)
    columns = {
        "request_id": np.arange(len(arrivals)),
        "inter_arrival_ns": pd.arrays.IntegerArray(gaps, ~known),
        "arrival_time_ns": pd.arrays.IntegerArray(arrivals.known_ns, ~known),
    }
    if not arrivals.is_open:
        columns["follows_request_id"] = pd.arrays.IntegerArray(arrivals.follows, arrivals.follows < 0)
        columns["delay_ns"] = pd.arrays.IntegerArray(arrivals.delay_ns, known)
    return pd.DataFrame(columns)


def _told(config: ArrivalConfig, arrivals: ArrivalProcess) -> str:
    """When requests arrive, for a summary."""
    more = []
    if turns := int((arrivals.follows >= 0).sum()):
        more = [f"{turns} of them turns that follow another"]
    if config.kind != "closed_loop":
        return "; ".join([f"{config.kind}, over {arrivals.known_ns.max() / 1e9:.3f} s", *more])
    more += [f"they begin over {config.ramp_s:g} s"] if config.ramp_s else []
    more += [f"each thinks for {config.think_time_s:g} s"] if config.think_time_s else []
    return "; ".join([f"closed_loop, {config.concurrency} users", *more])


def _summary(config: StageConfig, workload_id: str, sha256: str, asked: _Requests, shared: str) -> str:
    prefill, decode = asked.prefill, asked.decode
    left_out = "".join(f"- left out: {count} requests {reason}\n" for reason, count in asked.left_out.items())
    return (
        f"# Workload {workload_id}\n\n"
        f"- model: {config.model.id}\n"
        f"- requests: {len(prefill)}\n"
        f"{left_out}"
        f"- prompt tokens: {prefill.min()} to {prefill.max()}, median {np.median(prefill):g}, total {prefill.sum()}\n"
        f"- shared beginnings: {shared}\n"
        f"- output tokens: {decode.min()} to {decode.max()}, median {np.median(decode):g}, total {decode.sum()}\n"
        f"- arrivals: {_told(config.workload.arrival, asked.arrivals)}\n"
        f"- seed: {config.workload.seed}\n"
        f"- SHA-256 of the data: {sha256}\n"
    )
