"""Vidur's own requests, made when they are sent."""

from collections.abc import Iterator
from typing import Any

from vidur.entities.request import Request
from vidur.events.replica_schedule_event import ReplicaScheduleEvent
from vidur.events.request_arrival_event import RequestArrivalEvent
from vidur.simulator import Simulator

from gpu_simulate_test.arrivals import ArrivalProcess, Arrivals
from gpu_simulate_test.latency.calibration import Delivery
from gpu_simulate_test.timeline import Timeline

_EVER = 1 << 62  # ns


class _Request(Request):
    """A request whose restart is complete.

    Vidur's own leaves the stage counters, and then asserts; and in the middle of a prompt it takes the part that was
    processed for the whole, and makes as many more output tokens.
    """

    def restart(self) -> None:
        lengths, in_prompt = (self.num_prefill_tokens, self.num_decode_tokens), not self.is_prefill_complete
        super().restart()
        if in_prompt:
            self._num_prefill_tokens, self._num_decode_tokens = lengths
        self._num_stage_processed_tokens = 0
        self._is_prefill_stage_complete = False

    def resume(self, num_cached: int) -> None:
        """Go on from tokens that are still in the cache."""
        self._num_processed_tokens = self._num_stage_processed_tokens = num_cached


class Sender:
    """Makes Vidur's requests when they are sent.

    Attributes
    ----------
    made : dict of int to _Request
        By Vidur's number of it.
    index_of : dict of int to int
        From that to our request id.
    depends : bool
        Whether some wait for the end of others.
    """

    def __init__(self, process: ArrivalProcess, num_prefill: list[int], num_decode: list[int], line: Timeline) -> None:
        self.made: dict[int, _Request] = {}
        self.index_of: dict[int, int] = {}
        self._arrivals = Arrivals(process)
        self._lengths = num_prefill, num_decode
        self._line = line
        self.depends = self._arrivals.depends

    def due(self) -> Iterator[_Request]:
        """Those whose time is known by now."""
        while (taken := self._arrivals.take(_EVER)) is not None:
            index, due_ns = taken
            self._line.arrival_ns[index] = due_ns
            request = _Request(due_ns / 1e9, *(lengths[index] for lengths in self._lengths))
            self.made[request.id], self.index_of[request.id] = request, index
            yield request

    def send(self, simulator: Simulator, time: float, served: list[Any], delivery: Delivery) -> None:
        """Send those who wait for requests of a batch that ended, before the next batch is made."""
        now_ns = round(time * 1e9)
        finished = [self.index_of[request.id] for request in served if request.completed]
        for index, at_ns in delivery.ends(now_ns, len(served), finished):
            self._arrivals.end(index, at_ns)
        for request in self.due():
            if round(request.arrived_at * 1e9) > now_ns:
                simulator._add_event(RequestArrivalEvent(request.arrived_at, request))
                continue
            simulator.scheduler.add_request(request)
            for replica_id, one in simulator.scheduler.schedule():
                simulator.scheduler.get_replica_scheduler(replica_id).add_request(one)
                simulator._add_event(ReplicaScheduleEvent(time, replica_id))
