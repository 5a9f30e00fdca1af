"""The loop that serves a workload on an engine, real or simulated, in open loop."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from gpu_simulate_test.engine import Clock, EngineRequest, Failure
from gpu_simulate_test.timeline import Timeline

Done = TypeVar("Done", covariant=True)


class Server(Protocol[Done]):
    """What of an engine the loop needs."""

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; it waits until a step schedules it."""

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""

    def step(self) -> Done:
        """Run one iteration, or, on a virtual clock, several that nothing interrupts."""


def serve(
    engine: Server[Done],
    requests: Sequence[EngineRequest],
    arrival_ns: np.ndarray,
    clock: Clock,
    line: Timeline,
    before_idle: Callable[[int], object] = lambda _next_ns: None,
    before_step: Callable[[int | None], object] = lambda _next_ns: None,
) -> Iterator[Done]:
    """Hand `requests` over at `arrival_ns`, whatever the engine is doing, and yield every step.

    An engine that steps in our thread cannot be handed a request in the middle of a step: what arrives meanwhile is
    handed over when the step ends. Latency counts from the scheduled arrival all the same.

    Parameters
    ----------
    requests : sequence of EngineRequest
        In order of arrival.
    arrival_ns : numpy.ndarray of shape (n_requests,), int64
        Relative to ``line.origin_ns`` on `clock`, never decreasing.
    line : Timeline
        Takes down when each request was handed over, and which the engine refused. The steps are the caller's to enter:
        a measured engine does not wait for our books.
    before_idle : callable
        Called when the engine has nothing to do, with the time at which the next request comes.
    before_step : callable
        Called before each step likewise; with None when no further request comes.
    """
    arrivals = (arrival_ns + line.origin_ns).tolist()
    index, count = 0, len(requests)
    while True:
        while index < count and arrivals[index] <= clock.now_ns():
            _submit(engine, requests[index], clock, line)
            index += 1
        if engine.has_unfinished():
            before_step(arrivals[index] if index < count else None)
            yield engine.step()
        elif index < count:
            before_idle(arrivals[index])
            clock.sleep_until_ns(arrivals[index])
        else:
            return


def _submit(engine: Server[Done], request: EngineRequest, clock: Clock, line: Timeline) -> None:
    line.submit_ns[request.request_id] = clock.now_ns() - line.origin_ns
    try:
        engine.submit(request)
    except (ValueError, RuntimeError) as error:  # the engine's refusal of this request, not its end
        line.fail(Failure(request.request_id, type(error).__name__, str(error)))
