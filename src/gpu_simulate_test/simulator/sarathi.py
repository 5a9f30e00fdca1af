"""Sarathi's scheduler as Vidur has it, in work that grows with the iterations and not with the tokens.

What Vidur visits request by request is counted here. A decoding request's context grows by one an iteration, so its
context minus the number of the iteration never changes: one number says when it is as long as it gets, when it needs
another block, and how it compares with the others. Only where the KV cache runs full are the decoding requests gone
through one by one, in Vidur's order.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.simulator.kv_cache import BlockPool


class Sequence:
    """A request in the scheduler; `prefill` and `decode` are those of its present pass: see `SarathiScheduler`."""

    __slots__ = (
        "arrived_ns",
        "constant",  # while it decodes: its context minus the number of the iteration
        "decode",
        "first",  # the iteration of its first token in this pass
        "last",  # the iteration of its last token; -1 while it does not decode
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
        self.scheduled = self.preempted = False


Prompts = list[tuple[Sequence, int]]
"""Prompts in a batch, and how many tokens of each."""


@dataclass(slots=True)
class Changes:
    """What came of an iteration for single requests.

    Attributes
    ----------
    scheduled, restarted : list of int
        Taken up for the first time; preempted.
    spans : list of (int, int, int)
        Requests that make no more tokens for now, the first iteration of those just made, and their number.
    num_resumed, num_finished : int
        Requests taken up again after a preemption; completed.
    """

    scheduled: list[int] = field(default_factory=list)
    restarted: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    num_resumed: int = 0
    num_finished: int = 0


class SarathiScheduler:
    """Who is in the next batch: decoding requests first, then prompts, split to fit the token budget.

    A request that is preempted waits before all others, and begins anew with what it has made as part of its prompt.

    Parameters
    ----------
    limits : EngineLimits
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._pool = BlockPool(limits)
        self._waiting: deque[Sequence] = deque()
        self._skipped: list[Sequence] = []  # prompts that a batch had no budget for
        self._tail: list[Sequence] = []  # the last batch's prompts, in its order
        self._decoding: dict[int, Sequence] = {}  # in the order in which they are looked at
        self._sum_constants = 0
        self._longest: list[tuple[int, int]] = []  # heap of (-constant, request id)
        self._needing = [0] * limits.block_size  # decoding requests by constant modulo the block size
        self._finishing: dict[int, list[Sequence]] = {}  # by their last iteration
        self._ends: list[int] = []  # heap of these iterations

    def add(self, request: EngineRequest) -> None:
        """Let a request wait."""
        self._waiting.append(Sequence(request))

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""
        return bool(self._decoding or self._tail or self._skipped or self._waiting)

    # An iteration -----------------------------------------------------------------------------------------------

    def schedule(self, iteration: int, changes: Changes) -> Prompts:
        """The prompts of the next batch, beside all decoding requests."""
        older = len(self._decoding)
        unfinished = []
        for one in self._tail:
            if one.processed < one.prefill:
                unfinished.append(one)
            else:
                self._begin_decoding(one, iteration)
        needed = self._needing[-iteration % self._limits.block_size]
        if not self._decoding or needed < self._pool.free:
            self._pool.take(needed)
            prompts = self._skipped + unfinished
        else:
            running = [*islice(self._decoding.values(), older), *self._tail]
            prompts = self._skipped + self._squeeze(iteration, running, changes)
        self._tail = []
        budget = max(0, self._limits.max_num_batched_tokens - len(self._decoding))
        batch: Prompts = []
        self._skipped = []
        for one in prompts:
            if tokens := min(one.prefill - one.processed, budget):
                budget -= tokens
                batch.append((one, tokens))
            else:
                self._skipped.append(one)
        if len(self._skipped) > 1:
            self._skipped.sort(key=lambda one: one.arrived_ns)
        if self._waiting:
            self._admit(batch, budget)
        return batch

    def _admit(self, batch: Prompts, budget: int) -> None:
        """Add to the batch what waits, as far as requests, KV blocks and tokens allow."""
        while self._waiting:
            running = len(self._decoding) + len(batch)
            if self._limits.max_num_seqs in (running, running + len(self._skipped)):
                return
            one = self._waiting[0]
            blocks = self._pool.needed(one.prefill)
            if not self._pool.admits(blocks):
                return
            if (reused := self._pool.reused(one.request_id, one.prefill)) is not None:
                one.processed = reused
            tokens = min(one.prefill - one.processed, budget)
            if not tokens:
                return
            self._waiting.popleft()
            self._pool.take(blocks)
            budget -= tokens
            batch.append((one, tokens))

    def composition(self, iteration: int, prompts: Prompts) -> Composition:
        """Of the batch that was scheduled."""
        new = cached = pairs = 0
        for one, tokens in prompts:
            before = one.processed
            new += tokens
            cached += before
            pairs += tokens * (before + tokens)
        decoding, longest = len(self._decoding), 0
        if decoding:
            while self._outdated(*self._longest[0]):
                heapq.heappop(self._longest)
            longest = iteration - self._longest[0][0]
        total = self._sum_constants + decoding * iteration
        return Composition(new, len(prompts), decoding, cached, total, pairs, longest)

    def alike(self, iteration: int, most: int) -> int:
        """How many batches from this one on, of `most` at most, have the same decoding requests and no prompt.

        Until one of them completes, or the KV cache is full. Nobody who waits is admitted meanwhile: what was in the
        way of that, too many requests or too few blocks or tokens, stays so.
        """
        count = min(most, self._ends[0] - iteration + 1)
        free = self._pool.free
        for ahead in range(1, count):
            needed = self._needing[-(iteration + ahead) % self._limits.block_size]
            if needed >= free:
                return ahead
            free -= needed
        return count

    def go_on(self, iteration: int, count: int) -> None:
        """Serve `count` iterations more, after this one, that are `alike`."""
        size = self._limits.block_size
        self._pool.take(sum(self._needing[-number % size] for number in range(iteration + 1, iteration + 1 + count)))

    def end_batch(self, iteration: int, prompts: Prompts, changes: Changes) -> None:
        """Take down what the batch did, the last of several that are alike."""
        for one, tokens in prompts:
            if not one.scheduled:
                one.scheduled = True
                changes.scheduled.append(one.request_id)
            if one.preempted:
                one.preempted = False
                changes.num_resumed += 1
            one.processed += tokens
            if one.processed == one.prefill:
                one.first = iteration
                if one.decode == 1:
                    changes.num_finished += 1
                    changes.spans.append((one.request_id, iteration, 1))
                    self._pool.release(self._pool.needed(one.prefill))
                    continue
            self._tail.append(one)
        if self._ends and self._ends[0] == iteration:
            heapq.heappop(self._ends)
            for one in self._finishing.pop(iteration):
                if one.last == iteration:
                    changes.num_finished += 1
                    self._pool.release(self._pool.needed(one.constant + iteration + 1))
                    self._end_decoding(one, iteration, changes)

    # Decoding requests ------------------------------------------------------------------------------------------

    def _begin_decoding(self, one: Sequence, iteration: int) -> None:
        """From this iteration on; its first token, made at the end of its prompt, is not in the cache yet."""
        self._decoding[one.request_id] = one
        one.constant = constant = one.prefill - iteration
        self._sum_constants += constant
        self._needing[constant % self._limits.block_size] += 1
        heapq.heappush(self._longest, (-constant, one.request_id))
        one.last = iteration + one.decode - 2
        if one.last in self._finishing:
            self._finishing[one.last].append(one)
        else:
            self._finishing[one.last] = [one]
            heapq.heappush(self._ends, one.last)

    def _end_decoding(self, one: Sequence, iteration: int, changes: Changes) -> None:
        """Its last token was made in this iteration."""
        del self._decoding[one.request_id]
        self._sum_constants -= one.constant
        self._needing[one.constant % self._limits.block_size] -= 1
        one.last = -1
        changes.spans.append((one.request_id, one.first, iteration - one.first + 1))

    def _outdated(self, negated: int, request_id: int) -> bool:
        one = self._decoding.get(request_id)
        return one is None or -negated != one.constant

    # A full KV cache --------------------------------------------------------------------------------------------

    def _squeeze(self, iteration: int, running: list[Sequence], changes: Changes) -> list[Sequence]:
        """Give blocks to decoding requests one by one; the last to run make room. Those still in their prompt."""
        queue, prompts = deque(running), []
        while queue:
            one = queue.popleft()
            if one.request_id not in self._decoding:
                prompts.append(one)
                continue
            while self._pool.free < 1:
                if queue:
                    self._restart(queue.pop(), iteration, changes)
                else:
                    self._restart(one, iteration, changes)
                    break
            else:
                if (one.constant + iteration) % self._limits.block_size == 0:
                    self._pool.take(1)
        return prompts

    def _restart(self, one: Sequence, iteration: int, changes: Changes) -> None:
        """Preempt."""
        tokens = one.prefill
        if one.request_id in self._decoding:
            tokens = one.constant + iteration
            total = one.prefill + one.decode
            self._end_decoding(one, iteration - 1, changes)
            one.prefill = tokens + 1
            one.decode = total - tokens - 1
        one.processed = 0
        one.preempted = True
        changes.restarted.append(one.request_id)
        self._pool.preempt(one.request_id, self._pool.needed(tokens))
        self._waiting.appendleft(one)
