"""vLLM's KV cache: blocks that keep what is in them until they are given away.

Free blocks are given away in this order: those with nothing to find in them, then the others, least recently used
first. A request's blocks are freed from its end, so that a beginning is kept longest.
"""

from collections import OrderedDict
from collections.abc import Sequence as Keys

from gpu_simulate_test.config.limits import EngineLimits


class Kept:
    """A block that any request with its key may share, or the blocks that only one request can find.

    Only whole blocks are kept. Those of one request alone are freed, found and, from their end, given away together,
    so one object stands for all of them.
    """

    __slots__ = ("count", "key", "request", "users")

    def __init__(self, key: int | None, request: int, count: int, users: int) -> None:
        self.key = key
        self.request = request
        self.count = count
        self.users = users


class Found:
    """Blocks of a request's beginning that are in the cache: shared ones, and its own after all of these."""

    __slots__ = ("own", "shared")

    def __init__(self, shared: list[Kept], own: int) -> None:
        self.shared = shared
        self.own = own

    @property
    def blocks(self) -> int:
        """How many."""
        return len(self.shared) + self.own


class BlockCache:
    """Blocks that are free, and what is found in them.

    Attributes
    ----------
    free : int
        Blocks that can be given away.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.free = self._empty = limits.num_blocks
        self._size = limits.block_size
        self._keeps = limits.enable_prefix_caching
        self._idle: OrderedDict[Kept, None] = OrderedDict()  # free, with something in them; next to be given away first
        self._shared: dict[int, list[Kept]] = {}  # by key; several where a prompt's last block was computed again
        self._own: dict[int, Kept] = {}  # of preempted requests

    def needed(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self._size)

    def find(self, request: int, keys: Keys[int], tokens: int) -> Found:
        """What is there of the beginning of `tokens` tokens, of which at least one is computed: its logits are needed.

        Parameters
        ----------
        keys : sequence of int
            Of the first blocks.
        """
        found = Found([], 0)
        if not self._keeps:
            return found
        most = (tokens - 1) // self._size
        for key in keys[:most]:
            if key not in self._shared:
                return found
            found.shared.append(self._shared[key][0])
        if request in self._own and len(found.shared) == len(keys):
            found.own = min(self._own[request].count, most - len(keys))
        return found

    def lacking(self, found: Found, tokens: int) -> int:
        """Free blocks that a request of `tokens` tokens would take, those among what was found for it included."""
        return self.needed(tokens) - sum(block.users > 0 for block in found.shared)

    def adopt(self, request: int, found: Found) -> None:
        """Let a request have what was found for it."""
        for block in found.shared:
            if not block.users:
                del self._idle[block]
                self.free -= 1
            block.users += 1
        if found.own:
            run = self._own[request]
            run.count -= found.own
            self.free -= found.own
            if not run.count:
                del self._idle[run]
                del self._own[request]

    def take(self, blocks: int) -> None:
        """Give away."""
        self.free -= blocks
        self._empty -= blocks
        while self._empty < 0:
            run = next(iter(self._idle))
            if run.count > -self._empty:
                run.count += self._empty
                self._empty = 0
            else:
                self._empty += run.count
                self._forget(run)

    def _forget(self, run: Kept) -> None:
        del self._idle[run]
        if run.key is not None:
            same = self._shared[run.key]
            same.remove(run)
            if not same:
                del self._shared[run.key]
        elif self._own.get(run.request) is run:
            del self._own[run.request]

    def keep(self, held: list[Kept], keys: Keys[int], tokens: int) -> None:
        """Let the blocks that `tokens` tokens of a request fill be found by others, as far as they have keys.

        Parameters
        ----------
        held : list of Kept
            Those of its blocks that have been kept so far; more are added.
        """
        if self._keeps:
            for key in keys[len(held) : tokens // self._size]:
                block = Kept(key, -1, 1, 1)
                self._shared.setdefault(key, []).append(block)
                held.append(block)

    def release(self, request: int, held: list[Kept], tokens: int, computed: int, comes_back: bool) -> None:
        """Free the blocks of a request.

        Parameters
        ----------
        held : list of Kept
            Its shared blocks; emptied.
        tokens, computed : int
            That the blocks are for, and that are in them and known.
        """
        blocks = self.needed(tokens)
        kept = computed // self._size if self._keeps else 0
        self.free += blocks - len(held)
        self._empty += blocks - kept
        if own := kept - len(held):
            run = Kept(None, request, own, 0)
            self._idle[run] = None
            if comes_back:
                self._own[request] = run
        while held:
            block = held.pop()
            block.users -= 1
            if not block.users:
                self._idle[block] = None
                self.free += 1
