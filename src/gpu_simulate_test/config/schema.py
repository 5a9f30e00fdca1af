"""Typed configs of the five stages. Validation is pure: no file, no device, no network."""

from dataclasses import dataclass, field
from typing import Any

from gpu_simulate_test.errors import ConfigError


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value} is not known: choose one of {', '.join(allowed)}")


def _at_least(key: str, value: float | None, minimum: float) -> None:
    if value is not None and value < minimum:
        raise ConfigError(f"{key}={value} is out of range: it must be at least {minimum}")


@dataclass
class ModelConfig:
    """A model: its identity, its dimensions, and where its weights and tokenizer come from."""

    name: str
    id: str
    architecture: str  # transformers' name of it
    weights: str  # pretrained | dummy (seeded random)
    tokenizer: str  # source (the model's own files) | example_prompts (trained on the shipped prompts)
    path: str | None
    seed: int
    num_layers: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    eos_token_id: int

    def __post_init__(self) -> None:
        _one_of("model.weights", self.weights, ("pretrained", "dummy"))
        _one_of("model.tokenizer", self.tokenizer, ("source", "example_prompts"))
        for key in ("num_layers", "num_q_heads", "num_kv_heads", "head_dim", "hidden_size", "intermediate_size"):
            _at_least(f"model.{key}", getattr(self, key), 1)


@dataclass
class HardwareConfig:
    """A device: how to find it, and what Vidur calls it."""

    name: str
    device: str  # cpu | cuda
    gpu_name: str | None  # must occur in the CUDA device's name
    dtype: str
    vidur_device: str
    vidur_network_device: str
    fp16_tflops: int
    total_memory_gb: int

    def __post_init__(self) -> None:
        _one_of("hardware.device", self.device, ("cpu", "cuda"))
        _one_of("hardware.dtype", self.dtype, ("float32", "bfloat16", "float16"))


@dataclass
class ArrivalConfig:
    """When requests arrive."""

    kind: str  # fixed_interval | poisson | trace (as recorded there)
    inter_arrival_ns: int
    rate_per_s: float

    def __post_init__(self) -> None:
        _one_of("workload.arrival.kind", self.kind, ("fixed_interval", "poisson", "trace"))
        _at_least("workload.arrival.inter_arrival_ns", self.inter_arrival_ns, 0)
        if self.kind == "poisson" and not self.rate_per_s > 0:
            raise ConfigError(f"workload.arrival.rate_per_s={self.rate_per_s} is out of range: it must be above 0")


@dataclass
class WorkloadConfig:
    """What is asked of the engine: prompts (from a file or synthetic), output lengths, arrivals.

    Lengths with a ``_min`` are uniform over [min, max]; without one, all are equal.
    """

    source: str  # prompts | synthetic | trace
    prompts: str | None
    num_requests: int | None  # prompts: the first N (cycled when N is larger); null: each once
    num_prefill_tokens: int | None  # synthetic only
    num_prefill_tokens_min: int | None
    num_decode_tokens: int
    num_decode_tokens_min: int | None
    seed: int
    arrival: ArrivalConfig
    workload_dir: str | None
    trace: str | None = None  # trace only: a file of recorded requests

    def __post_init__(self) -> None:
        _one_of("workload.source", self.source, ("prompts", "synthetic", "trace"))
        if (self.arrival.kind == "trace") != (self.source == "trace"):
            raise ConfigError("workload.arrival.kind=trace and workload.source=trace go together: a trace has arrivals")
        _at_least("workload.num_requests", self.num_requests, 1)
        for key in ("num_prefill_tokens", "num_decode_tokens"):
            high, low = getattr(self, key), getattr(self, f"{key}_min")
            _at_least(f"workload.{key}", high, 1)
            _at_least(f"workload.{key}_min", low, 1)
            if low is not None and high is not None and low > high:
                raise ConfigError(f"workload.{key}_min={low} is above workload.{key}={high}")
        needed = {"prompts": ("prompts",), "synthetic": ("num_requests", "num_prefill_tokens"), "trace": ("trace",)}
        for key in needed[self.source]:
            if getattr(self, key) is None:
                raise ConfigError(f"workload.{key} is missing: workload.source={self.source} needs it")


