"""Which leading blocks of a workload's prompts are those of others: what a prefix cache can find."""

import json
import math
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpu_simulate_test.io.workload import PROMPTS, Workload, plain_tokens, random_parts, random_token_ids

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
    with prompts.open(encoding="utf-8", newline="\n") as lines:  # our own, so they are not checked again
        texts, enough = _texts(lines, block_size)
    _walk(texts, block_size, enough)
    keys: list[Sequence[int]] = [()] * num_requests
    for text in texts:
        for index in text.requests:
            keys[index] = text.keys
    return keys


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
    with prompts.open("rb") as lines:
        if any(b'"shared":' in line or b'"token_ids":' in line for line in lines):
            return False
        lines.seek(0)
        return block_size >= _enough(json.loads(lines.readline())["random_tokens"]["vocab_size"])


@lru_cache
def _enough(vocab_size: int) -> int:
    """How many independent random tokens are never equal."""
    kinds = plain_tokens(vocab_size)
    return math.ceil(_CHANCE_BITS / math.log2(kinds)) if kinds > 1 else sys.maxsize


class _Text:
    """Tokens that prompts begin with: as they are, or parts of random draws, made only where they are needed."""

    def __init__(self, ids: Sequence[int] | None, parts: Sequence[tuple[str, int]], vocab_size: int) -> None:
        self.ids = ids
        self.seeds = [seed for seed, _ in parts]
        self.ends = list(accumulate(count for _, count in parts))
        self.vocab_size = vocab_size
        self.count = len(ids) if ids is not None else self.ends[-1] if parts else 0
        self.requests: list[int] = []
        self.keys: tuple[int, ...] = ()

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


def _texts(lines: Iterable[str], size: int) -> tuple[list[_Text], int]:
    """What prompts begin with that others may begin with as well; how many independent tokens are never equal.

    Of a prompt's own tokens those are left out that lie in no block, or in one with enough of them.
    """
    texts: dict[Hashable, _Text] = {}
    most = 0
    for index, line in enumerate(lines):
        prompt = json.loads(line)
        ids, spec = prompt.get("token_ids"), prompt.get("random_tokens", {})
        parts, vocab_size, key = [], 0, tuple(ids or ())
        enough = sys.maxsize
        if ids is None:
            parts, vocab_size = random_parts(prompt), spec["vocab_size"]
            enough = _enough(vocab_size)
            shared = parts[: len(spec.get("shared", ()))]
            length = sum(count for _, count in shared)
            end = (length // size + 1) * size
            if len(parts) > len(shared):
                few = spec["count"] >= end and end - length < enough
                parts = [*shared, (parts[-1][0], min(parts[-1][1], enough - 1))] if few else shared
            key = (vocab_size, *parts)
        if key not in texts:
            texts[key] = _Text(ids, parts, vocab_size)
        texts[key].requests.append(index)
        most = max(most, enough)
    return list(texts.values()), most


def _walk(texts: Sequence[_Text], size: int, enough: int) -> None:
    """Follow the groups of texts that are equal so far, until each request is alone, and give them their keys.

    What is drawn of one source at one offset is equal, and else never is if it is long enough. So blocks are told apart
    by their sources where each has but one, several of them in one step, and by their tokens elsewhere.
    """
    made = 0
    groups: list[tuple[Sequence[_Text], int, tuple[int, ...]]] = [(texts, 0, ())]
    while groups:
        members, at, keys = groups.pop()
        sources = [(text, *text.source(at)) for text in members if text.count >= at + size]
        by_source = size >= enough and all(left >= size for _, _, left in sources)
        equal: dict[Hashable, list[tuple[_Text, int]]] = defaultdict(list)
        for text, source, left in sources:
            equal[source if by_source else text.tokens(at, at + size)].append((text, left))
        for group in equal.values():
            if sum(len(text.requests) for text, _ in group) == 1:
                continue
            blocks = min(left for _, left in group) // size if by_source else 1
            longer = keys + tuple(range(made, made + blocks))
            made += blocks
            for text, _ in group:
                text.keys = longer
            groups.append(([text for text, _ in group], at + blocks * size, longer))
