"""The loop that serves a workload on an engine, real or simulated, in open loop and in closed loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from gpu_simulate_test.arrivals import ArrivalProcess, Arrivals
from gpu_simulate_test.engine import Clock, EngineRequest, Failure
from gpu_simulate_test.timeline import Timeline

Done = TypeVar("Done")
Done_co = TypeVar("Done_co", covariant=True)


class Server(Protocol[Done_co]):
    """What of an engine the loop needs."""

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; it waits until a step schedules it."""

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""

    def step(self) -> Done_co:
        """Run one iteration, or, on a virtual clock, several that nothing interrupts."""


def serve(
    engine: Server[Done],
    requests: Sequence[EngineRequest],
    process: ArrivalProcess,
    clock: Clock,
    line: Timeline,
    ends: Callable[[Done], Iterable[tuple[int, int]]],
    before_idle: Callable[[int], object] = lambda _next_ns: None,
    before_step: Callable[[int | None], object] = lambda _next_ns: None,
) -> Iterator[Done]:
    """Hand `requests` over when they are sent, whatever the engine is doing, and yield every step.

    An engine that steps in our thread cannot be handed a request in the middle of a step: what arrives meanwhile is
    handed over when the step ends. Latency counts from when it was sent all the same.

    Parameters
    ----------
    requests : sequence of EngineRequest
        By request id.
    process : ArrivalProcess
        When they are sent; its times are relative to ``line.origin_ns`` on `clock`.
    line : Timeline
        Takes down when each request was sent and handed over, and which the engine refused. The steps are the caller's
        to enter: a measured engine does not wait for our books.
    ends : callable
        Says which requests ended with a step, and when; asked where others wait for that.
    before_idle : callable
        Called when the engine has nothing to do, with the time at which the next request comes.
    before_step : callable
        Called before each step likewise; with None when no further request is known to come.
    """
    arrivals = Arrivals(process, line.origin_ns)
    while True:
        while (taken := arrivals.take(clock.now_ns())) is not None:
            index, sent_ns = taken[0], taken[1] - line.origin_ns
            line.arrival_ns[index] = sent_ns
            request = requests[index]
            if not _submit(engine, replace(request, arrival_ns=sent_ns) if arrivals.depends else request, clock, line):
                arrivals.end(index, clock.now_ns())
        if engine.has_unfinished():
            before_step(arrivals.next_ns())
            step = engine.step()
            if arrivals.depends:
                for index, at_ns in ends(step):
                    arrivals.end(index, at_ns)
            yield step
        elif (next_ns := arrivals.next_ns()) is not None:
            before_idle(next_ns)
            clock.sleep_until_ns(next_ns)
        else:
            return


def _submit(engine: Server[Done], request: EngineRequest, clock: Clock, line: Timeline) -> bool:
    line.submit_ns[request.request_id] = clock.now_ns() - line.origin_ns
    try:
        engine.submit(request)
    except (ValueError, RuntimeError) as error:  # the engine's refusal of this request, not its end
        line.fail(Failure(request.request_id, type(error).__name__, str(error)))
        return False
    return True
