"""Where prompts come from: a JSONL file, or seeded random token ids."""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpu_simulate_test.config.schema import WorkloadConfig
from gpu_simulate_test.io.workload import read_prompts

_FIRST_PLAIN_TOKEN = 3  # below it lie special tokens in common vocabularies


def load_prompts(workload: WorkloadConfig, vocab_size: int) -> list[dict[str, Any]]:
    """The prompts of a workload, in request order.

    Parameters
    ----------
    workload : WorkloadConfig
    vocab_size : int
        Synthetic token ids stay below it.

    Returns
    -------
    list of dict
        One a request, ``prompt_id`` unique: a prompt used again gets ``#2``, ``#3``, ... after its id.

    Raises
    ------
    ConfigError
        The prompts file is missing or malformed.
    """
    if workload.source == "synthetic":
        return list(_synthetic_prompts(workload, vocab_size))
    assert workload.prompts is not None  # the config's own check
    prompts = list(read_prompts(Path(workload.prompts)))
    return list(_take(prompts, workload.num_requests or len(prompts)))


def _take(prompts: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    for index, prompt in enumerate(itertools.islice(itertools.cycle(prompts), count)):
        lap = index // len(prompts)
        yield prompt if lap == 0 else prompt | {"prompt_id": f"{prompt['prompt_id']}#{lap + 1}"}


def _synthetic_prompts(workload: WorkloadConfig, vocab_size: int) -> Iterator[dict[str, Any]]:
    assert workload.num_requests is not None and workload.num_prefill_tokens is not None
    lengths = uniform_lengths(
        workload.num_prefill_tokens, workload.num_prefill_tokens_min, workload.num_requests, f"prefill-{workload.seed}"
    )
    yield from random_prompts("synthetic", lengths, workload.seed, vocab_size)


def random_prompts(name: str, lengths: Iterable[int], seed: int, vocab_size: int) -> Iterator[dict[str, Any]]:
    """Prompts of seeded random token ids: ``<name>-0``, ``<name>-1``, ..."""
    uniform = random.Random(f"tokens-{seed}").random
    span = vocab_size - _FIRST_PLAIN_TOKEN
    for index, length in enumerate(lengths):
        token_ids = [_FIRST_PLAIN_TOKEN + int(uniform() * span) for _ in range(length)]
        yield {"prompt_id": f"{name}-{index}", "text": "", "token_ids": token_ids}


def uniform_lengths(high: int, low: int | None, count: int, seed: str) -> list[int]:
    """Lengths uniform over [low, high], or all equal to `high` without a `low`."""
    if low is None:
        return [high] * count
    uniform = random.Random(seed).random
    return [low + int(uniform() * (high - low + 1)) for _ in range(count)]
