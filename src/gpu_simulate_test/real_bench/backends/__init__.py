"""Engines behind one protocol. Only a backend's own file imports its engine."""

import importlib

from gpu_simulate_test.config.schema import BackendConfig, HardwareConfig, ModelConfig
from gpu_simulate_test.engine import Clock, ProfilableEngine
from gpu_simulate_test.errors import MachineError

_PACKAGE = "gpu_simulate_test.real_bench.backends"


def create_engine(
    backend: BackendConfig, model: ModelConfig, hardware: HardwareConfig, clock: Clock
) -> ProfilableEngine:
    """Start the engine that `backend` names.

    Raises
    ------
    MachineError
        The engine, the device or the model's files are not on this machine.
    """
    try:
        module = importlib.import_module(f"{_PACKAGE}.{backend.name}_backend")
    except ModuleNotFoundError as error:
        raise MachineError(
            f"backend={backend.name} needs {error.name}, which is not installed; run make setup"
        ) from error
    engine: ProfilableEngine = module.create(backend, model, hardware, clock)
    return engine
