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

    root: str = Field(description="where vidur-profile writes and vidur-sim reads")
    repeats: Int = Field(ge=2, le=10_000, description="timed repeats of each point")
    budget_s: Float = Field(
        ge=1, le=1_000_000, description="seconds for whole iterations; the operators take some more"
    )


class SchedulerConfig(Settings):
    """Who is in the next batch."""

    name: Literal["sarathi", "vllm_v1", "vllm", "orca"] = Field(
        description="sarathi, vllm, orca: Vidur's replica schedulers; vllm_v1: our core, by the rules of vLLM's V1 "
        "engine, with its prefix caching and asynchronous scheduling"
    )


class PredictorConfig(Settings):
    """How the simulator predicts an iteration's time."""

    name: Literal["iteration", "calibrated", "operators_only", "stock"] = Field(
        description="iteration: operators and what they leave out; calibrated: that and the constants that "
        "vidur-profile learned from a real run; operators_only: what Vidur alone sees; stock: Vidur's own random "
        "forests, minutes of training"
    )


class LoopConfig(Settings):
    """What serves the simulated requests."""

    name: Literal["core", "vidur"] = Field(
        description="core: ours, checked against Vidur's on a run's first requests; vidur: Vidur's own"
    )


class RouterConfig(Settings):
    """Which replica gets a request."""

    name: Literal["round_robin", "least_outstanding"] = Field(
        description="with limits.data_parallel, the replica that a request is given when it arrives: round_robin: the "
        "next one; least_outstanding: the one where fewest wait, as Vidur's `lor`, which does not count who is served"
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
        "iterations and calibrated constants drawn out of their intervals; 0: none",
    )
