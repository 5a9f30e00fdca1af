"""Sarathi's scheduler as Vidur has it, in work that grows with the iterations and not with the tokens.

What Vidur visits request by request is counted here. A decoding request's context grows by one an iteration, so its
context minus the number of the iteration never changes: one number says when it is as long as it gets, when it needs
another block, and how it compares with the others. Only where the KV cache runs full are the decoding requests gone
through one by one, in Vidur's order.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import islice

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.simulator.timeline import Timeline

StepNs = Callable[[Composition, float], float]
"""Time of a batch, ns, from its composition and the virtual time at which it begins, s."""


class SarathiCore:
    """The scheduler, its KV cache and its clock.

    Parameters
    ----------
    limits : EngineLimits
    step_ns : callable
    """

    def __init__(self, limits: EngineLimits, step_ns: StepNs) -> None:
        self._limits = limits
        self._step_ns = step_ns

    def run(
        self,
        arrival_ns: Sequence[int],
        num_prefill: Sequence[int],
        num_decode: Sequence[int],
        on_finished: Callable[[int], object] = lambda _count: None,
    ) -> Timeline:
        """Serve requests, given in order of arrival.

        Parameters
        ----------
        arrival_ns, num_prefill, num_decode : sequence of int, length n_requests
        on_finished : callable
            Told how many requests completed in the last iteration.
        """
        return _Run(self._limits, self._step_ns, arrival_ns, num_prefill, num_decode).serve(on_finished)


class _Run:
    def __init__(
        self,
        limits: EngineLimits,
        step_ns: StepNs,
        arrival_ns: Sequence[int],
        num_prefill: Sequence[int],
        num_decode: Sequence[int],
    ) -> None:
        size = len(arrival_ns)
        self.limits, self.step_ns = limits, step_ns
        self.arrived = [arrival / 1e9 for arrival in arrival_ns]  # s in floating point, as Vidur keeps time
        self.prefill, self.decode = list(num_prefill), list(num_decode)  # of the present pass: see `_restart`
        self.processed = [0] * size  # of the prompt
        self.free = limits.num_blocks
        self.watermark = limits.watermark_blocks
        self.waiting: deque[int] = deque()
        self.skipped: list[int] = []  # prompts that a batch had no budget for
        self.tail: list[int] = []  # the last batch's prompts, in its order
        self.order: dict[int, None] = {}  # decoding requests, in the order in which they are looked at
        self.constant = [0] * size  # of a decoding request: its context minus the number of the iteration
        self.sum_constants = 0
        self.longest: list[tuple[int, int]] = []  # heap of (-constant, request)
        self.needing: dict[int, int] = defaultdict(int)  # decoding requests by constant modulo the block size
        self.finishing: dict[int, list[int]] = defaultdict(list)  # requests by their last iteration
        self.last = [-1] * size
        self.given = 0  # blocks allocated so far
        self.left: dict[
            int, tuple[int, int]
        ] = {}  # of preempted requests: blocks, and the count at which the first is given away
        self.seen_restarts = [0] * size
        self.line = Timeline.of(size)

    def serve(self, on_finished: Callable[[int], object]) -> Timeline:
        now, arriving, size = 0.0, 0, len(self.arrived)
        while True:
            while arriving < size and self.arrived[arriving] <= now:
                self.waiting.append(arriving)
                arriving += 1
            prompts = self._schedule()
            if prompts is None:
                if arriving == size:
                    return self.line
                now = self.arrived[arriving]
                continue
            now, finished = self._iterate(now, prompts)
            if finished:
                on_finished(finished)

    # An iteration -----------------------------------------------------------------------------------------------

    def _schedule(self) -> list[tuple[int, int]] | None:
        """The prompts of the next batch and their tokens, beside all decoding requests; None when there is nothing."""
        limits = self.limits
        iteration = len(self.line.start_ns)
        older = len(self.order)
        unfinished = []
        for request in self.tail:
            if self.processed[request] < self.prefill[request]:
                unfinished.append(request)
            else:
                self._begin_decoding(request, iteration)
        needed = self.needing.get(-iteration % limits.block_size, 0)
        if not self.order or needed < self.free:
            self._take(needed)
            prompts = self.skipped + unfinished
        else:
            prompts = self.skipped + self._squeeze(iteration, [*islice(self.order, older), *self.tail])
        self.tail = []
        budget = limits.max_num_batched_tokens - len(self.order)
        batch: list[tuple[int, int]] = []
        self.skipped = []
        for request in prompts:
            tokens = min(self.prefill[request] - self.processed[request], max(0, budget))
            if tokens:
                budget -= tokens
                batch.append((request, tokens))
            else:
                self.skipped.append(request)
        self.skipped.sort(key=self.arrived.__getitem__)
        self._admit(batch, budget)
        return batch if batch or self.order else None

    def _admit(self, batch: list[tuple[int, int]], budget: int) -> None:
        """Add to the batch what waits, as far as requests, KV blocks and tokens allow."""
        limits = self.limits
        while self.waiting:
            running = len(self.order) + len(batch)
            if limits.max_num_seqs in (running, running + len(self.skipped)):
                return
            request = self.waiting[0]
            blocks = -(-self.prefill[request] // limits.block_size)
            if self.free - blocks < self.watermark:
                return
            if request in self.left:
                self._resume(request)
            tokens = min(self.prefill[request] - self.processed[request], max(0, budget))
            if not tokens:
                return
            self.waiting.popleft()
            self._take(blocks)
            budget -= tokens
            batch.append((request, tokens))

    def _iterate(self, now: float, prompts: list[tuple[int, int]]) -> tuple[float, int]:
        """Run a batch; when it ends, and how many requests it completes."""
        line, iteration = self.line, len(self.line.start_ns)
        batch = self._composition(iteration, prompts)
        end = now + self.step_ns(batch, now) / 1e9
        preempted = finished = 0
        for request, tokens in prompts:
            if line.first_scheduled[request] < 0:
                line.first_scheduled[request] = iteration
            if line.restarts[request] > self.seen_restarts[request]:
                self.seen_restarts[request] = line.restarts[request]
                preempted += 1
            self.processed[request] += tokens
            if self.processed[request] == self.prefill[request]:
                line.add_token(request, iteration)
                if self.decode[request] == 1:
                    finished += 1
                    self.free += self._held(request, self.prefill[request])
                    continue
            self.tail.append(request)
        line.add_iteration(now, end, batch, preempted)
        for request in self.finishing.pop(iteration, ()):
            if self.last[request] == iteration:
                finished += 1
                self.free += self._held(request, self.constant[request] + iteration + 1)
                self._end_decoding(request, iteration)
        return end, finished

    def _composition(self, iteration: int, prompts: list[tuple[int, int]]) -> Composition:
        new = cached = pairs = 0
        for request, tokens in prompts:
            before = self.processed[request]
            new += tokens
            cached += before
            pairs += tokens * (before + tokens)
        decoding = len(self.order)
        while self.longest and self._outdated(*self.longest[0]):
            heapq.heappop(self.longest)
        longest = iteration - self.longest[0][0] if decoding else 0
        return Composition(
            new, len(prompts), decoding, cached, self.sum_constants + decoding * iteration, pairs, longest
        )

    # Decoding requests ------------------------------------------------------------------------------------------

    def _begin_decoding(self, request: int, iteration: int) -> None:
        """From this iteration on; its first token, made at the end of its prompt, is not in the cache yet."""
        self.order[request] = None
        constant = self.prefill[request] - iteration
        self.constant[request] = constant
        self.sum_constants += constant
        self.needing[constant % self.limits.block_size] += 1
        heapq.heappush(self.longest, (-constant, request))
        self.last[request] = iteration + self.decode[request] - 2
        self.finishing[self.last[request]].append(request)

    def _end_decoding(self, request: int, iteration: int) -> None:
        """Its last token was made in this iteration."""
        del self.order[request]
        self.sum_constants -= self.constant[request]
        self.needing[self.constant[request] % self.limits.block_size] -= 1
        self.last[request] = -1
        first, _ = self.line.spans[request].pop()
        self.line.spans[request].append((first, iteration - first + 1))

    def _outdated(self, negated: int, request: int) -> bool:
        return request not in self.order or -negated != self.constant[request]

    # The KV cache -----------------------------------------------------------------------------------------------

    def _take(self, blocks: int) -> None:
        self.free -= blocks
        self.given += blocks

    def _held(self, request: int, tokens: int) -> int:
        return -(-tokens // self.limits.block_size)

    def _squeeze(self, iteration: int, running: list[int]) -> list[int]:
        """Give blocks to decoding requests one by one; the last to run make room. Those still in their prompt."""
        queue, prompts = deque(running), []
        while queue:
            request = queue.popleft()
            if request not in self.order:
                prompts.append(request)
                continue
            while self.free < 1:
                if queue:
                    self._restart(queue.pop(), iteration)
                else:
                    self._restart(request, iteration)
                    break
            else:
                if (self.constant[request] + iteration) % self.limits.block_size == 0:
                    self._take(1)
        return prompts

    def _restart(self, request: int, iteration: int) -> None:
        """Preempt: it waits before all others, and begins anew with what it has made as part of its prompt."""
        tokens = self.prefill[request]
        if request in self.order:
            tokens = self.constant[request] + iteration
            total = self.prefill[request] + self.decode[request]
            self._end_decoding(request, iteration - 1)
            self.prefill[request] = tokens + 1
            self.decode[request] = total - tokens - 1
        self.processed[request] = 0
        self.line.restarts[request] += 1
        blocks = self._held(request, tokens)
        if self.limits.enable_prefix_caching:
            self.left[request] = blocks, self.given + self.free
        self.free += blocks
        self.waiting.appendleft(request)

    def _resume(self, request: int) -> None:
        """Begin with what of its cache was not given away; at least one token is computed, for its logits."""
        blocks, first_given = self.left.pop(request)
        kept = max(0, blocks - max(0, self.given - first_given))
        size = self.limits.block_size
        self.processed[request] = min(kept, (self.prefill[request] - 1) // size) * size
