"""Copies of an engine behind a router, each on a clock of its own."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.latency.calibration import NOTHING, Constants
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.simulator.clock import VirtualClock
from gpu_simulate_test.simulator.engine import Asked, make_engine, run_core
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.timeline import Timeline


class _Replica:
    """One of the copies."""

    def __init__(self, core: "Core", latency: LatencyModel, line: Timeline) -> None:
        self.clock = VirtualClock()
        self.engine = make_engine(core.scheduler, core.limits, latency, self.clock, core.prefixes)
        self.line = line

    def serve_until(self, next_ns: int | None, on_finished: Callable[[int], object]) -> None:
        """Begin every iteration that begins before then; all, where no further request comes."""
        self.engine.look_ahead(next_ns)
        while self.engine.has_unfinished() and (next_ns is None or self.clock.now_s < next_ns / 1e9):
            step = self.engine.step()
            step.record(self.line)
            if step.changes.num_finished:
                on_finished(step.changes.num_finished)


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
    requests : tuple of three numpy.ndarray of shape (n_requests,), int64
        Arrivals in ns, ascending; prompt and output tokens.
    scheduler, prefixes
        See `gpu_simulate_test.simulator.engine.run_core`.
    router : str
        ``round_robin`` or ``least_outstanding``: who gets a request when it arrives.
    constants : Constants
        When the engine sees a request, and when its tokens come out; how long iterations take is the latency model's.
    """

    limits: EngineLimits
    requests: tuple[Ints, Ints, Ints]
    scheduler: str = "sarathi"
    prefixes: Sequence[Sequence[int]] | None = None
    router: str = "round_robin"
    constants: Constants = NOTHING

    def run(self, latency: LatencyModel, on_finished: Callable[[int], object] = lambda _count: None) -> Timeline:
        """Serve the requests; `on_finished` is told how many completed in the last step."""
        arrival_ns, num_prefill, num_decode = self.requests
        seen = self.constants.seen_ns(arrival_ns), num_prefill, num_decode
        if self.limits.data_parallel == 1:
            line = run_core(self.limits, latency, *seen, on_finished, self.scheduler, self.prefixes)
        else:
            line = self._share_out(latency, seen, on_finished)
        self.constants.deliver(line, self.limits)
        return line

    def _share_out(
        self, latency: LatencyModel, seen: tuple[Ints, Ints, Ints], on_finished: Callable[[int], object]
    ) -> Timeline:
        """Serve requests on several replicas."""
        line, requests, choose = Timeline(len(seen[0])), Asked(*seen), _ROUTERS[self.router]
        lines = [line, *(line.beside() for _ in range(1, self.limits.data_parallel))]
        replicas = [_Replica(self, latency, one) for one in lines]
        served_by = np.empty(len(requests), dtype=np.int64)
        for number, request in enumerate(requests):
            for one in replicas:
                one.serve_until(request.arrival_ns, on_finished)
            served_by[number] = chosen = choose(number, replicas)
            replicas[chosen].clock.sleep_until_ns(request.arrival_ns)
            replicas[chosen].engine.submit(request)
        for one in replicas:
            one.serve_until(None, on_finished)
        line.submit_ns = array("q", seen[0].tolist())
        line.join(lines[1:], served_by)
        return line
