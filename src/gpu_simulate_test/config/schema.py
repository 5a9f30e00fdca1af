"""Typed configs of the five stages. Validation is pure: no file, no device, no network."""

from dataclasses import asdict, dataclass, field
from typing import Any

from gpu_simulate_test.config.limits import SARATHI_WATERMARK, EngineLimits
from gpu_simulate_test.errors import ConfigError


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value} is not known: choose one of {', '.join(allowed)}")


# What a setting may be at most, where nothing else limits it.
MAX_REQUESTS = 10_000_000
MAX_TOKENS = 10_000_000
MAX_ARRIVAL_NS = 100 * 365 * 86_400 * 10**9  # of the last request; int64 ends at 292 years
_MAX_SECONDS = 1e9
_MAX_SCALE = 1e6
_MAX_SEED = 2**63 - 1


def _within(key: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # so that a NaN is refused as well
        raise ConfigError(f"{key}={value} is out of range: it must be from {low:,.15g} to {high:,.15g}")


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
            _within(f"model.{key}", getattr(self, key), 1, MAX_TOKENS)
        _within("model.vocab_size", self.vocab_size, 4, MAX_TOKENS)  # the first three are special
        _within("model.max_position_embeddings", self.max_position_embeddings, 1, MAX_TOKENS)
        _within("model.eos_token_id", self.eos_token_id, 0, MAX_TOKENS)
        _within("model.rope_theta", self.rope_theta, 1e-6, 1e15)
        _within("model.rms_norm_eps", self.rms_norm_eps, 0, 1)
        _within("model.seed", self.seed, -_MAX_SEED, _MAX_SEED)


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
        _within("hardware.fp16_tflops", self.fp16_tflops, 1, MAX_TOKENS)
        _within("hardware.total_memory_gb", self.total_memory_gb, 1, MAX_TOKENS)


@dataclass
class ArrivalConfig:
    """When requests arrive."""

    kind: str  # fixed_interval | poisson | gamma | ramp | trace (as recorded there)
    inter_arrival_ns: int
    rate_per_s: float
    cv: float = 1.0  # gamma: standard deviation of the gaps / their mean
    end_rate_per_s: float | None = None  # ramp: the rate at the last request

    def __post_init__(self) -> None:
        _one_of("workload.arrival.kind", self.kind, ("fixed_interval", "poisson", "gamma", "ramp", "trace"))
        _within("workload.arrival.inter_arrival_ns", self.inter_arrival_ns, 0, MAX_ARRIVAL_NS)
        _within("workload.arrival.rate_per_s", self.rate_per_s, 1e-9, 1e9)
        _within("workload.arrival.cv", self.cv, 1e-3, 1e3)
        _within("workload.arrival.end_rate_per_s", self.end_rate_per_s, 1e-9, 1e9)
        if self.kind == "ramp" and self.end_rate_per_s is None:
            raise ConfigError("workload.arrival.end_rate_per_s is missing: workload.arrival.kind=ramp needs it")


@dataclass(frozen=True)
class LengthConfig:
    """How many tokens a prompt or an output has.

    All `high`; with `low` uniform over [low, high]; lognormal with `median` and `sigma`, or Zipf with the exponent
    `zipf`, within [low or 1, high].
    """

    high: int
    low: int | None
    median: float | None
    sigma: float | None
    zipf: float | None

    def check(self, key: str) -> None:
        """Raise ConfigError where two settings contradict each other; `key` is the name of `high`."""
        _within(key, self.high, 1, MAX_TOKENS)
        _within(f"{key}_min", self.low, 1, MAX_TOKENS)
        low = self.low or 1
        if low > self.high:
            raise ConfigError(f"{key}_min={low} is above {key}={self.high}")
        if (self.median is None) != (self.sigma is None):
            raise ConfigError(f"{key}_median and {key}_sigma go together: both make the lengths lognormal")
        _within(f"{key}_median", self.median, low, self.high)
        _within(f"{key}_sigma", self.sigma, 0, 10)
        _within(f"{key}_zipf", self.zipf, 0, 20)
        if self.median is not None and self.zipf is not None:
            raise ConfigError(f"{key}_median and {key}_zipf exclude each other: lengths are lognormal or Zipf")


@dataclass
class WorkloadConfig:
    """What is asked of the engine: prompts (from a file, synthetic, or as recorded), output lengths, arrivals.

    Of lengths, those with a suffix say how they scatter: see `LengthConfig`.
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
    num_prefill_tokens_median: float | None = None
    num_prefill_tokens_sigma: float | None = None
    num_prefill_tokens_zipf: float | None = None
    num_decode_tokens_median: float | None = None
    num_decode_tokens_sigma: float | None = None
    num_decode_tokens_zipf: float | None = None
    trace: str | None = None  # trace only, as all that follows: a file of recorded requests
    trace_columns: dict[str, str] | None = None  # of a table of one's own: what is in which column
    trace_time_unit: str | None = None  # s | ms | us | ns, where the format does not say it
    trace_start_s: float | None = None  # a window, seconds since the first request
    trace_end_s: float | None = None
    trace_time_scale: float = 1.0  # gaps are multiplied by it
    trace_length_scale: float = 1.0

    def __post_init__(self) -> None:
        _one_of("workload.source", self.source, ("prompts", "synthetic", "trace"))
        if self.arrival.kind == "trace" and self.source != "trace":
            raise ConfigError("workload.arrival.kind=trace needs workload.source=trace: only a trace has arrivals")
        _within("workload.num_requests", self.num_requests, 1, MAX_REQUESTS)
        _within("workload.seed", self.seed, -_MAX_SEED, _MAX_SEED)
        if self.trace_time_unit is not None:
            _one_of("workload.trace_time_unit", self.trace_time_unit, ("s", "ms", "us", "ns"))
        needed = {"prompts": ("prompts",), "synthetic": ("num_requests", "num_prefill_tokens"), "trace": ("trace",)}
        for key in needed[self.source]:
            if getattr(self, key) is None:
                raise ConfigError(f"workload.{key} is missing: workload.source={self.source} needs it")
        self.prefill_lengths.check("workload.num_prefill_tokens")
        self.decode_lengths.check("workload.num_decode_tokens")
        _within("workload.trace_start_s", self.trace_start_s, 0, _MAX_SECONDS)
        _within("workload.trace_end_s", self.trace_end_s, 0, _MAX_SECONDS)
        if self.trace_end_s is not None and self.trace_end_s <= (self.trace_start_s or 0):
            raise ConfigError(f"workload.trace_end_s={self.trace_end_s} is not after workload.trace_start_s")
        _within("workload.trace_time_scale", self.trace_time_scale, 1 / _MAX_SCALE, _MAX_SCALE)
        _within("workload.trace_length_scale", self.trace_length_scale, 1 / _MAX_SCALE, _MAX_SCALE)
        if self.trace_time_scale != 1 and self.arrival.kind != "trace":
            raise ConfigError("workload.trace_time_scale needs workload.arrival.kind=trace: it scales recorded gaps")

    @property
    def prefill_lengths(self) -> LengthConfig:
        """Lengths of synthetic prompts; other sources have their own."""
        return LengthConfig(
            MAX_TOKENS if self.num_prefill_tokens is None else self.num_prefill_tokens,
            self.num_prefill_tokens_min,
            self.num_prefill_tokens_median,
            self.num_prefill_tokens_sigma,
            self.num_prefill_tokens_zipf,
        )

    @property
    def decode_lengths(self) -> LengthConfig:
        """Output lengths."""
        return LengthConfig(
            self.num_decode_tokens,
            self.num_decode_tokens_min,
            self.num_decode_tokens_median,
            self.num_decode_tokens_sigma,
            self.num_decode_tokens_zipf,
        )


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
            _within(f"backend.{key}", getattr(self, key), 1, 10**15)
        _within("backend.warmup_requests", self.warmup_requests, 0, MAX_REQUESTS)

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
        _within("vidur.profiling.repeats", self.repeats, 2, 10_000)
        _within("vidur.profiling.budget_s", self.budget_s, 1, 1_000_000)


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
class LoopConfig:
    """What serves the simulated requests: our core, checked against Vidur's loop, or that loop."""

    name: str

    def __post_init__(self) -> None:
        _one_of("vidur.loop.name", self.name, ("core", "vidur"))


@dataclass
class VidurConfig:
    """Everything Vidur is told."""

    profiling: ProfilingConfig
    scheduler: SchedulerConfig
    predictor: PredictorConfig
    loop: LoopConfig
    samples: int

    def __post_init__(self) -> None:
        _within("vidur.samples", self.samples, 0, 10_000)


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

    @property
    def limits(self) -> EngineLimits:
        """What the engine is limited by."""
        backend = self.backend
        return EngineLimits(
            max_num_seqs=backend.batch_cap,
            max_num_batched_tokens=backend.max_num_batched_tokens,
            block_size=backend.block_size,
            num_blocks=backend.num_blocks,
            watermark=SARATHI_WATERMARK if backend.name == "sarathi" else 0.0,
            enable_prefix_caching=backend.enable_prefix_caching,
            dtype=self.hardware.dtype,
        )


@dataclass
class WorkloadSpecConfig(StageConfig):
    """Settings of workload-spec."""


@dataclass
class EngineStageConfig(StageConfig):
    """What the stages with an engine know as well."""

    request_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        _within("request_timeout_s", self.request_timeout_s, 1e-3, 1_000_000)


@dataclass
class RealBenchConfig(EngineStageConfig):
    """Settings of real-bench."""

    repeats: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("repeats", self.repeats, 1, 10_000)


@dataclass
class VidurProfileConfig(EngineStageConfig):
    """Settings of vidur-profile."""


@dataclass
class VidurSimConfig(StageConfig):
    """Settings of vidur-sim."""

    real_run_dir: str | None = None
    match_speed: bool = True


@dataclass
class SloConfig:
    """Service-level objectives: what a request's latencies may be at most; null is no objective."""

    ttft_ms: float | None = None
    tbt_ms: float | None = None
    e2e_ms: float | None = None

    def __post_init__(self) -> None:
        for key, limit in asdict(self).items():
            _within(f"slo.{key}", limit, 1e-6, _MAX_SECONDS)


@dataclass
class CompareRunsConfig(StageConfig):
    """Settings of compare-runs."""

    real_run_dir: str | None = None
    sim_run_dir: str | None = None
    allow_mismatch: bool = False
    tolerance: float = 0.05
    gate: bool = False
    slo: SloConfig = field(default_factory=SloConfig)

    def __post_init__(self) -> None:
        _within("tolerance", self.tolerance, 0, 10)


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
