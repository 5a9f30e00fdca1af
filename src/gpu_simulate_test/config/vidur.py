"""Settings of the simulation and of the profile it is priced with."""

from typing import Annotated, Literal

from pydantic import Field

from gpu_simulate_test.config.base import Float, Int, Settings


class MeasuredProfile(Settings):
    """Measured here, on the engine."""

    source: Literal["measured"] = Field(description="where a profile comes from")


class LlmServingSimProfile(Settings):
    """Kernel tables that LLMServingSim's profiler wrote."""

    source: Literal["llmservingsim"] = Field(description="where a profile comes from")
    folder: str | None = Field(
        default=None,
        description="llmservingsim: the folder of kernel tables, or of one `tp<N>` for each tensor-parallel degree",
    )


class OperatorDbProfile(Settings):
    """Operator times of a public database."""

    source: Literal["operator_db"] = Field(description="where a profile comes from")
    engine: Literal["vllm", "sglang", "trtllm"] = Field(
        default="vllm", description="operator_db: whose operators they are"
    )
    version: str | None = Field(default=None, description="operator_db: of the engine; null: the newest it has")


ProfileConfig = Annotated[MeasuredProfile | LlmServingSimProfile | OperatorDbProfile, Field(discriminator="source")]


class ProfilingConfig(Settings):
    """Where the profile is, and how carefully it is measured."""

    root: str = Field(description="the profiling bundle: where vidur-profile writes and vidur-sim reads")
    repeats: Int = Field(ge=2, le=10_000, description="timed repeats of each point, at most")
    budget_s: Float = Field(
        ge=1,
        le=1_000_000,
        description="seconds for whole iterations, in rounds; it is told when that is too short for one; the operators "
        "take some more",
    )


class SchedulerConfig(Settings):
    """Who is in the next batch."""

    name: Literal["sarathi", "vllm_v1", "vllm", "orca"] = Field(
        description="who is in the next batch; an option of vidur/scheduler"
    )


class PredictorConfig(Settings):
    """How the simulator predicts an iteration's time."""

    name: Literal["iteration", "calibrated", "operators_only", "stock"] = Field(
        description="what an iteration takes; an option of vidur/predictor"
    )


class LoopConfig(Settings):
    """What serves the simulated requests."""

    name: Literal["core", "vidur"] = Field(description="what serves the simulated requests; an option of vidur/loop")


class RouterConfig(Settings):
    """Which replica gets a request."""

    name: Literal["round_robin", "least_outstanding"] = Field(
        description="with limits.data_parallel, the replica that a request is given; an option of vidur/router"
    )


class VidurConfig(Settings):
    """Everything Vidur is told."""

    profiling: ProfilingConfig
    scheduler: SchedulerConfig
    predictor: PredictorConfig
    loop: LoopConfig
    router: RouterConfig
    samples: Int = Field(
        ge=0,
        le=10_000,
        description="further simulations, with the scatter of the profile's "
        "iterations and calibrated constants drawn out of their intervals: a range for each figure; 0: none",
    )
