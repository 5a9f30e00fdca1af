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
from gpu_simulate_test.config.schema import StageConfig, VidurSimConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.simulator.real_run import RealRun
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
    settings: SimSettings, scratch: str, requests: Sequence[Request], max_tokens: int, predict_ns: PredictNs
) -> SimulationConfig:
    """All of them: `requests` served on one replica or several, whose batches take `predict_ns`.

    Parameters
    ----------
    scratch : str
        A folder that Vidur writes its config to.
    """
    RequestGeneratorRegistry.register(_GENERATOR_TYPE, _WorkloadGenerator)
    workload = _WorkloadConfig(max_tokens=max_tokens)
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


def sim_settings(config: StageConfig, real: RealRun | None, kv_tokens: int | None = None) -> SimSettings:
    """Scheduling limits, from the real run where there is one, else from the config.

    Parameters
    ----------
    kv_tokens : int, optional
        Of the KV cache, by the profile, for settings that leave it to that.

    Raises
    ------
    ConfigError
        The settings leave the number of KV blocks to a profile that has no estimate of it.
    """
    limits = config.limits if real is None else real.limits
    estimated = not limits.num_blocks
    if estimated:
        if kv_tokens is None:
            raise ConfigError("limits.num_blocks=0 needs profile=operator_db, which estimates it; state the number")
        limits = limits.model_copy(update={"num_blocks": kv_tokens // limits.block_size})
    scheduler = config.vidur.scheduler.name
    return SimSettings(
        model_id=config.model.id,
        device=config.hardware.vidur_device,
        network_device=config.hardware.vidur_network_device,
        scheduler=scheduler,
        limits=limits.model_copy(
            update={
                "enable_prefix_caching": limits.enable_prefix_caching and scheduler in ("sarathi", "vllm_v1"),
                "async_scheduling": limits.async_scheduling and scheduler == "vllm_v1",
            }
        ),
        num_blocks_estimated=estimated,
        router=config.vidur.router.name,
    )


def check_limits(workload: Workload, settings: SimSettings) -> None:
    """Refuse what the simulated scheduler would never finish.

    Raises
    ------
    ConfigError
        A request exceeds the KV cache, or, for vLLM's scheduler, the token budget; or there is a pipeline with more
        stages than requests, or with a scheduler that has none.
    """
    lengths, limits = workload.lengths, settings.limits
    total = int((lengths["num_prefill_tokens"] + lengths["num_decode_tokens"]).max())
    capacity = (limits.num_blocks - limits.watermark_blocks) * limits.block_size
    if total > capacity:
        raise ConfigError(f"a request needs {total} tokens, above the KV cache's {capacity}; raise limits.num_blocks")
    if settings.scheduler == "vllm_v1" and limits.max_num_seqs > limits.max_num_batched_tokens:
        raise ConfigError(
            f"limits.max_num_seqs={limits.max_num_seqs} is above limits.max_num_batched_tokens="
            f"{limits.max_num_batched_tokens}, which vLLM refuses; lower it"
        )
    if settings.scheduler == "vllm_v1" and limits.pipeline_parallel != 1:
        raise ConfigError(
            f"limits.pipeline_parallel={limits.pipeline_parallel} runs in Vidur's own loop, which has no vllm_v1; "
            "add vidur/scheduler=sarathi"
        )
    if limits.pipeline_parallel > limits.max_num_seqs:
        raise ConfigError(
            f"limits.pipeline_parallel={limits.pipeline_parallel} stages share limits.max_num_seqs="
            f"{limits.max_num_seqs} requests, and one would have none; raise limits.max_num_seqs"
        )
    longest = int(lengths["num_prefill_tokens"].max())
    if settings.scheduler == "vllm" and longest > limits.max_num_batched_tokens:
        raise ConfigError(
            f"a prompt of {longest} tokens is above the token budget of {limits.max_num_batched_tokens}, and "
            "vidur/scheduler=vllm does not split prompts; raise limits.max_num_batched_tokens"
        )


def check_loop(config: VidurSimConfig) -> None:
    """Refuse what asks for Vidur's own loop with a scheduler that it does not have.

    Raises
    ------
    ConfigError
        vLLM's V1 scheduler is our core's alone.
    """
    if config.vidur.scheduler.name != "vllm_v1":
        return
    asks = {"vidur/loop=vidur": config.vidur.loop.name == "vidur"}
    asks["vidur/predictor=stock"] = config.vidur.predictor.name == "stock"
    for setting, asked in asks.items():
        if asked:
            raise ConfigError(f"{setting} runs in Vidur's own loop, which has no vllm_v1; add vidur/scheduler=sarathi")
