"""Prompts from a JSONL file."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_simulate_test.config.schema import WorkloadConfig
from gpu_simulate_test.io.workload import read_prompts


def load_prompts(workload: WorkloadConfig) -> list[dict[str, Any]]:
    """The prompts of a file, in request order.

    Returns
    -------
    list of dict
        One a request, ``prompt_id`` unique: a prompt used again gets ``#2``, ``#3``, ... after its id.

    Raises
    ------
    ConfigError
        The prompts file is missing or malformed.
    """
    assert workload.prompts is not None  # the config's own check
    prompts = list(read_prompts(Path(workload.prompts)))
    return list(_take(prompts, workload.num_requests or len(prompts)))


def _take(prompts: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    for index, prompt in enumerate(itertools.islice(itertools.cycle(prompts), count)):
        lap = index // len(prompts)
        yield prompt if lap == 0 else prompt | {"prompt_id": f"{prompt['prompt_id']}#{lap + 1}"}
