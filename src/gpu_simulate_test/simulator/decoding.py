"""What every scheduler here is made of: requests, what comes of an iteration, and the decoding ones counted.

What an engine visits request by request is counted. A decoding request's context grows by one an iteration, so its
context minus the number of the iteration never changes: one number says when it is as long as it gets, when it needs
another block, and how it compares with the others.
"""

import heapq
from collections.abc import Sequence as Keys
from dataclasses import dataclass, field
from typing import Protocol

from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.simulator.block_cache import Kept


class Sequence:
    """A request in a scheduler; a preempted one begins anew with what it has made as part of its prompt.

    `prefill` and `decode` are those of its present pass.
    """

    __slots__ = (
        "arrived_ns",
        "constant",  # while it decodes: its context minus the number of the iteration
        "decode",
        "first",  # the iteration of its first token in this pass
        "held",  # blocks of its prompt that others may share, see `block_cache`
        "keys",  # of these, all
        "last",  # the iteration of its last token; -1 while it does not decode
        "made",  # whether its prompt has tokens that it made itself
        "preempted",  # since it was last taken up
        "prefill",
        "processed",  # of its prompt
        "request_id",
        "scheduled",  # ever
    )

    def __init__(self, request: EngineRequest) -> None:
        self.request_id = request.request_id
        self.arrived_ns = request.arrival_ns
        self.prefill = len(request.token_ids)
        self.decode = request.max_new_tokens
        self.processed = 0
        self.constant = self.first = self.last = -1
        self.scheduled = self.preempted = self.made = False
        self.keys: Keys[int] = ()
        self.held: list[Kept] = []


Prompts = list[tuple[Sequence, int]]
"""Prompts in a batch, and how many tokens of each."""


@dataclass(slots=True)
class Changes:
    """What came of an iteration for single requests.

    Attributes
    ----------
    scheduled, restarted : list of int
        Taken up for the first time; preempted.
    cached : list of (int, int)
        Those of `scheduled` that found tokens of their prompt in the cache, and how many.
    spans : list of (int, int, int)
        Requests that make no more tokens for now, the first iteration of those just made, and their number.
    finished : list of int
        Completed.
    num_preempted : int
        Requests whose preemption is counted in this iteration.
    """

    scheduled: list[int] = field(default_factory=list)
    restarted: list[int] = field(default_factory=list)
    cached: list[tuple[int, int]] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    num_preempted: int = 0


class Scheduler(Protocol):
    """Who is in the next batch. Batches are scheduled in their order, and ended in it."""

    def add(self, request: EngineRequest) -> None:
        """Let a request wait."""

    def num_waiting(self) -> int:
        """Requests that wait to be admitted, for the first time or again."""

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""

    def schedule(self, iteration: int, changes: Changes) -> Prompts:
        """The prompts of the next batch, beside all decoding requests."""

    def composition(self, iteration: int, prompts: Prompts) -> Composition:
        """Of the batch that was scheduled last."""

    def alike(self, iteration: int, most: int) -> int:
        """How many batches from this one on, of `most` at most, have the same decoding requests and no prompt.

        Until one of them completes, or the KV cache is full.
        """

    def go_on(self, iteration: int, count: int) -> None:
        """Serve `count` iterations more, after this one, that are `alike`."""

    def end_batch(self, iteration: int, prompts: Prompts, changes: Changes) -> None:
        """Take down what the batch did, the last of several that are alike."""


class Decoding:
    """Requests that decode.

    Attributes
    ----------
    members : dict of int to Sequence
        In the order in which they began.
    """

    def __init__(self, block_size: int) -> None:
        self.members: dict[int, Sequence] = {}
        self._size = block_size
        self._sum_constants = 0
        self._longest: list[tuple[int, int]] = []  # heap of (-constant, request id)
        self._needing = [0] * block_size  # requests by constant modulo the block size
        self._finishing: dict[int, list[Sequence]] = {}  # by their last iteration
        self._ends: list[int] = []  # heap of these iterations

    def begin(self, one: Sequence, iteration: int) -> None:
        """From this iteration on; its first token, made at the end of its prompt, is not in the cache yet."""
        self.members[one.request_id] = one
        one.constant = constant = one.prefill - iteration
        self._sum_constants += constant
        self._needing[constant % self._size] += 1
        heapq.heappush(self._longest, (-constant, one.request_id))
        one.last = iteration + one.decode - 2
        if one.last in self._finishing:
            self._finishing[one.last].append(one)
        else:
            self._finishing[one.last] = [one]
            heapq.heappush(self._ends, one.last)

    def end(self, one: Sequence) -> None:
        """Not any more."""
        del self.members[one.request_id]
        self._sum_constants -= one.constant
        self._needing[one.constant % self._size] -= 1
        one.last = -1

    def finishing(self, iteration: int) -> list[Sequence]:
        """End those whose last iteration this is; asked once."""
        if not self._ends or self._ends[0] != iteration:
            return []
        heapq.heappop(self._ends)
        done = []
        for one in self._finishing.pop(iteration):
            if one.last == iteration:  # a preempted one may be here, and twice
                self.end(one)
                done.append(one)
        return done

    def preempt(self, one: Sequence, iteration: int, changes: Changes) -> int:
        """End one before this iteration: its next prompt is all that it has. Tokens that it has in the cache."""
        tokens = one.constant + iteration
        self.end(one)
        changes.spans.append((one.request_id, one.first, iteration - one.first))
        one.prefill, one.decode = tokens + 1, one.prefill + one.decode - tokens - 1
        one.made = True
        return tokens

    def needed(self, iteration: int) -> int:
        """Blocks that they need for it."""
        return self._needing[-iteration % self._size]

    def needs(self, one: Sequence, iteration: int) -> bool:
        """Whether one of them needs a block for it."""
        return (one.constant + iteration) % self._size == 0

    def alike(self, iteration: int, most: int, spare: int) -> int:
        """How many iterations from this one on, of `most` at most, need no more than `spare` blocks after it."""
        count = min(most, self._ends[0] - iteration + 1)
        for ahead in range(1, count):
            spare -= self.needed(iteration + ahead)
            if spare < 0:
                return ahead
        return count

    def needed_after(self, iteration: int, count: int) -> int:
        """Blocks that they need in `count` iterations after this one."""
        return sum(map(self.needed, range(iteration + 1, iteration + 1 + count)))

    def composition(self, iteration: int, prompts: Prompts) -> Composition:
        """Of a batch of all of them and these prompts."""
        new = cached = pairs = 0
        for one, tokens in prompts:
            before = one.processed
            new += tokens
            cached += before
            pairs += tokens * (before + tokens)
        decoding, longest = len(self.members), 0
        if decoding:
            while self._outdated(*self._longest[0]):
                heapq.heappop(self._longest)
            longest = iteration - self._longest[0][0]
        total = self._sum_constants + decoding * iteration
        return Composition(new, len(prompts), decoding, cached, total, pairs, longest)

    def _outdated(self, negated: int, request_id: int) -> bool:
        one = self.members.get(request_id)
        return one is None or -negated != one.constant
