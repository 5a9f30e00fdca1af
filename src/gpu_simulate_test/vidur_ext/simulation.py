"""One Vidur simulation: our workload in, every iteration out."""

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from vidur.config.config import (
    BaseRequestGeneratorConfig,
    CacheConfig,
    ClusterConfig,
    MetricsConfig,
    OrcaSchedulerConfig,
    ReplicaConfig,
    SarathiSchedulerConfig,
    SimulationConfig,
    VllmSchedulerConfig,
)
from vidur.entities.replica import Replica
from vidur.entities.request import Request
from vidur.request_generator.base_request_generator import BaseRequestGenerator
from vidur.request_generator.request_generator_registry import RequestGeneratorRegistry
from vidur.simulator import Simulator

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.simulator.timeline import Timeline
from gpu_simulate_test.vidur_ext.vidur_predictor import (
    GsimExecutionTimePredictorConfig,
    PredictNs,
    register_predictor,
)

_GENERATOR_TYPE = "gsim_workload"

_ONE_AT_A_TIME = threading.Lock()  # Vidur numbers replicas, requests and events by counters of the process


@dataclass(frozen=True)
class SimSettings:
    """Engine settings the simulation copies, from the real run where there is one."""

    model_id: str
    device: str
    network_device: str
    scheduler: str  # sarathi | vllm | orca
    limits: EngineLimits  # prefix caching: sarathi only

    def record(self) -> dict[str, Any]:
        """As ``run_meta.json`` keeps them."""
        return {**vars(self), "limits": self.limits.model_dump()}


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


@dataclass
class _WorkloadConfig(BaseRequestGeneratorConfig):
    """Our workload as Vidur's request source; Vidur's trace reader would round and clip it."""

    requests = cast(Sequence[Request], ())  # no field: Vidur's command line has them all

    @staticmethod
    def get_type() -> str:
        return _GENERATOR_TYPE


class _WorkloadGenerator(BaseRequestGenerator):
    def generate_requests(self) -> list[Request]:
        return list(self.config.requests)


def simulate(
    settings: SimSettings,
    arrival_ns: np.ndarray,
    num_prefill: Sequence[int],
    num_decode: Sequence[int],
    predict_ns: PredictNs,
    on_finished: Callable[[int], object] = lambda _count: None,
) -> Timeline:
    """Run Vidur on a workload.

    Parameters
    ----------
    arrival_ns : numpy.ndarray of shape (n_requests,)
    num_prefill, num_decode : sequence of int, length n_requests
    predict_ns : callable
        Time of a batch, ns, from its composition and Vidur's batch object.
    on_finished : callable
        Told how many requests completed in the last iteration.
    """
    register_predictor()
    RequestGeneratorRegistry.register(_GENERATOR_TYPE, _WorkloadGenerator)
    logging.getLogger("vidur").setLevel(logging.WARNING)
    line = Timeline.of(len(num_prefill))
    compositions: list[Composition] = []
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory(prefix="gsim-vidur-") as scratch:
        requests = [
            _Request(arrival / 1e9, int(prefill), int(decode))
            for arrival, prefill, decode in zip(arrival_ns.tolist(), num_prefill, num_decode, strict=True)
        ]
        index_of = {request.id: index for index, request in enumerate(requests)}
        config = _vidur_config(settings, scratch, requests, _observed(predict_ns, compositions))
        Replica._id = -1  # Vidur's global scheduler expects the first to be 0
        simulator = Simulator(config)
        if settings.limits.enable_prefix_caching:
            (replica,) = simulator.scheduler._replica_schedulers.values()
            _keep_prefixes(replica)
        simulator.metric_store.on_batch_end = _recorder(index_of, compositions, line, on_finished)
        simulator.metric_store.plot = lambda: None
        simulator.run()
    line.restarts = [request.num_restarts for request in requests]
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


def _observed(predict_ns: PredictNs, compositions: list[Composition]) -> PredictNs:
    """Keep each batch's composition when its time is predicted: afterwards it has moved on."""

    def predict(batch: Composition, vidur_batch: Any) -> float:
        compositions.append(batch)
        return predict_ns(batch, vidur_batch)

    return predict


def _recorder(
    index_of: dict[int, int],
    compositions: list[Composition],
    line: Timeline,
    on_finished: Callable[[int], object],
) -> Callable[[float, Any, Any, float], None]:
    """Called by Vidur at the end of every batch, after its requests were updated."""
    restarts = dict.fromkeys(index_of, 0)

    def record(time: float, batch: Any, replica_id: Any, memory_usage: float) -> None:
        number, preempted = len(line.start_ns), 0
        for request in batch.requests:
            index = index_of[request.id]
            if line.first_scheduled[index] < 0:
                line.first_scheduled[index] = number
            if request.num_restarts > restarts[request.id]:
                restarts[request.id] = request.num_restarts
                preempted += 1
            if request.is_prefill_complete:  # the last chunk makes a token, and so does every decode step
                line.add_token(index, number)
        line.add_iteration(batch.scheduled_at, time, compositions[number], preempted)
        on_finished(sum(request.completed for request in batch.requests))

    return record


def replica_config(settings: SimSettings) -> ReplicaConfig:
    """The model on one device."""
    return ReplicaConfig(
        model_name=settings.model_id,
        num_pipeline_stages=1,
        tensor_parallel_size=1,
        device=settings.device,
        network_device=settings.network_device,
    )


def cache_config(settings: SimSettings) -> CacheConfig:
    """The KV cache."""
    return CacheConfig(
        block_size=settings.limits.block_size,
        num_blocks=settings.limits.num_blocks,
        watermark_blocks_fraction=settings.limits.watermark,
    )


def _vidur_config(
    settings: SimSettings, scratch: str, requests: Sequence[Request], predict_ns: PredictNs
) -> SimulationConfig:
    limits = settings.limits
    scheduler = {
        "sarathi": lambda: SarathiSchedulerConfig(
            batch_size_cap=limits.max_num_seqs, chunk_size=limits.max_num_batched_tokens
        ),
        "vllm": lambda: VllmSchedulerConfig(
            batch_size_cap=limits.max_num_seqs, max_tokens_in_batch=limits.max_num_batched_tokens
        ),
        "orca": lambda: OrcaSchedulerConfig(batch_size_cap=limits.max_num_seqs),
    }[settings.scheduler]()
    workload = _WorkloadConfig(max_tokens=max(one.num_prefill_tokens + one.num_decode_tokens for one in requests))
    predictor = GsimExecutionTimePredictorConfig(no_cache=True)
    config = SimulationConfig(
        log_level="warning",
        cluster_config=ClusterConfig(
            replica_config=replica_config(settings),
            cache_config=cache_config(settings),
            replica_scheduler_config=scheduler,
        ),
        request_generator_config=workload,
        execution_time_predictor_config=predictor,
        metrics_config=MetricsConfig(
            write_metrics=False,
            write_json_trace=False,
            enable_chrome_trace=False,
            store_plots=False,
            output_dir=scratch,
        ),
    )
    workload.requests, predictor.predict_ns = requests, predict_ns  # now that Vidur has written its config to a file
    return config
