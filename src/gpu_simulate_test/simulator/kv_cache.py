"""The KV cache as a scheduler sees it: a number of blocks."""

from gpu_simulate_test.config.limits import EngineLimits


class BlockPool:
    """Blocks that are free, and what is left of the cache of preempted requests.

    vLLM only marks the blocks of a preempted request as free. They are given away from the request's end, after all
    blocks that were free before; what is left of its beginning when it is admitted again need not be computed.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.free = limits.num_blocks
        self._size = limits.block_size
        self._watermark = limits.watermark_blocks
        self._given = 0  # blocks allocated so far
        # Of preempted requests: their blocks, and the count at which the first of them is given away.
        self._left: dict[int, tuple[int, int]] | None = {} if limits.enable_prefix_caching else None

    def needed(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self._size)

    def admits(self, blocks: int) -> bool:
        """Whether a new request may have them."""
        return self.free - blocks >= self._watermark

    def take(self, blocks: int) -> None:
        """Allocate."""
        self.free -= blocks
        self._given += blocks

    def release(self, blocks: int) -> None:
        """Free those of a request that is done."""
        self.free += blocks

    def preempt(self, request: int, blocks: int) -> None:
        """Free those of a request that comes back."""
        if self._left is not None:
            self._left[request] = blocks, self._given + self.free
        self.free += blocks

    def reused(self, request: int, prompt: int) -> int | None:
        """Tokens of a prompt that are still there, asked once, on admission; None where it was never preempted.

        At least one token is computed: its logits are needed.
        """
        if not self._left or request not in self._left:
            return None
        blocks, first_given = self._left.pop(request)
        kept = max(0, blocks - max(0, self._given - first_given))
        return min(kept, (prompt - 1) // self._size) * self._size
