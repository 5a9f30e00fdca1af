"""Copies of an engine behind a router, each on a clock of its own."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpu_simulate_test.arrivals import ArrivalProcess, Arrivals
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import EngineRequest
from gpu_simulate_test.latency.calibration import NOTHING, Constants, Delivery
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.simulator.clock import VirtualClock
from gpu_simulate_test.simulator.engine import Asked, SimulatedStep, make_engine, run_core
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.timeline import Timeline


class _Replica:
    """One of the copies."""

    def __init__(self, core: "Core", latency: LatencyModel, line: Timeline) -> None:
        self.clock = VirtualClock()
        self.engine = make_engine(core.scheduler, core.limits, latency, self.clock, core.prefixes)
        self.line = line
        self.ends = Delivery(core.constants, core.limits, core.requests[2]).ends

    def works_before(self, next_ns: int | None, depends: bool) -> bool:
        """Whether it begins an iteration before then; where no further request comes, whether it has work.

        Parameters
        ----------
        depends : bool
            That time may be the end of its own last iteration, to which it was rounded.
        """
        if next_ns is None or not self.engine.has_unfinished():
            return self.engine.has_unfinished()
        return round(self.clock.now_s * 1e9) < next_ns if depends else self.clock.now_s < next_ns / 1e9

    def take(self, request: EngineRequest, depends: bool) -> None:
        """Get a request, when it comes or when the iteration ends that is under way."""
        if not depends or round(self.clock.now_s * 1e9) < request.arrival_ns:
            self.clock.sleep_until_ns(request.arrival_ns)
        self.engine.submit(request)

    def step(self, until_ns: int | None) -> SimulatedStep:
        """Run an iteration, or several until then."""
        self.engine.look_ahead(until_ns)
        step = self.engine.step()
        step.record(self.line)
        return step


def _round_robin(number: int, replicas: Sequence[_Replica]) -> int:
    return number % len(replicas)


def _least_outstanding(number: int, replicas: Sequence[_Replica]) -> int:
    """Of those with as many, the first; who runs already does not count, as Vidur has it."""
    waiting = [one.engine.num_waiting() for one in replicas]
    return waiting.index(min(waiting))


_ROUTERS = {"round_robin": _round_robin, "least_outstanding": _least_outstanding}


@dataclass(frozen=True)
class Core:
    """A simulation but for its latency model, to be handed to another process.

    Attributes
    ----------
    limits : EngineLimits
        Of each replica, and how many there are.
    requests : tuple of ArrivalProcess and two numpy.ndarray of shape (n_requests,), int64
        When they are sent; prompt and output tokens.
    scheduler, prefixes
        See `gpu_simulate_test.simulator.engine.run_core`.
    router : str
        ``round_robin`` or ``least_outstanding``: who gets a request when it arrives.
    constants : Constants
        When the engine sees a request, and when its tokens come out; how long iterations take is the latency model's.
    """

    limits: EngineLimits
    requests: tuple[ArrivalProcess, Ints, Ints]
    scheduler: str = "sarathi"
    prefixes: Sequence[Sequence[int]] | None = None
    router: str = "round_robin"
    constants: Constants = NOTHING

    def run(self, latency: LatencyModel, on_finished: Callable[[int], object] = lambda _count: None) -> Timeline:
        """Serve the requests; `on_finished` is told how many completed in the last step."""
        if self.limits.data_parallel == 1:
            return run_core(
                self.limits, latency, *self.requests, on_finished, self.scheduler, self.prefixes, self.constants
            )
        return self._share_out(latency, on_finished)

    def run_with(
        self, latency: LatencyModel, constants: Constants, on_finished: Callable[[int], object] = lambda _count: None
    ) -> Timeline:
        """Serve them with other constants."""
        return replace(self, constants=constants).run(latency, on_finished)

    def _share_out(self, latency: LatencyModel, on_finished: Callable[[int], object]) -> Timeline:
        """Serve requests on several replicas."""
        process, num_prefill, num_decode = self.requests
        seen = self.constants.seen(process)
        line, choose = Timeline(len(seen)), _ROUTERS[self.router]
        requests = Asked(seen.known_ns, num_prefill, num_decode)
        lines = [line, *(line.beside() for _ in range(1, self.limits.data_parallel))]
        replicas = [_Replica(self, latency, one) for one in lines]
        served_by = np.zeros(len(requests), dtype=np.int64)
        arrivals, count = Arrivals(seen), 0
        depends = arrivals.depends
        ends: list[tuple[int, int]] = []  # heap of those that may send another, by their time
        while True:
            coming = arrivals.next_ns()
            next_ns = ends[0][0] if ends and (coming is None or ends[0][0] <= coming) else coming
            working = sorted((one for one in replicas if one.works_before(next_ns, depends)), key=_now_s)
            if working:
                step = working[0].step(_until(next_ns, working) if depends else next_ns)
                for request, at_ns in step.ends(working[0].ends) if depends else ():
                    heapq.heappush(ends, (at_ns, request))
                if step.changes.finished:
                    on_finished(len(step.changes.finished))
            elif ends and ends[0][0] == next_ns:
                at_ns, request = heapq.heappop(ends)
                arrivals.end(request, at_ns)
            elif next_ns is not None:
                taken = arrivals.take(next_ns)
                assert taken is not None
                index, due_ns = taken
                served_by[index] = chosen = choose(count, replicas)
                line.arrival_ns[index], count = due_ns, count + 1
                replicas[chosen].take(replace(requests[index], arrival_ns=due_ns), depends)
            else:
                break
        line.join(lines[1:], served_by)
        self.constants.deliver(line, self.limits)
        return line


def _now_s(replica: _Replica) -> float:
    return replica.clock.now_s


def _until(next_ns: int | None, working: Sequence[_Replica]) -> int | None:
    """How far the replica that is furthest behind may go: the end of another's iteration may send it somebody."""
    if len(working) == 1:
        return next_ns
    return working[1].clock.now_ns() if next_ns is None else min(next_ns, working[1].clock.now_ns())
