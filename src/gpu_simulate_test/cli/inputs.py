"""What a job of a sweep makes itself where it is missing, and where no device is needed for it; all jobs share it."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gpu_simulate_test.cli import vidur_profile, workload_spec
from gpu_simulate_test.config.base import validated
from gpu_simulate_test.config.schema import HydraRecord, StageConfig, VidurProfileConfig, WorkloadSpecConfig
from gpu_simulate_test.errors import AlreadyFinished

_Config = TypeVar("_Config", bound=StageConfig)


def make_workload(config: StageConfig, record: HydraRecord) -> None:
    """Make the workload of a job of a sweep, unless it is there."""
    from gpu_simulate_test.io.run_dir import WORKLOAD_META, is_finished
    from gpu_simulate_test.io.workload import workload_path

    path = workload_path(config)
    if record.multirun and config.workload.workload_dir is None and not is_finished(path, WORKLOAD_META):
        with suppress(AlreadyFinished):  # another job was at it
            workload_spec.run(_as(WorkloadSpecConfig, config), replace(record, config_name="workload_spec"))


def make_profile(config: StageConfig, record: HydraRecord) -> None:
    """Make the profile of a job of a sweep, unless it is there or measured."""
    from gpu_simulate_test.io.run_dir import is_finished

    missing = not is_finished(Path(config.vidur.profiling.root))
    if record.multirun and config.profile.source == "operator_db" and missing:
        with suppress(AlreadyFinished):
            vidur_profile.run(_as(VidurProfileConfig, config), replace(record, config_name="vidur_profile"))


def _as(stage: type[_Config], config: StageConfig) -> _Config:
    """The settings of another stage for the same job; what is there is kept, whatever is to be run again."""
    return validated(stage, config.model_dump(include=set(StageConfig.model_fields)) | {"overwrite": False})
