"""When requests are sent: at a time known beforehand, or when others complete.

One description for open loops, closed loops and conversations of several turns. Nothing in it is random: what is drawn
is drawn by `workload-spec`.
"""

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from gpu_simulate_test.spans import Ints

_NEVER = 1 << 63


@dataclass(frozen=True)
class ArrivalProcess:
    """How it comes to each request of a workload, by request id.

    A request with a known time is sent then. One that follows another is sent when that one ends, failed or not, after
    its delay. One with neither waits for its turn: whenever a request ends that nobody follows, the next of these is
    sent after its delay, as the users of a closed loop do.

    Attributes
    ----------
    known_ns : numpy.ndarray of shape (n_requests,), int64
        Since the run began; -1: not known beforehand.
    follows : numpy.ndarray of shape (n_requests,), int64
        An earlier request, which no other follows; -1: none.
    delay_ns : numpy.ndarray of shape (n_requests,), int64
        From the end of another until it is sent.
    """

    known_ns: Ints
    follows: Ints
    delay_ns: Ints

    @classmethod
    def at(cls, arrival_ns: Ints) -> "ArrivalProcess":
        """Open loop: at these times, whatever completes."""
        size = len(arrival_ns)
        return cls(arrival_ns, np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.int64))

    @classmethod
    def closed_loop(cls, num_requests: int, concurrency: int, think_ns: int = 0, ramp_ns: int = 0) -> "ArrivalProcess":
        """As many users, who begin evenly over `ramp_ns`; each sends a request, waits for it, thinks, and so on."""
        ids = np.arange(num_requests)
        known = np.where(ids < concurrency, ids * ramp_ns // concurrency, -1)
        delay = np.where(ids < concurrency, 0, think_ns)
        return cls(known, np.full(num_requests, -1, dtype=np.int64), delay)

    def __len__(self) -> int:
        return len(self.known_ns)

    @property
    def is_open(self) -> bool:
        """True where every time is known beforehand."""
        return bool((self.known_ns >= 0).all())

    def first(self, count: int | None) -> "ArrivalProcess":
        """Of the first `count` requests: nobody follows a later one."""
        return ArrivalProcess(self.known_ns[:count], self.follows[:count], self.delay_ns[:count])

    def later(self, shift_ns: int) -> "ArrivalProcess":
        """The same, seen by somebody whom every request reaches that much later."""
        known = np.where(self.known_ns < 0, self.known_ns, self.known_ns + shift_ns)
        return ArrivalProcess(known, self.follows, self.delay_ns + shift_ns)


class Arrivals:
    """Who comes next, as a run goes on.

    Parameters
    ----------
    process : ArrivalProcess
    origin_ns : int
        When the run began, on the clock of all times here.
    """

    def __init__(self, process: ArrivalProcess, origin_ns: int = 0) -> None:
        known = np.flatnonzero(process.known_ns >= 0)
        known = known[np.argsort(process.known_ns[known], kind="stable")]
        self._order: list[int] = known.tolist()
        self._times: list[int] = (process.known_ns[known] + origin_ns).tolist()
        self._next = 0
        self._released: list[tuple[int, int]] = []  # heap of (time, request)
        unknown = np.flatnonzero(process.known_ns < 0)
        follows = process.follows[unknown]
        self._follower = dict(zip(follows.tolist(), unknown.tolist(), strict=True))
        self._follower.pop(-1, None)
        self._waiting = deque(unknown[follows < 0].tolist())
        self._delay = process.delay_ns
        self._ended_ns = 0
        self.depends = bool(len(unknown))

    def next_ns(self) -> int | None:
        """When the next request comes, as far as is known; None: none does, unless another ends."""
        known = self._times[self._next] if self._next < len(self._times) else None
        if not self._released:
            return known
        return self._released[0][0] if known is None else min(known, self._released[0][0])

    def take(self, now_ns: int) -> tuple[int, int] | None:
        """The next request whose time has come, and that time."""
        known = None
        if self._next < len(self._times) and self._times[self._next] <= now_ns:
            known = self._times[self._next], self._order[self._next]
        # A clock of whole nanoseconds may be one behind the end that it was just told of.
        released = self._released[0] if self._released else (_NEVER, 0)
        if released[0] <= max(now_ns, self._ended_ns) and (known is None or released < known):
            heapq.heappop(self._released)
            return released[1], released[0]
        if known is None:
            return None
        self._next += 1
        return known[1], known[0]

    def end(self, request: int, at_ns: int) -> None:
        """A request ended: whoever waits for that is sent."""
        self._ended_ns = max(self._ended_ns, at_ns)
        after = self._follower.pop(request, None)
        if after is None and self._waiting:
            after = self._waiting.popleft()
        if after is not None:
            heapq.heappush(self._released, (at_ns + int(self._delay[after]), after))
