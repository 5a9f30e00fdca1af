"""Settings of the five stages, and by one name all groups that they hold."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from gpu_simulate_test.config.base import MAX_REQUESTS, MAX_SECONDS, MAX_TOKENS, Float, Int, Settings
from gpu_simulate_test.config.engine import BackendConfig, HardwareConfig, ModelConfig
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.vidur import (
    LlmServingSimProfile,
    LoopConfig,
    OperatorDbProfile,
    PredictorConfig,
    ProfileConfig,
    ProfilingConfig,
    RouterConfig,
    SchedulerConfig,
    VidurConfig,
)
from gpu_simulate_test.config.workload import MAX_ARRIVAL_NS, ArrivalConfig, LengthConfig, PrefixConfig, WorkloadConfig

__all__ = [
    "MAX_ARRIVAL_NS",
    "MAX_REQUESTS",
    "MAX_TOKENS",
    "STAGES",
    "ArrivalConfig",
    "BackendConfig",
    "CalibrationConfig",
    "CompareRunsConfig",
    "EngineLimits",
    "EngineStageConfig",
    "HardwareConfig",
    "HydraRecord",
    "LengthConfig",
    "LlmServingSimProfile",
    "LoopConfig",
    "ModelConfig",
    "OperatorDbProfile",
    "OutputConfig",
    "PredictorConfig",
    "PrefixConfig",
    "ProfileConfig",
    "ProfilingConfig",
    "RealBenchConfig",
    "RouterConfig",
    "SchedulerConfig",
    "SloConfig",
    "StageConfig",
    "VidurConfig",
    "VidurProfileConfig",
    "VidurSimConfig",
    "WorkloadConfig",
    "WorkloadSpecConfig",
]


class OutputConfig(Settings):
    """Where results go."""

    root: str = Field(description="the folder of all results: it holds every stage's sub-folder")


_Limit = Annotated[Float, Field(ge=1e-6, le=MAX_SECONDS)]


class SloConfig(Settings):
    """Service-level objectives: what a request's latencies may be at most; null is no objective.

    Reports then have the share of requests that meets them, and the goodput.
    """

    ttft_ms: _Limit | None = Field(default=None, description="time to its first token, at most")
    tbt_ms: _Limit | None = Field(default=None, description="mean time between its tokens, at most")
    e2e_ms: _Limit | None = Field(default=None, description="time to its last token, at most")
    attainment: Float = Field(
        default=0.99,
        ge=0.01,
        le=1,
        description="hydra/sweeper=capacity: a load is met where that share of its requests meets them all",
    )


class StageConfig(Settings):
    """What every stage knows."""

    model: ModelConfig
    hardware: HardwareConfig
    workload: WorkloadConfig
    backend: BackendConfig
    limits: EngineLimits
    profile: ProfileConfig
    vidur: VidurConfig
    slo: SloConfig = Field(default_factory=SloConfig)
    output: OutputConfig
    overwrite: bool = Field(default=False, description="replace a finished run once its successor is complete")


class WorkloadSpecConfig(StageConfig):
    """Settings of workload-spec."""


class EngineStageConfig(StageConfig):
    """What the stages with an engine know as well."""

    request_timeout_s: Float = Field(
        default=3600.0,
        ge=1e-3,
        le=1_000_000,
        description="a request not finished that long after the engine got it ends the run; so does a step",
    )


class RealBenchConfig(EngineStageConfig):
    """Settings of real-bench."""

    repeats: Int = Field(
        default=5,
        ge=1,
        le=10_000,
        description="the same workload, measured that many times: how far real differs from real, the noise floor",
    )


class CalibrationConfig(Settings):
    """What a profile learns from real runs."""

    real_run_dir: str | list[str] | None = Field(
        default=None,
        description="a real run, or `[run,run]`, whose repeats tell what kernels cannot: calibration.json is added "
        "to the profile, for vidur/predictor=calibrated; with overwrite=true it is learned anew, the profile kept",
    )

    @property
    def run_dirs(self) -> list[str]:
        """One or several."""
        return [self.real_run_dir] if isinstance(self.real_run_dir, str) else self.real_run_dir or []


class VidurProfileConfig(EngineStageConfig):
    """Settings of vidur-profile."""

    calibration: CalibrationConfig = Field(default_factory=CalibrationConfig)


class VidurSimConfig(StageConfig):
    """Settings of vidur-sim."""

    real_run_dir: str | None = Field(
        default=None,
        description="take batch limits, KV blocks, output lengths and the machine's speed from this real run",
    )
    match_speed: bool = Field(
        default=True,
        description="with real_run_dir: scale by how fast the machine was then, by the reference bursts of both",
    )


class CompareRunsConfig(StageConfig):
    """Settings of compare-runs."""

    real_run_dir: str | None = Field(
        default=None, description="the real run; null: the newest finished pair of one workload"
    )
    sim_run_dir: str | None = Field(default=None, description="the simulated run; null: likewise")
    allow_mismatch: bool = Field(
        default=False,
        description="compare what can be compared although workloads or token counts differ, with a caveat",
    )
    tolerance: Float = Field(default=0.05, ge=0, le=10, description="a relative error up to this is good enough")
    gate: bool = Field(
        default=False, description="exit 5 when the verdict is off, void or in-sample, after writing the report: for CI"
    )


STAGES: dict[str, type[StageConfig]] = {
    "workload_spec": WorkloadSpecConfig,
    "real_bench": RealBenchConfig,
    "vidur_profile": VidurProfileConfig,
    "vidur_sim": VidurSimConfig,
    "compare_runs": CompareRunsConfig,
}


@dataclass
class HydraRecord:
    """Hydra's own view of a job: what `.hydra/` and the metadata record, and whether it is one of a sweep."""

    config_name: str
    config_path: str
    overrides: list[str]
    resolved: dict[str, Any] = field(default_factory=dict)
    hydra: dict[str, Any] = field(default_factory=dict)
    multirun: bool = False
