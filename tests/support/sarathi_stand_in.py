"""Sarathi-Serve's engine with workers that compute nothing: its own bookkeeping and protocol, made-up tokens.

A token's id is the number of tokens before it.
"""

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import zmq
from sarathi.config import BaseSchedulerConfig, CacheConfig, ParallelConfig, SystemConfig
from sarathi.core.datatypes.sequence import SamplerOutput
from sarathi.core.proto_utils import deserialize_step_inputs, serialize_sampler_outputs
from sarathi.core.scheduler.scheduler_registry import SchedulerRegistry
from sarathi.core.sequence_manager.engine_sequence_manager import EngineSequenceManager
from sarathi.core.sequence_manager.worker_sequence_manager import WorkerSequenceManager
from sarathi.engine.base_llm_engine import BaseLLMEngine
from sarathi.metrics.constants import CpuOperationMetrics
from sarathi.metrics.cpu_timer import CpuTimer
from sarathi.metrics.metrics_store import MetricsStore

from gpu_simulate_test.real_bench.backends.sarathi_backend import LimitedEngine

POISON = 666
MEASURED_BLOCKS = 500


class Bookkeeping:
    """What their worker does with a message, but for the model; it keeps block tables of its own."""

    def __init__(self, config: Any) -> None:
        self.manager = WorkerSequenceManager(config)

    def answer(self, message: bytes) -> bytes:
        inputs = deserialize_step_inputs(message)
        for seq in inputs.new_seqs or ():
            if POISON in seq.prompt_token_ids:
                os._exit(1)
            self.manager.add_seq(seq)
        _, scheduled = self.manager.on_schedule(inputs.scheduler_outputs)
        outputs = [SamplerOutput(entry.seq.seq_id, entry.seq.get_len()) for entry in scheduled]
        self.manager.on_step_completed(inputs.scheduler_outputs, outputs)
        return serialize_sampler_outputs(outputs)


class StandInWorker:
    """Their worker's interface, in a Ray actor, over ZeroMQ."""

    def __init__(self, config: SystemConfig, local_rank: int, rank: int, comm_info: Any) -> None:
        self.config = config
        self.comm = comm_info

    def init_model(self) -> None:
        pass

    def profile_num_available_blocks(self, block_size: int, gpu_memory_utilization: float) -> int:
        return MEASURED_BLOCKS

    def init_cache_engine(self, cache_config: CacheConfig) -> None:
        self.config.cache_config = cache_config
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        context = zmq.Context()
        requests, answers = context.socket(zmq.SUB), context.socket(zmq.PUSH)
        requests.connect(f"tcp://{self.comm.engine_ip_address}:{self.comm.enqueue_socket_port}")
        requests.setsockopt_string(zmq.SUBSCRIBE, "")
        answers.connect(f"tcp://{self.comm.engine_ip_address}:{self.comm.output_socket_port}")
        worker = Bookkeeping(self.config)
        while True:
            answers.send(worker.answer(requests.recv()))

    def get_model_parallel_ranks(self) -> tuple[int, int]:
        return 0, 0

    def mark_initial_memory_profiling_done(self) -> None:
        pass

    def wait_till_ready(self) -> None:
        time.sleep(1)  # as theirs does: a subscription takes effect when it has arrived


class StandInEngine(LimitedEngine):
    """Our engine, and so theirs, with that worker."""

    def _get_worker_impl(self) -> Any:
        return StandInWorker


class _Direct:
    """Both sockets of an engine whose worker is in this process."""

    def __init__(self, worker: Bookkeeping) -> None:
        self._worker = worker
        self._answer = b""

    def send(self, message: bytes) -> None:
        self._answer = self._worker.answer(message)

    def recv(self) -> bytes:
        return self._answer


def engine_in_process(scheduler: BaseSchedulerConfig, num_blocks: int) -> BaseLLMEngine:
    """Their engine without Ray and sockets; all that its constructor sets and a step needs."""
    engine = object.__new__(BaseLLMEngine)
    engine.config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=4096),
        cache_config=CacheConfig(block_size=16, num_gpu_blocks=num_blocks),
        parallel_config=ParallelConfig(pipeline_parallel_size=1),
        scheduler_config=scheduler,
    )
    engine.tokenizer = SimpleNamespace(eos_token_id=0)
    engine.seq_manager = EngineSequenceManager(engine.tokenizer, engine.config)
    engine.metrics_store = MetricsStore.get_or_create_instance(None, None, None)
    engine.scheduler = SchedulerRegistry.get(
        scheduler.get_type(),
        engine.config.model_config,
        scheduler,
        engine.config.cache_config,
        engine.config.parallel_config,
    )
    engine._scheduler_timer = CpuTimer(CpuOperationMetrics.SCHEDULE)
    engine._process_model_outputs_timer = CpuTimer(CpuOperationMetrics.PROCESS_MODEL_OUTPUTS)
    engine.new_seqs = []
    engine.enqueue_socket = engine.output_socket = _Direct(Bookkeeping(engine.config))
    return engine
