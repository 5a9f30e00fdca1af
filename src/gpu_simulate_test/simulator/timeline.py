"""What a simulation made: every iteration, and who made tokens in it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu_simulate_test.engine import Composition

Ints = npt.NDArray[np.int64]


@dataclass
class Timeline:
    """Iterations in order, and the requests' share in them.

    Attributes
    ----------
    start_ns, end_ns : list of int
        One entry an iteration.
    batches : list of Composition
    preempted : list of int
        Requests that an iteration took up again after they were preempted.
    first_scheduled : list of int
        The iteration that first took up each request.
    spans : list of list of (int, int)
        For each request, runs of iterations, the first and the number of them, in each of which it made a token.
    restarts : list of int
        How often each request was preempted.
    """

    start_ns: list[int] = field(default_factory=list)
    end_ns: list[int] = field(default_factory=list)
    batches: list[Composition] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    first_scheduled: list[int] = field(default_factory=list)
    spans: list[list[tuple[int, int]]] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, num_requests: int) -> "Timeline":
        """Before the first iteration."""
        spans: list[list[tuple[int, int]]] = [[] for _ in range(num_requests)]
        return cls(first_scheduled=[-1] * num_requests, spans=spans, restarts=[0] * num_requests)

    def add_iteration(self, start_s: float, end_s: float, batch: Composition, preempted: int) -> None:
        """Add one that ran from `start_s` to `end_s`."""
        self.start_ns.append(round(start_s * 1e9))
        self.end_ns.append(round(end_s * 1e9))
        self.batches.append(batch)
        self.preempted.append(preempted)

    def add_token(self, request: int, iteration: int) -> None:
        """Add one that the request made in this iteration."""
        runs = self.spans[request]
        first, count = runs.pop() if runs and sum(runs[-1]) == iteration else (iteration, 0)
        runs.append((first, count + 1))

    def token_counts(self) -> Ints:
        """Output tokens of each request, shape (n_requests,)."""
        return np.array([sum(count for _, count in runs) for runs in self.spans], dtype=np.int64)

    def token_iterations(self, requests: slice = slice(None)) -> Ints:
        """The iteration of every output token of these requests, one after another, shape (n_tokens,)."""
        runs = np.array([run for one in self.spans[requests] for run in one], dtype=np.int64).reshape(-1, 2)
        first, count = runs[:, 0], runs[:, 1]
        begins = np.cumsum(count) - count
        return np.repeat(first - begins, count) + np.arange(int(count.sum()))

    def token_times_ns(self) -> list[list[int]]:
        """When each output token was made, a list for each request."""
        times = np.array(self.end_ns, dtype=np.int64)[self.token_iterations()]
        return [one.tolist() for one in np.split(times, np.cumsum(self.token_counts())[:-1])]

    def difference(self, other: "Timeline") -> str | None:
        """The first thing in which two differ; None where they are the same to the nanosecond."""
        for number, (mine, theirs) in enumerate(zip(self._iterations(), other._iterations(), strict=False)):
            if mine != theirs:
                return f"iteration {number}: {mine} and {theirs}"
        if len(self.start_ns) != len(other.start_ns):
            return f"{len(self.start_ns)} and {len(other.start_ns)} iterations"
        return None if self == other else "the requests' shares in the iterations"

    def _iterations(self) -> Iterable[tuple[int, int, Composition, int]]:
        return zip(self.start_ns, self.end_ns, self.batches, self.preempted, strict=True)
