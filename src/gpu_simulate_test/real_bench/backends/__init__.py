"""Engines behind one protocol. Only a backend's own file imports its engine."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from gpu_simulate_test.config.limits import SARATHI_WATERMARK, EngineLimits
from gpu_simulate_test.config.schema import BackendConfig, EngineStageConfig, HardwareConfig, ModelConfig
from gpu_simulate_test.engine import Clock, ProfilableEngine
from gpu_simulate_test.errors import ConfigError, MachineError
from gpu_simulate_test.real_bench.device import alone_on
from gpu_simulate_test.real_bench.guard import GuardedEngine

log = logging.getLogger(__name__)

_PACKAGE = "gpu_simulate_test.real_bench.backends"
_INSTALL = {
    "transformers": "run make setup",
    "vllm": "run make vllm and take the commands of .venv-vllm/bin",
    "sarathi": "clone and build it as extern/README.md says",
}


@contextmanager
def running_engine(config: EngineStageConfig, clock: Clock) -> Iterator[GuardedEngine]:
    """The engine that the settings name, under guard, alone on its device, freed in the end; see `create_engine`."""
    with alone_on(config.hardware):
        log.info("starting %s on %s", config.backend.name, config.hardware.name)
        engine = create_engine(config.backend, config.limits, config.model, config.hardware, clock)
        with closing(GuardedEngine(engine, clock, config.request_timeout_s)) as guarded:
            yield guarded


def create_engine(
    backend: BackendConfig, limits: EngineLimits, model: ModelConfig, hardware: HardwareConfig, clock: Clock
) -> ProfilableEngine:
    """Start the engine that `backend` names.

    Raises
    ------
    ConfigError
        A limit that no engine here can be told.
    MachineError
        The engine, in a version we drive, the device or the model's files are not on this machine.
    """
    _check_limits(backend, limits)
    _check_versions(backend.name)
    try:
        module = importlib.import_module(f"{_PACKAGE}.{backend.name}_backend")
    except ModuleNotFoundError as error:
        raise MachineError(
            f"backend={backend.name} needs {error.name}, which is not installed; {_INSTALL[backend.name]}"
        ) from error
    engine: ProfilableEngine = module.create(backend, limits, model, hardware, clock)
    return engine


def _check_limits(backend: BackendConfig, limits: EngineLimits) -> None:
    fixed: dict[str, object] = {
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "expert_parallel": 1,
        "data_parallel": 1,
        "kv_cache_dtype": "auto",
        "async_scheduling": False,
        "watermark": SARATHI_WATERMARK if backend.name == "sarathi" else 0.0,
    }
    if backend.name != "vllm":
        fixed |= {"enable_prefix_caching": False, "reserve_whole_prompt": True}
    if not limits.num_blocks:
        raise ConfigError("limits.num_blocks is missing: an engine that serves needs their number")
    for key, value in fixed.items():
        if getattr(limits, key) != value:
            raise ConfigError(f"limits.{key}={getattr(limits, key)}: backend={backend.name} serves with {value} alone")


def _check_versions(name: str) -> None:
    """Hold what is installed against what the extra of the backend's name asks for, before a slow import."""
    for requirement in map(Requirement, requires("gpu-simulate-test") or []):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": name}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            continue  # the import says so
        if not requirement.specifier.contains(found, prereleases=True):
            raise MachineError(
                f"backend={name} needs {requirement.name}{requirement.specifier}, this is {found}; {_INSTALL[name]}"
            )
