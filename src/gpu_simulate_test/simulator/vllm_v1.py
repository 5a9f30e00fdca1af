"""The scheduler of vLLM's V1 engine, in work that grows with the iterations and not with the tokens.

Its batches may be scheduled one ahead, as its asynchronous scheduling does: that of iteration n + 1 before the end of
iteration n. A request whose last token n makes is then left out of n + 1, but keeps its seat and its blocks.
"""

from collections import deque
from collections.abc import Sequence as Keys

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.simulator.block_cache import BlockCache
from gpu_simulate_test.simulator.decoding import Changes, Decoding, Prompts, Sequence


class VllmScheduler:
    """Who is in the next batch: those that run, in the order of their admission, then those that wait.

    At most one request that runs is still in its prompt, and it was admitted last: what a prompt lacks takes all tokens
    that are left. The last admitted are preempted where blocks run out; they wait before all others, and nobody is
    admitted in that iteration.

    Parameters
    ----------
    limits : EngineLimits
        No more requests run than a batch has tokens.
    prefixes : sequence of sequences of int, or None
        For each request, by its id, keys of its prompt's first whole blocks. Blocks with equal keys are shared.
    """

    def __init__(self, limits: EngineLimits, prefixes: Keys[Keys[int]] | None = None) -> None:
        self._limits = limits
        self._seats = min(limits.max_num_seqs, limits.max_num_batched_tokens)
        self._watermark = int(limits.watermark * (limits.num_blocks + 1))  # of the block it keeps for itself, too
        self._prefixes = prefixes if limits.enable_prefix_caching else None
        self._cache = BlockCache(limits)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # in the order of their admission
        self._decoding = Decoding(limits.block_size)
        self._batch: Prompts = []  # prompts of the batch scheduled last
        self._done: list[Sequence] = []  # their last token is being made
        self._preempted = False  # in the batch scheduled last

    def add(self, request: EngineRequest) -> None:
        """Let a request wait."""
        one = Sequence(request)
        if self._prefixes is not None:
            one.keys = self._prefixes[one.request_id]
        self._waiting.append(one)

    def num_waiting(self) -> int:
        """Requests that wait to be admitted, for the first time or again."""
        return len(self._waiting)

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""
        return bool(self._running or self._waiting)

    # An iteration -----------------------------------------------------------------------------------------------

    def schedule(self, iteration: int, changes: Changes) -> Prompts:
        """The prompts of the next batch, beside all decoding requests."""
        decoding = self._decoding
        partial = self._go_on_from_the_last(iteration)
        self._preempted = False
        given = 0  # to the first of those that need a block
        while (needed := decoding.needed(iteration) - given) > self._cache.free:
            given += self._cache.free
            self._cache.take(self._cache.free)
            self._preempt(iteration, changes)
        self._cache.take(needed)
        batch: Prompts = []
        budget = self._limits.max_num_batched_tokens - len(decoding.members)
        if partial is not None and not self._preempted:
            tokens = min(partial.prefill - partial.processed, budget)
            have = self._cache.needed(partial.processed)
            lacking = self._cache.needed(partial.processed + tokens) - have
            if lacking > self._cache.free:
                self._preempt(iteration, changes)
            else:
                self._cache.take(lacking)
                budget -= self._compute(partial, tokens, iteration, batch)
        if self._waiting and not self._preempted:
            self._admit(iteration, budget, batch, changes)
        self._batch = batch
        return batch

    def _go_on_from_the_last(self, iteration: int) -> Sequence | None:
        """Count what the last batch computes as computed; the request that is still in its prompt."""
        self._done += self._decoding.finishing(iteration - 1)
        partial = None
        for one, tokens in self._batch:
            one.processed += tokens
            if one.processed < one.prefill:
                partial = one
            elif one.decode > 1:
                self._decoding.begin(one, iteration)
        return partial

    def _compute(self, one: Sequence, tokens: int, iteration: int, batch: Prompts) -> int:
        """Put tokens of a prompt into the batch; others may find them at once."""
        batch.append((one, tokens))
        end = one.processed + tokens
        self._cache.keep(one.held, one.keys, end)
        if end == one.prefill:
            one.first = iteration
        return tokens

    def _admit(self, iteration: int, budget: int, batch: Prompts, changes: Changes) -> None:
        """Add to the batch what waits, as far as seats, KV blocks and tokens allow."""
        cache, size = self._cache, self._limits.block_size
        while self._waiting and budget and len(self._running) < self._seats:
            one = self._waiting[0]
            found = cache.find(one.request_id, one.keys, one.prefill)
            processed = found.blocks * size
            tokens = min(one.prefill - processed, budget)
            whole = one.prefill if self._limits.reserve_whole_prompt else processed + tokens
            spare = self._watermark if self._running else 0
            if cache.lacking(found, whole) + spare > cache.free:
                return
            self._waiting.popleft()
            self._running[one.request_id] = one
            cache.adopt(one.request_id, found)
            cache.take(cache.needed(processed + tokens) - found.blocks)
            one.held, one.processed = found.shared, processed
            if processed and not one.scheduled:
                changes.cached.append((one.request_id, processed))
            budget -= self._compute(one, tokens, iteration, batch)

    def composition(self, iteration: int, prompts: Prompts) -> Composition:
        """Of the batch that was scheduled last."""
        # One token after those that are in the cache is what a decoding request computes, too.
        alone = [one.processed for one, tokens in prompts if tokens == 1 and one.made]
        batch = self._decoding.composition(iteration, prompts)
        if not alone:
            return batch
        count, cached = len(alone), sum(alone)
        return Composition(
            batch.num_prefill_tokens - count,
            batch.num_prefill_seqs - count,
            batch.num_decode_seqs + count,
            batch.kv_tokens_prefill - cached,
            batch.kv_tokens_decode + cached,
            batch.prefill_pairs - cached - count,
            max(batch.max_kv_decode, *alone),
        )

    def alike(self, iteration: int, most: int) -> int:
        """How many batches from this one on, of `most` at most, have the same decoding requests and no prompt.

        Until one of them completes, or the KV cache is full. Nobody who waits is admitted meanwhile: what was in the
        way of that, too few seats, blocks or tokens, stays so; a preemption does not.
        """
        return 1 if self._preempted else self._decoding.alike(iteration, most, self._cache.free)

    def go_on(self, iteration: int, count: int) -> None:
        """Serve `count` iterations more, after this one, that are `alike`."""
        self._cache.take(self._decoding.needed_after(iteration, count))

    def end_batch(self, iteration: int, prompts: Prompts, changes: Changes) -> None:
        """Take down what the batch did, the last of several that are alike."""
        for one in (*self._done, *self._decoding.finishing(iteration)):
            self._finish(one, iteration, changes)
        self._done = []
        for one, _ in prompts:
            if not one.scheduled:
                one.scheduled = True
                changes.scheduled.append(one.request_id)
            if one.first == iteration and one.decode == 1:
                self._finish(one, iteration, changes)

    def _finish(self, one: Sequence, iteration: int, changes: Changes) -> None:
        changes.finished.append(one.request_id)
        changes.spans.append((one.request_id, one.first, iteration - one.first + 1))
        if one.request_id in self._running:  # not preempted while its last token was made
            del self._running[one.request_id]
            tokens = one.prefill + one.decode - 1
            self._cache.release(one.request_id, one.held, tokens, tokens, comes_back=False)

    # A full KV cache --------------------------------------------------------------------------------------------

    def _preempt(self, iteration: int, changes: Changes) -> None:
        """Take the blocks of the request that was admitted last."""
        _, one = self._running.popitem()
        self._preempted = True
        changes.restarted.append(one.request_id)
        changes.num_preempted += 1
        prompt, tokens, ends = one.prefill, one.processed, False
        if one.last >= 0:
            tokens = self._decoding.preempt(one, iteration, changes)
            one.first = -1
        elif tokens == prompt:
            tokens, ends = prompt + one.decode - 1, True  # its last token is being made
        # Where batches are scheduled ahead, the last token that was made is not known yet.
        known = max(min(prompt, tokens), tokens - 1) if self._limits.async_scheduling else tokens
        self._cache.release(one.request_id, one.held, tokens, known, comes_back=not ends)
        if not ends:
            one.processed = 0
            self._waiting.appendleft(one)
