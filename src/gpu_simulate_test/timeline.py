"""What serving made: every iteration, and who made tokens in it; one record for real and for simulated runs."""

from array import array
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gpu_simulate_test.engine import COMPOSITION, Composition, Failure, Step
from gpu_simulate_test.spans import Ints, Spans

ITERATION_COLUMNS = ("start_time_ns", "end_time_ns", *COMPOSITION, "num_preempted")


class Timeline:
    """Iterations in order, and the requests' share in them; times in ns since the run began.

    Kept in arrays of integers, for a run may have millions of iterations and of requests.

    Parameters
    ----------
    num_requests : int
        Their ids are 0 to `num_requests` - 1.
    origin_ns : int
        When the run began, on the clock of its steps.

    Attributes
    ----------
    arrival_ns, submit_ns : array of int of shape (n_requests,)
        When each request was sent, or due to be, and when the engine got it.
    first_scheduled : array of int of shape (n_requests,)
        The iteration that first took it up; -1: none.
    restarts : array of int of shape (n_requests,)
        How often its cache was taken away.
    cached : array of int of shape (n_requests,)
        Prompt tokens that it found in the cache when it was first taken up.
    failures : dict of int to Failure
    replica : array of int of shape (n_requests,), or None
        Which of several replicas served each request.
    begins : list of int
        The first iteration of each replica, where there are several.
    host_ns : numpy.ndarray of shape (n_iterations,), or None
        How long after the end of each iteration its tokens come out; None: at its end.
    later_ns : int
        By which all tokens but a request's first come out later still.
    """

    def __init__(self, num_requests: int, origin_ns: int = 0) -> None:
        self.origin_ns = origin_ns
        self.arrival_ns = array("q", [-1]) * num_requests
        self.submit_ns = array("q", [-1]) * num_requests
        self.first_scheduled = array("q", [-1]) * num_requests
        self.restarts = array("q", [0]) * num_requests
        self.cached = array("q", [0]) * num_requests
        self.failures: dict[int, Failure] = {}
        self.replica: array[int] | None = None
        self.begins: list[int] = []
        self.host_ns: Ints | None = None
        self.later_ns = 0
        self._iterations = array("q")  # rows of ITERATION_COLUMNS, one after another
        self._spans = array("q")  # rows of a request, its first iteration and their number
        self._token_ids = array("q")  # of a real run, whose spans are of one token each

    # What is entered ------------------------------------------------------------------------------------------------

    def add_iteration(self, start_ns: int, end_ns: int, batch: Composition, num_preempted: int) -> None:
        """Add the next iteration."""
        self._iterations.extend((start_ns, end_ns, *batch, num_preempted))

    def add_iterations(self, rows: Ints | tuple[int, ...]) -> None:
        """Add the next ones, shape (n, len(ITERATION_COLUMNS)); a tuple is one."""
        if isinstance(rows, tuple):
            self._iterations.extend(rows)
        else:
            self._iterations.frombytes(rows.tobytes())

    def add_span(self, request: int, first: int, count: int) -> None:
        """A request made a token in each of `count` iterations, from the `first` on."""
        self._spans.extend((request, first, count))

    def add_step(self, step: Step) -> None:
        """Add what one iteration of a real engine did."""
        number = self.num_iterations
        self.add_iteration(
            step.start_ns - self.origin_ns,
            step.end_ns - self.origin_ns,
            Composition.of(step.batch),
            len(step.preempted),
        )
        for seq in step.batch:
            if self.first_scheduled[seq.request_id] < 0:
                self.first_scheduled[seq.request_id] = number
                self.cached[seq.request_id] = seq.num_cached
        for request in step.preempted:
            self.restarts[request] += 1
        for token in step.tokens:
            self.add_span(token.request_id, number, 1)
            self._token_ids.append(token.token_id)
        for failure in step.failures:
            self.fail(failure)

    def fail(self, failure: Failure) -> None:
        """A request ended without completing."""
        self.failures[failure.request_id] = failure

    # Several replicas -----------------------------------------------------------------------------------------------

    def beside(self) -> "Timeline":
        """That of another replica, which serves others of the same requests; it is to be joined in the end."""
        other = Timeline(0, self.origin_ns)
        other.arrival_ns, other.submit_ns = self.arrival_ns, self.submit_ns
        other.first_scheduled, other.restarts = self.first_scheduled, self.restarts
        other.cached, other.failures = self.cached, self.failures
        return other

    def join(self, others: "Sequence[Timeline]", replica: Ints) -> None:
        """Put the iterations of other replicas behind one's own.

        Parameters
        ----------
        others : sequence of Timeline
            From `beside`.
        replica : numpy.ndarray of shape (n_requests,)
            Which of all of them, from 0, served each request.
        """
        self.replica = array("q", replica.tolist())
        self.begins = [0, *np.cumsum([one.num_iterations for one in (self, *others)]).tolist()[:-1]]
        first = np.array(self.first_scheduled, dtype=np.int64)
        self.first_scheduled = array("q", np.where(first < 0, first, first + np.array(self.begins)[replica]).tolist())
        for one, begins in zip(others, self.begins[1:], strict=True):
            spans = np.array(one._spans, dtype=np.int64).reshape(-1, 3)
            spans[:, 1] += begins
            self._spans.frombytes(spans.tobytes())
            self._iterations.extend(one._iterations)

    def replica_of(self, begin: int, end: int) -> Ints:
        """Of the iterations from `begin` up to `end`, shape (end - begin,)."""
        return np.searchsorted(self.begins, np.arange(begin, end), side="right") - 1

    # What is read ---------------------------------------------------------------------------------------------------

    @property
    def num_requests(self) -> int:
        """Requests of the run, served or not."""
        return len(self.restarts)

    @property
    def num_iterations(self) -> int:
        """Iterations entered so far."""
        return len(self._iterations) // len(ITERATION_COLUMNS)

    @property
    def iterations(self) -> Ints:
        """All of them, shape (n_iterations, len(ITERATION_COLUMNS)); none can be added while somebody holds it."""
        return np.frombuffer(self._iterations, dtype=np.int64).reshape(-1, len(ITERATION_COLUMNS))

    @property
    def start_ns(self) -> Ints:
        """When each iteration began, shape (n_iterations,)."""
        return self.iterations[:, 0].copy()

    @property
    def end_ns(self) -> Ints:
        """When each iteration ended, shape (n_iterations,)."""
        return self.iterations[:, 1].copy()

    @property
    def num_seqs(self) -> Ints:
        """Sequences in each iteration, prompts and decoding ones, shape (n_iterations,)."""
        kinds = [ITERATION_COLUMNS.index(f"num_{kind}_seqs") for kind in ("prefill", "decode")]
        found: Ints = self.iterations[:, kinds].sum(axis=1)
        return found

    @property
    def out_ns(self) -> Ints:
        """When the first tokens made in each iteration come out, shape (n_iterations,): in order, as they are made."""
        end_ns = self.end_ns
        if self.host_ns is None:
            return end_ns
        pieces = pairwise([*(self.begins or [0]), len(end_ns)])
        return np.concatenate([np.maximum.accumulate((end_ns + self.host_ns)[slice(*one)]) for one in pieces])

    @property
    def batches(self) -> list[Composition]:
        """What each iteration was made of."""
        return [Composition(*row) for row in self.iterations[:, 2 : 2 + len(COMPOSITION)].tolist()]

    def spans(self) -> Spans:
        """Who made tokens when, request by request."""
        rows = np.frombuffer(self._spans, dtype=np.int64).reshape(-1, 3)
        order = np.argsort(rows[:, 0], kind="stable")  # those of a request are in order of time
        token_ids = np.frombuffer(self._token_ids, dtype=np.int64)[order] if self._token_ids else None
        request, first, count = (np.ascontiguousarray(column) for column in rows[order].T)
        return Spans(request, first, count, token_ids)

    def token_counts(self) -> Ints:
        """Output tokens of each request, those of a failed one included, shape (n_requests,)."""
        return self.spans().counts(self.num_requests)

    def token_times_ns(self) -> list[list[int]]:
        """When each output token was made, a list for each request."""
        times = self.end_ns[self.spans().iterations()]
        return [one.tolist() for one in np.split(times, np.cumsum(self.token_counts())[:-1])]

    def difference(self, other: "Timeline") -> str | None:
        """The first thing in which two differ; None where they are the same to the nanosecond."""
        mine, theirs = self.iterations, other.iterations
        common = min(len(mine), len(theirs))
        if len(unlike := np.flatnonzero((mine[:common] != theirs[:common]).any(axis=1))):
            number = int(unlike[0])
            return f"iteration {number}: {_said(mine[number])} and {_said(theirs[number])}"
        if len(mine) != len(theirs):
            return f"{len(mine)} and {len(theirs)} iterations"
        same = self.first_scheduled == other.first_scheduled and self.restarts == other.restarts
        same = same and self.replica == other.replica
        same = same and self.cached == other.cached and self.token_times_ns() == other.token_times_ns()
        return None if same else "the requests' shares in the iterations"


def _said(iteration: Ints) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(ITERATION_COLUMNS, iteration.tolist(), strict=True))
