"""Vidur's own loop, our workload in and every iteration out; and the core, held to it on the first requests."""

import logging
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from vidur.entities.replica import Replica
from vidur.simulator import Simulator

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.calibration import NOTHING, Constants, Delivery
from gpu_simulate_test.latency.model import LatencyModel, stages_of
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings, simulation_config
from gpu_simulate_test.vidur_ext.vidur_predictor import PredictNs, register_predictor
from gpu_simulate_test.vidur_ext.vidur_requests import Sender

log = logging.getLogger(__name__)

_CHECKED_REQUESTS, _CHECKED_TOKENS = 300, 40_000  # less than a second of Vidur's loop

_ONE_AT_A_TIME = threading.Lock()  # Vidur numbers replicas, requests and events by counters of the process


def simulate(
    settings: SimSettings,
    latency: LatencyModel,
    process: ArrivalProcess,
    num_prefill: Ints,
    num_decode: Ints,
    on_finished: Callable[[int], object] = lambda _count: None,
    look_at: Callable[[Any], object] | None = None,
    constants: Constants = NOTHING,
) -> Timeline:
    """Run Vidur on a workload.

    Parameters
    ----------
    latency : LatencyModel
    process : ArrivalProcess
    num_prefill, num_decode : numpy.ndarray of shape (n_requests,)
    on_finished : callable
        Told how many requests completed in the last iteration.
    look_at : callable or None
        Told of Vidur's own object of every batch before its time is asked.
    constants : Constants
    """
    register_predictor()
    logging.getLogger("vidur").setLevel(logging.WARNING)
    line = Timeline(len(num_prefill))
    lines = [line, *(line.beside() for _ in range(1, settings.limits.data_parallel))]
    served_by = np.zeros(len(num_prefill), dtype=np.int64)
    compositions: dict[int, Composition] = {}
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory(prefix="gsim-vidur-") as scratch:
        sender = Sender(constants.seen(process), num_prefill.tolist(), num_decode.tolist(), line)
        known = list(sender.due())
        config = simulation_config(
            settings, scratch, known, int((num_prefill + num_decode).max()), _observed(latency, look_at, compositions)
        )
        recorders = [
            _recorder(sender.index_of, compositions, one, served_by, number, on_finished)
            for number, one in enumerate(lines)
        ]
        deliveries = [Delivery(constants, settings.limits, num_decode) for _ in lines]
        Replica._id = -1  # Vidur's global scheduler expects the first to be 0
        simulator = Simulator(config)
        if settings.limits.enable_prefix_caching:
            for replica in simulator.scheduler._replica_schedulers.values():
                _keep_prefixes(replica)

        def on_batch_end(time: float, batch: Any, replica_id: Any, _memory: object) -> None:
            recorders[replica_id.id](time, batch)
            if sender.depends:
                sender.send(simulator, time, batch.requests, deliveries[replica_id.id])

        simulator.metric_store.on_batch_end = on_batch_end
        simulator.metric_store.plot = lambda: None
        simulator.run()
    for request_id, index in sender.index_of.items():
        line.restarts[index] = sender.made[request_id].num_restarts
    constants.deliver(line, settings.limits)
    if len(lines) > 1:
        line.join(lines[1:], served_by)
    return line


