"""Engine settings, and what Vidur calls them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from vidur.config.config import (
    BaseReplicaSchedulerConfig,
    BaseRequestGeneratorConfig,
    CacheConfig,
    ClusterConfig,
    LORGlobalSchedulerConfig,
    MetricsConfig,
    OrcaSchedulerConfig,
    ReplicaConfig,
    RoundRobinGlobalSchedulerConfig,
    SarathiSchedulerConfig,
    SimulationConfig,
    VllmSchedulerConfig,
)
from vidur.entities.request import Request
from vidur.request_generator.base_request_generator import BaseRequestGenerator
from vidur.request_generator.request_generator_registry import RequestGeneratorRegistry

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.vidur_ext.vidur_predictor import GsimExecutionTimePredictorConfig, PredictNs

_GENERATOR_TYPE = "gsim_workload"
_ROUTERS = {"round_robin": RoundRobinGlobalSchedulerConfig, "least_outstanding": LORGlobalSchedulerConfig}


@dataclass(frozen=True)
class SimSettings:
    """Engine settings the simulation copies, from the real run where there is one."""

    model_id: str
    device: str
    network_device: str
    scheduler: str  # sarathi | vllm | orca, and vllm_v1, which Vidur has not
    limits: EngineLimits
    num_blocks_estimated: bool = False
    router: str = "round_robin"  # or least_outstanding: of several replicas

    def record(self) -> dict[str, Any]:
        """As ``run_meta.json`` keeps them."""
        return {**vars(self), "limits": self.limits.model_dump()}

    def split(self) -> str:
        """Over how many GPUs, in words to be added to theirs; none for one."""
        parts = (
            (self.limits.tensor_parallel, "GPUs a layer"),
            (self.limits.pipeline_parallel, "pipeline stages"),
            (self.limits.data_parallel, f"replicas, {self.router}"),
        )
        return "".join(f", {count} {what}" for count, what in parts if count > 1)


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


def replica_config(settings: SimSettings) -> ReplicaConfig:
    """The model, in as many pipeline stages as the limits say; what it takes on how many GPUs is the predictor's."""
    config = ReplicaConfig(
        model_name=settings.model_id,
        num_pipeline_stages=settings.limits.pipeline_parallel,
        tensor_parallel_size=1,
        device=settings.device,
        network_device=settings.network_device,
    )
    # Vidur plans the memory before it is told the blocks, and knows nothing of shards and of quantisation.
    config.device_config.total_memory_gb = 10**9
    return config


def cache_config(settings: SimSettings) -> CacheConfig:
    """The KV cache."""
    return CacheConfig(
        block_size=settings.limits.block_size,
        num_blocks=settings.limits.num_blocks,
        watermark_blocks_fraction=settings.limits.watermark,
    )


def scheduler_config(settings: SimSettings) -> BaseReplicaSchedulerConfig:
    """The scheduler."""
    limits = settings.limits
    makers = {
        "sarathi": lambda: SarathiSchedulerConfig(
            batch_size_cap=limits.max_num_seqs, chunk_size=limits.max_num_batched_tokens
        ),
        "vllm": lambda: VllmSchedulerConfig(
            batch_size_cap=limits.max_num_seqs, max_tokens_in_batch=limits.max_num_batched_tokens
        ),
        "orca": lambda: OrcaSchedulerConfig(batch_size_cap=limits.max_num_seqs),
    }
    return makers[settings.scheduler]()


def simulation_config(
    settings: SimSettings, scratch: str, requests: Sequence[Request], predict_ns: PredictNs
) -> SimulationConfig:
    """All of them: `requests` served on one replica or several, whose batches take `predict_ns`.

    Parameters
    ----------
    scratch : str
        A folder that Vidur writes its config to.
    """
    RequestGeneratorRegistry.register(_GENERATOR_TYPE, _WorkloadGenerator)
    workload = _WorkloadConfig(max_tokens=max(one.num_prefill_tokens + one.num_decode_tokens for one in requests))
    predictor = GsimExecutionTimePredictorConfig(no_cache=True)
    config = SimulationConfig(
        log_level="warning",
        cluster_config=ClusterConfig(
            num_replicas=settings.limits.data_parallel,
            global_scheduler_config=_ROUTERS[settings.router](),
            replica_config=replica_config(settings),
            cache_config=cache_config(settings),
            replica_scheduler_config=scheduler_config(settings),
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
