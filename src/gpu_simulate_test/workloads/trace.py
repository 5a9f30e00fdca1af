"""Requests as they were recorded: their lengths, their arrivals, and of conversations what was asked."""

from pathlib import Path
from typing import Any

import numpy as np

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.schema import ModelConfig, WorkloadConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.recorded import LENGTHS, read_recorded, select
from gpu_simulate_test.io.recorded.conversations import read_conversations
from gpu_simulate_test.io.workload import Segments
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.workloads.arrival_schedule import arrival_process
from gpu_simulate_test.workloads.sessions import session_process
from gpu_simulate_test.workloads.shared_prefixes import recorded_prefixes
from gpu_simulate_test.workloads.token_lengths import encoder


def load_trace(
    workload: WorkloadConfig, max_tokens: int
) -> tuple[Ints, Ints, ArrivalProcess, list[Segments] | None, dict[str, int]]:
    """Lengths and arrivals of the requests that the settings choose of a recorded run or a trace.

    Returns
    -------
    prefill, decode : numpy.ndarray of shape (n_requests,), int64
        Prompt and output tokens.
    arrivals : ArrivalProcess
        The first request arrives at 0.
    shared : list of shape (n_requests,) of sequences of (str, int), or None
        What each prompt begins with, as far as it shares it with others.
    left_out : dict of str to int
        Why requests were left out, and how many.

    Raises
    ------
    ArtifactError
        The trace is missing or malformed.
    ConfigError
        None of its requests is left.
    """
    assert workload.trace is not None  # the config's own check
    source = Path(workload.trace)
    requests = read_recorded(source, workload.trace_columns, workload.trace_time_unit)
    chosen, left_out = select(requests, workload, max_tokens, source)
    prefill, decode = (chosen[name].to_numpy(dtype=np.int64) for name in LENGTHS)
    recorded = chosen["arrival_time_ns"].to_numpy(dtype=np.int64) if "arrival_time_ns" in chosen else None
    if workload.sessions:
        if "session" not in chosen:
            raise ConfigError(f"no conversations in it: {source}; leave workload.sessions out")
        delay = chosen["delay_ns"].to_numpy(dtype=np.int64, na_value=-1) if "delay_ns" in chosen else None
        delay = np.full(len(chosen), -1, dtype=np.int64) if delay is None else delay
        arrivals = session_process(workload.arrival, chosen["session"].tolist(), delay, recorded, workload.seed)
    elif workload.arrival.kind == "trace":
        assert recorded is not None  # `select` refuses what has none
        arrivals = ArrivalProcess.at(recorded)
    else:
        arrivals = arrival_process(workload.arrival, len(chosen), workload.seed)
    return prefill, decode, arrivals, recorded_prefixes(chosen, workload.trace_length_scale), left_out


def load_conversations(
    workload: WorkloadConfig, model: ModelConfig
) -> tuple[list[dict[str, Any]], Ints, ArrivalProcess, dict[str, int]]:
    """Questions as prompts, each after what was said before it, and their answers' lengths as the output tokens.

    The first of each conversation, with ``workload.sessions`` all.

    Returns
    -------
    prompts : list of dict
        With their ``token_ids``: lengths need the tokenizer anyway.
    decode : numpy.ndarray of shape (n_requests,), int64
    arrivals : ArrivalProcess
    left_out : dict of str to int
        A turn that is too long is left out with all that follow it.

    Raises
    ------
    ConfigError
        Arrivals, a window or a scale is asked for that conversations do not have, or none is left.
    MachineError
        The model's tokenizer is not on this machine.
    """
    assert workload.trace is not None
    source = Path(workload.trace)
    _check_conversations(workload, source)
    encode, max_tokens = encoder(model), model.max_position_embeddings
    without, too_long = "without a question or an answer", f"above the model's limit of {max_tokens} tokens"
    left_out = {without: 0, too_long: 0}
    prompts: list[dict[str, Any]] = []
    decode, session = [], []
    ids: list[int]
    for number, turns in enumerate(read_conversations(source)):
        if len(prompts) == workload.num_requests:
            break
        text, ids = "", []
        left_out[without] += not turns
        for turn, (question, answer) in enumerate(turns if workload.sessions else turns[:1]):
            said, answered = encode(question), encode(answer)
            if not said or not answered:
                left_out[without] += 1
                break
            if len(ids) + len(said) + len(answered) > max_tokens:
                left_out[too_long] += 1
                break
            if len(prompts) == workload.num_requests:
                break
            text, ids = text + question, ids + said
            name = f"conversation-{number}" + (f"-{turn}" if turn else "")
            prompts.append({"prompt_id": name, "text": text, "token_ids": ids})
            decode.append(len(answered))
            session.append(str(number))
            text, ids = text + answer, ids + answered
    if not prompts:
        raise ConfigError(f"no conversation is left: {source}: {left_out}")
    delay = np.full(len(prompts), -1, dtype=np.int64)
    arrivals = session_process(workload.arrival, session, delay, None, workload.seed)
    left_out = {reason: count for reason, count in left_out.items() if count}
    return prompts, np.array(decode, dtype=np.int64), arrivals, left_out


def _check_conversations(workload: WorkloadConfig, source: Path) -> None:
    if workload.arrival.kind == "trace":
        raise ConfigError(f"conversations have no arrivals: {source}; set workload.arrival.kind=poisson or another")
    if workload.trace_time_unit is not None or workload.trace_columns is not None:
        raise ConfigError(
            f"conversations have no times and no columns: {source}; leave trace_time_unit and _columns out"
        )
    if (workload.trace_start_s, workload.trace_end_s, workload.trace_length_scale) != (None, None, 1):
        raise ConfigError(f"conversations have no times, and texts no scale: {source}; leave the window and scales out")