@dataclass
class BackendConfig:
    """An engine and the settings its scheduling depends on."""

    name: str
    batching: str  # continuous | sequential
    ignore_eos: bool
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    warmup_requests: int
    attn_implementation: str
    num_threads: int | None
    enable_prefix_caching: bool = False  # of a recorded engine
    requests: str | None = None  # recorded only: the run's file, the profile's folder
    profile: str | None = None

    def __post_init__(self) -> None:
        _one_of("backend.name", self.name, ("transformers", "vllm", "sarathi", "recorded"))
        _one_of("backend.batching", self.batching, ("continuous", "sequential"))
        for key in ("max_num_seqs", "max_num_batched_tokens", "block_size", "num_blocks", "num_threads"):
            _at_least(f"backend.{key}", getattr(self, key), 1)
        _at_least("backend.warmup_requests", self.warmup_requests, 0)

    @property
    def batch_cap(self) -> int:
        """Requests that may run together; one when ``batching=sequential``."""
        return 1 if self.batching == "sequential" else self.max_num_seqs


@dataclass
class ProfilingConfig:
    """Where the profile is, and how carefully it is measured."""

    root: str
    repeats: int  # timed repeats of each point
    budget_s: float  # time for the whole-iteration part

    def __post_init__(self) -> None:
        _at_least("vidur.profiling.repeats", self.repeats, 2)
        _at_least("vidur.profiling.budget_s", self.budget_s, 1)


@dataclass
class SchedulerConfig:
    """Vidur's replica scheduler."""

    name: str

    def __post_init__(self) -> None:
        _one_of("vidur.scheduler.name", self.name, ("sarathi", "vllm", "orca"))


@dataclass
class PredictorConfig:
    """How the simulator predicts an iteration's time."""

    name: str

    def __post_init__(self) -> None:
        _one_of("vidur.predictor.name", self.name, ("iteration", "operators_only", "stock"))


@dataclass
class VidurConfig:
    """Everything Vidur is told."""

    profiling: ProfilingConfig
    scheduler: SchedulerConfig
    predictor: PredictorConfig
    samples: int

    def __post_init__(self) -> None:
        _at_least("vidur.samples", self.samples, 0)


@dataclass
class OutputConfig:
    """The folder that holds every stage's sub-folder."""

    root: str


@dataclass
class StageConfig:
    """What every stage knows."""

    model: ModelConfig
    hardware: HardwareConfig
    workload: WorkloadConfig
    backend: BackendConfig
    vidur: VidurConfig
    output: OutputConfig
    overwrite: bool = False


@dataclass
class WorkloadSpecConfig(StageConfig):
    """Settings of workload-spec."""


@dataclass
class RealBenchConfig(StageConfig):
    """Settings of real-bench."""

    repeats: int = 5

    def __post_init__(self) -> None:
        _at_least("repeats", self.repeats, 1)


@dataclass
class VidurProfileConfig(StageConfig):
    """Settings of vidur-profile."""


@dataclass
class VidurSimConfig(StageConfig):
    """Settings of vidur-sim."""

    real_run_dir: str | None = None
    match_speed: bool = True


@dataclass
class CompareRunsConfig(StageConfig):
    """Settings of compare-runs."""

    real_run_dir: str | None = None
    sim_run_dir: str | None = None
    allow_mismatch: bool = False
    tolerance: float = 0.05
    gate: bool = False

    def __post_init__(self) -> None:
        _at_least("tolerance", self.tolerance, 0)


STAGES: dict[str, type[StageConfig]] = {
    "workload_spec": WorkloadSpecConfig,
    "real_bench": RealBenchConfig,
    "vidur_profile": VidurProfileConfig,
    "vidur_sim": VidurSimConfig,
    "compare_runs": CompareRunsConfig,
}


@dataclass
class HydraRecord:
    """Hydra's own view of a job: what `.hydra/` and the metadata record."""

    config_name: str
    config_path: str
    overrides: list[str]
    resolved: dict[str, Any] = field(default_factory=dict)
    hydra: dict[str, Any] = field(default_factory=dict)