def _keep_prefixes(scheduler: Any) -> None:
    """Make Vidur's Sarathi replica scheduler resume preempted requests from what is left of their cache.

    Vidur computes everything again. vLLM only marks the blocks of a preempted request as free. They are given away from
    the request's end, after all blocks that were free before, and what is left of its beginning when it is admitted
    again need not be computed. Methods are wrapped on this one instance. The other schedulers cannot begin a prompt in
    the middle.
    """
    block_size: int = scheduler._cache_config.block_size
    allocate, free, next_tokens = scheduler.allocate, scheduler.free, scheduler._get_request_next_num_q_tokens
    given = 0  # blocks allocated so far
    left: dict[int, tuple[int, int]] = {}  # blocks of a request, and the count at which the first of them is given away

    def counting_allocate(request_id: int, num_blocks: int) -> None:
        nonlocal given
        given += num_blocks
        allocate(request_id, num_blocks)

    def remembering_free(*request_ids: int) -> None:
        for request_id in request_ids:
            free_before = scheduler._cache_config.num_blocks - scheduler._num_allocated_blocks
            left[request_id] = (scheduler._allocation_map[request_id], given + free_before)
            free(request_id)

    def resuming_next_tokens(request: Any, num_batch_tokens: int) -> int:
        waits = request.id not in scheduler._allocation_map
        if waits and request.num_restarts and request.id in left:
            blocks, first_given = left.pop(request.id)
            kept = max(0, blocks - max(0, given - first_given))
            # At least one token is computed: its logits are needed.
            request.resume(min(kept, (request.num_prefill_tokens - 1) // block_size) * block_size)
        return int(next_tokens(request, num_batch_tokens))

    scheduler.allocate, scheduler.free = counting_allocate, remembering_free
    scheduler._get_request_next_num_q_tokens = resuming_next_tokens


def _observed(
    latency: LatencyModel, look_at: Callable[[Any], object] | None, compositions: dict[int, Composition]
) -> PredictNs:
    """Keep each batch's composition when its time is predicted: afterwards it has moved on."""
    stages = stages_of(latency)

    def predict_ns(batch: Composition, vidur_batch: Any, stage: int) -> float:
        compositions[vidur_batch.id] = batch
        if look_at is not None:
            look_at(vidur_batch)
        return stages[stage].step_ns(batch, vidur_batch.scheduled_at * 1e9)

    return predict_ns


def _recorder(
    index_of: dict[int, int],
    compositions: dict[int, Composition],
    line: Timeline,
    served_by: Ints,
    replica: int,
    on_finished: Callable[[int], object],
) -> Callable[[float, Any], None]:
    """Called at the end of every batch of a replica, after its requests were updated."""
    restarts: dict[int, int] = defaultdict(int)
    making: dict[int, tuple[int, int]] = {}  # of requests that made tokens: the first iteration and their number

    def record(time: float, batch: Any) -> None:
        number, resumed = line.num_iterations, 0
        for request in batch.requests:
            index = index_of[request.id]
            if line.first_scheduled[index] < 0:
                line.first_scheduled[index] = number
                served_by[index] = replica
            if request.num_restarts > restarts[request.id]:
                restarts[request.id] = request.num_restarts
                resumed += 1
            if not request.is_prefill_complete:
                continue
            first, count = making.get(index, (number, 0))  # the last chunk makes a token, and so does every decode step
            if first + count < number:  # it was preempted
                line.add_span(index, first, count)
                first, count = number, 0
            making[index] = first, count + 1
            if request.completed:
                line.add_span(index, *making.pop(index))
        start_ns, end_ns = round(batch.scheduled_at * 1e9), round(time * 1e9)
        line.add_iteration(start_ns, end_ns, compositions.pop(batch.id), resumed)
        on_finished(sum(request.completed for request in batch.requests))

    return record


class Loop:
    """Runs simulations of one workload.

    Parameters
    ----------
    name : str
        ``core`` or ``vidur``.
    settings : SimSettings
    requests : tuple of ArrivalProcess and two numpy.ndarray of shape (n_requests,), int64
        When they are sent; prompt and output tokens.
    latency : LatencyModel
        What the two are compared with.
    look_at : callable or None
        Told of Vidur's batches, by a latency model that needs them: then Vidur's loop is used.
    prefixes : sequence of sequences of int, or None
        See `gpu_simulate_test.simulator.engine.run_core`.

    Attributes
    ----------
    name : str
        The loop in use: Vidur's own for what the core does not have, and where the two differ.
    core : Core
    checked : int
        Requests that both served alike.
    difference : str or None
        Where they differ, and in what.
    """

    def __init__(
        self,
        name: str,
        settings: SimSettings,
        requests: tuple[ArrivalProcess, Ints, Ints],
        latency: LatencyModel,
        look_at: Callable[[Any], object] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._look_at = look_at
        self.core = Core(settings.limits, requests, settings.scheduler, prefixes, settings.router)
        known = settings.scheduler in ("sarathi", "vllm_v1") and settings.limits.pipeline_parallel == 1
        self.name = name if known and look_at is None else "vidur"
        self.checked, self.difference = 0, None
        if self.name == "core" and settings.scheduler == "sarathi":
            num_decode = requests[2]
            enough = int(np.searchsorted(np.cumsum(num_decode), _CHECKED_TOKENS)) + 1
            first = min(enough, _CHECKED_REQUESTS)
            core, vidur = (self._serve(one, latency, first, lambda _count: None) for one in ("core", "vidur"))
            self.difference = core.difference(vidur)
            if self.difference is None:
                self.checked = min(first, len(num_decode))
            else:
                log.warning("our core differs from Vidur's loop, which is used: %s", self.difference)
                self.name = "vidur"

    def calibrated(self, constants: Constants) -> "Loop":
        """The same of an engine that sees requests, and whose tokens come out, as these constants say."""
        other = copy(self)
        other.core = replace(self.core, constants=constants)
        return other

    def run(self, latency: LatencyModel, on_finished: Callable[[int], object]) -> Timeline:
        """Simulate the workload; `on_finished` is told how many requests completed in the last iteration."""
        return self._serve(self.name, latency, len(self._requests[0]), on_finished)

    def described(self) -> str:
        """For a summary."""
        if self._settings.scheduler == "vllm_v1":
            return "our core; vLLM's rules, for which Vidur has no loop"
        if self.name == "core":
            return f"our core, identical to Vidur's loop on the first {self.checked} requests"
        pipeline = "; our core has no pipeline" if self._settings.limits.pipeline_parallel > 1 else ""
        return f"Vidur's own{pipeline}" + (f"; our core differs: {self.difference}" if self.difference else "")

    def _serve(self, name: str, latency: LatencyModel, count: int, on_finished: Callable[[int], object]) -> Timeline:
        process, num_prefill, num_decode = self._requests
        some = process.first(count), num_prefill[:count], num_decode[:count]
        if name == "core":
            return replace(self.core, requests=some).run(latency, on_finished)
        return simulate(self._settings, latency, *some, on_finished, self._look_at, self.core.constants)
