"""Prefix caching after a preemption, which Vidur does not have: it computes everything again.

vLLM only marks the blocks of a preempted request as free. They are given away from the request's end, after all blocks
that were free before, and what is left of its beginning when it is admitted again need not be computed.
"""

from typing import Any


def keep_prefixes(scheduler: Any) -> None:
    """Make Vidur's Sarathi replica scheduler resume preempted requests from what is left of their cache.

    Its methods are wrapped on this one instance. The other schedulers cannot begin a prompt in the middle.
    """
    block_size: int = scheduler._cache_config.block_size
    allocate, free, next_tokens = scheduler.allocate, scheduler.free, scheduler._get_request_next_num_q_tokens
    given = 0  # blocks allocated so far
    left: dict[int, tuple[int, int]] = {}  # blocks of a request, and the count at which the first of them is given away

    def counting_allocate(request_id: int, num_blocks: int) -> None:
        nonlocal given
        given += num_blocks
        allocate(request_id, num_blocks)

    def remembering_free(*request_ids: int) -> None:
        for request_id in request_ids:
            free_before = scheduler._cache_config.num_blocks - scheduler._num_allocated_blocks
            left[request_id] = (scheduler._allocation_map[request_id], given + free_before)
            free(request_id)

    def resuming_next_tokens(request: Any, num_batch_tokens: int) -> int:
        waits = request.id not in scheduler._allocation_map
        if waits and request.num_restarts and request.id in left:
            blocks, first_given = left.pop(request.id)
            kept = max(0, blocks - max(0, given - first_given))
            # At least one token is computed: its logits are needed.
            request.resume(min(kept, (request.num_prefill_tokens - 1) // block_size) * block_size)
        return int(next_tokens(request, num_batch_tokens))

    scheduler.allocate, scheduler.free = counting_allocate, remembering_free
    scheduler._get_request_next_num_q_tokens = resuming_next_tokens
