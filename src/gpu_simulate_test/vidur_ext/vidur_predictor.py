"""Our predictors in Vidur's registry, and the batch as we see it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vidur.config.config import BaseExecutionTimePredictorConfig
from vidur.execution_time_predictor.execution_time_predictor_registry import ExecutionTimePredictorRegistry

from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.latency.model import stages_of

PREDICTOR_TYPE = "gsim"

PredictNs = Callable[[Composition, Any, int], float]
"""Time of a batch in ns, from its composition, Vidur's own batch object, and the number of the pipeline stage."""


@dataclass
class GsimExecutionTimePredictorConfig(BaseExecutionTimePredictorConfig):
    """Vidur's config of our predictor; the fields are for Vidur's own command line.

    Attributes
    ----------
    predict_ns : callable or None
        A simulation's own; None means from the profile. No field: Vidur's command line has them all.
    """

    profiling_root: str = ""
    use_overhead: bool = True
    predict_ns = cast(Any, None)

    @staticmethod
    def get_type() -> str:
        """The name in Vidur's registry and on its command line."""
        return PREDICTOR_TYPE


@dataclass(frozen=True)
class PredictedTime:
    """What Vidur's stages ask of a prediction: seconds, and the same in ms."""

    total_time: float

    @property
    def model_time(self) -> float:
        """Seconds."""
        return self.total_time

    @property
    def model_time_ms(self) -> float:
        """Milliseconds."""
        return self.total_time * 1e3


def composition(batch: Any) -> Composition:
    """A Vidur batch as engines report theirs.

    Contexts come from the requests: the batch's own ``num_kv_tokens`` lacks new requests under Orca, and
    Vidur counts a decoding request's newest token as processed before its keys and values are written.
    """
    return Composition.of(
        [
            ScheduledSeq(
                request.id,
                queries,
                request.num_processed_tokens - (1 if request.is_prefill_complete else 0),
                not request.is_prefill_complete,
            )
            for request, queries in zip(batch.requests, batch.num_q_tokens, strict=True)
        ]
    )


class GsimExecutionTimePredictor:
    """Vidur's predictor interface: the simulator calls `get_execution_time` for every batch."""

    def __init__(
        self, predictor_config: GsimExecutionTimePredictorConfig, replica_config: Any, cache_config: Any
    ) -> None:
        self._predict = predictor_config.predict_ns or _from_profile(predictor_config, replica_config)

    def get_execution_time(self, batch: Any, pipeline_stage: int) -> PredictedTime:
        """Predicted time of a batch in a stage, from 0."""
        return PredictedTime(self._predict(composition(batch), batch, pipeline_stage) / 1e9)


def _from_profile(config: GsimExecutionTimePredictorConfig, replica_config: Any) -> PredictNs:
    from gpu_simulate_test.profiles.bundle import bundle_dir, read_bundle
    from gpu_simulate_test.profiles.predictors import Predictors

    path = bundle_dir(Path(os.path.expanduser(config.profiling_root)), replica_config.device, replica_config.model_name)
    profile = read_bundle(path)
    for key, flag in (("tensor_parallel", "tensor_parallel_size"), ("pipeline_parallel", "num_pipeline_stages")):
        if (asked := getattr(replica_config, flag)) != (found := profile.meta.get(key, 1)):
            raise ConfigError(f"{flag}={asked}: the profile is of {found}: {path}")
    model = Predictors.from_profile(profile).model("iteration" if config.use_overhead else "operators_only")
    stages = stages_of(model)
    return lambda batch, _vidur_batch, stage: stages[stage].step_ns(batch, 0.0)


def register_predictor() -> None:
    """Make Vidur know our predictor as ``gsim``."""
    ExecutionTimePredictorRegistry.register(PREDICTOR_TYPE, GsimExecutionTimePredictor)
