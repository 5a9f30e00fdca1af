"""Sarathi's scheduler as Vidur has it, in work that grows with the iterations and not with the tokens.

Only where the KV cache runs full are the decoding requests gone through one by one, in Vidur's order.
"""

from collections import deque
from itertools import islice

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.simulator.decoding import Changes, Decoding, Prompts, Sequence
from gpu_simulate_test.simulator.kv_cache import BlockPool


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
        self._decoding = Decoding(limits.block_size)

    def add(self, request: EngineRequest) -> None:
        """Let a request wait."""
        self._waiting.append(Sequence(request))

    def num_waiting(self) -> int:
        """Requests that wait to be admitted, for the first time or again."""
        return len(self._waiting)

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""
        return bool(self._decoding.members or self._tail or self._skipped or self._waiting)

    # An iteration -----------------------------------------------------------------------------------------------

    def schedule(self, iteration: int, changes: Changes) -> Prompts:
        """The prompts of the next batch, beside all decoding requests."""
        decoding = self._decoding
        older = len(decoding.members)
        unfinished = []
        for one in self._tail:
            if one.processed < one.prefill:
                unfinished.append(one)
            else:
                decoding.begin(one, iteration)
        needed = decoding.needed(iteration)
        if not decoding.members or needed < self._pool.free:
            self._pool.take(needed)
            prompts = self._skipped + unfinished
        else:
            running = [*islice(decoding.members.values(), older), *self._tail]
            prompts = self._skipped + self._squeeze(iteration, running, changes)
        self._tail = []
        budget = max(0, self._limits.max_num_batched_tokens - len(decoding.members))
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
            running = len(self._decoding.members) + len(batch)
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
        return self._decoding.composition(iteration, prompts)

    def alike(self, iteration: int, most: int) -> int:
        """How many batches from this one on, of `most` at most, have the same decoding requests and no prompt.

        Until one of them completes, or the KV cache is full. Nobody who waits is admitted meanwhile: what was in the
        way of that, too many requests or too few blocks or tokens, stays so.
        """
        return self._decoding.alike(iteration, most, self._pool.free - 1)

    def go_on(self, iteration: int, count: int) -> None:
        """Serve `count` iterations more, after this one, that are `alike`."""
        self._pool.take(self._decoding.needed_after(iteration, count))

    def end_batch(self, iteration: int, prompts: Prompts, changes: Changes) -> None:
        """Take down what the batch did, the last of several that are alike."""
        for one, tokens in prompts:
            if not one.scheduled:
                one.scheduled = True
                changes.scheduled.append(one.request_id)
            if one.preempted:
                one.preempted = False
                changes.num_preempted += 1
            one.processed += tokens
            if one.processed == one.prefill:
                one.first = iteration
                if one.decode == 1:
                    changes.finished.append(one.request_id)
                    changes.spans.append((one.request_id, iteration, 1))
                    self._pool.release(self._pool.needed(one.prefill))
                    continue
            self._tail.append(one)
        for one in self._decoding.finishing(iteration):
            changes.finished.append(one.request_id)
            self._pool.release(self._pool.needed(one.constant + iteration + 1))
            changes.spans.append((one.request_id, one.first, iteration - one.first + 1))

    # A full KV cache --------------------------------------------------------------------------------------------

    def _squeeze(self, iteration: int, running: list[Sequence], changes: Changes) -> list[Sequence]:
        """Give blocks to decoding requests one by one; the last to run make room. Those still in their prompt."""
        queue, prompts = deque(running), []
        while queue:
            one = queue.popleft()
            if one.request_id not in self._decoding.members:
                prompts.append(one)
                continue
            while self._pool.free < 1:
                if queue:
                    self._restart(queue.pop(), iteration, changes)
                else:
                    self._restart(one, iteration, changes)
                    break
            else:
                if self._decoding.needs(one, iteration):
                    self._pool.take(1)
        return prompts

    def _restart(self, one: Sequence, iteration: int, changes: Changes) -> None:
        """Preempt."""
        tokens = one.prefill
        if one.request_id in self._decoding.members:
            tokens = self._decoding.preempt(one, iteration, changes)
        one.processed = 0
        one.preempted = True
        changes.restarted.append(one.request_id)
        self._pool.preempt(one.request_id, self._pool.needed(tokens))
        self._waiting.appendleft(one)
