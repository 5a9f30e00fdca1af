"""Which leading blocks of a workload's prompts are those of others: what a prefix cache can find."""

import json
import math
import mmap
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_simulate_test.io.workload import PROMPTS, Workload, plain_tokens, random_parts, random_token_ids, read_prompts

Keys = Sequence[Sequence[int]]

_CHANCE_BITS = 80  # independent tokens of that many bits are never equal, however many requests there are


def block_keys(workload: Workload, block_size: int) -> Keys:
    """Keys of the leading whole blocks of each request that another request begins with as well.

    Parameters
    ----------
    block_size : int
        Tokens of a block.

    Returns
    -------
    sequence of shape (n_requests,) of sequences of int
        Two keys are equal if and only if all tokens from the beginning to the end of the block are. Empty where nothing
        is shared.
    """
    return keys_of(workload.path / PROMPTS, len(workload), block_size)


def keys_of(prompts: Path, num_requests: int, block_size: int) -> Keys:
    """`block_keys` of a workload's ``prompts.jsonl``, which need not be finished."""
    if _nothing_shared(prompts, block_size):
        return [()] * num_requests
    return _walk([_Prompt(prompt) for prompt in read_prompts(prompts)], block_size)


def cached_tokens(keys: Keys, num_prefill_tokens: Sequence[int], block_size: int) -> npt.NDArray[np.int64]:
    """Prompt tokens that a cache without limit has from earlier requests; the last one of a prompt is never among them.

    Parameters
    ----------
    keys : sequence of shape (n_requests,) of sequences of int
        Of `block_keys`, in order of arrival.
    num_prefill_tokens : sequence of int of shape (n_requests,)

    Returns
    -------
    numpy.ndarray of shape (n_requests,), int64
    """
    seen: set[int] = set()
    found = np.zeros(len(keys), dtype=np.int64)
    for index, (own, count) in enumerate(zip(keys, num_prefill_tokens, strict=True)):
        blocks = bisect_left(own, True, key=lambda key: key not in seen)  # what is found is at the beginning
        found[index] = min(blocks, (count - 1) // block_size) * block_size
        seen.update(own[blocks:])
    return found


def _nothing_shared(prompts: Path, block_size: int) -> bool:
    """True where all prompts are random tokens of their own: told without parsing them."""
    with prompts.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if any(text.find(key) >= 0 for key in (b'"shared":', b'"token_ids":')):
            return False
        return block_size >= _enough(json.loads(text.readline())["random_tokens"]["vocab_size"])


def _enough(vocab_size: int) -> int:
    """How many independent random tokens are never equal."""
    kinds = plain_tokens(vocab_size)
    return math.ceil(_CHANCE_BITS / math.log2(kinds)) if kinds > 1 else sys.maxsize


class _Prompt:
    """Tokens of a prompt: as they are, or parts of random draws, made only where they are needed."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self.ids: list[int] | None = prompt.get("token_ids")
        parts = [] if self.ids is not None else random_parts(prompt)
        spec = prompt.get("random_tokens", {})
        self.vocab_size: int = spec.get("vocab_size", 0)
        self.seeds = [seed for seed, _ in parts]
        self.ends = list(accumulate(count for _, count in parts))
        self.count = self.ends[-1] if self.ids is None else len(self.ids)
        shared = len(spec.get("shared", ()))
        self.own = self.count if self.ids is not None else self.ends[shared - 1] if shared else 0
        self.enough = sys.maxsize if self.ids is not None else _enough(self.vocab_size)

    def may_share(self, start: int, end: int) -> bool:
        """Whether there is such a block, and not so much of it the prompt's own that no other prompt has it."""
        return end <= self.count and end - max(self.own, start) < self.enough

    def source(self, at: int) -> tuple[Hashable, int]:
        """What is drawn at this token, and for how many."""
        if self.ids is not None:
            return None, 0
        part = bisect_right(self.ends, at)
        offset = at - self.ends[part - 1] if part else at
        return (self.seeds[part], self.vocab_size, offset), self.ends[part] - at

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        if self.ids is not None:
            return tuple(self.ids[start:end])
        found: list[int] = []
        while start < end:
            part = bisect_right(self.ends, start)
            first = self.ends[part - 1] if part else 0
            until = min(end, self.ends[part])
            found += _drawn(self.seeds[part], until - first, self.vocab_size)[start - first :]
            start = until
        return tuple(found)


@lru_cache(maxsize=1024)
def _drawn(seed: str, count: int, vocab_size: int) -> list[int]:
    return random_token_ids(seed, count, vocab_size)


def _walk(prompts: Sequence[_Prompt], size: int) -> Keys:
    """Follow the groups of prompts that are equal so far, until each prompt is alone.

    What is drawn of one source at one offset is equal, and else never is if it is long enough. So blocks are told apart
    by their sources where each has but one, several of them in one step, and by their tokens elsewhere.
    """
    keys: list[Sequence[int]] = [()] * len(prompts)
    enough = max(prompt.enough for prompt in prompts)
    made = 0
    groups: list[tuple[Sequence[int], int, tuple[int, ...]]] = [(range(len(prompts)), 0, ())]
    while groups:
        members, at, path = groups.pop()
        alive = [index for index in members if prompts[index].may_share(at, at + size)]
        sources = {index: prompts[index].source(at) for index in alive} if len(alive) > 1 else {}
        by_source = size >= enough and all(left >= size for _, left in sources.values())
        equal: dict[Hashable, list[int]] = defaultdict(list)
        for index, (source, _) in sources.items():
            equal[source if by_source else prompts[index].tokens(at, at + size)].append(index)
        for group in equal.values():
            if len(group) == 1:
                continue
            blocks = min(sources[index][1] for index in group) // size if by_source else 1
            longer = path + tuple(range(made, made + blocks))
            made += blocks
            for index in group:
                keys[index] = longer
            groups.append((group, at + blocks * size, longer))
    return keys
