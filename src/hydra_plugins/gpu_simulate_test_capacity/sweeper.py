"""Hydra's side of the capacity search: a sweeper that hands its combinations and its launcher over."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

_TOLERANCE = {"doc": "relative distance of the highest load that met the objectives and the lowest that missed them"}
_ROUNDS = {"doc": "rounds of simulations, one for each combination, at most"}


@dataclass
class CapacityConf:
    """Settings of the search; what each means is in its metadata."""

    _target_: str = "hydra_plugins.gpu_simulate_test_capacity.sweeper.CapacitySweeper"
    tolerance: float = field(default=0.05, metadata=_TOLERANCE)
    max_rounds: int = field(default=25, metadata=_ROUNDS)
    low: float | None = field(default=None, metadata={"doc": "no load below it is tried"})
    high: float | None = field(default=None, metadata={"doc": "no load above it is tried"})


ConfigStore.instance().store(group="hydra/sweeper", name="capacity", node=CapacityConf, provider="gpu-simulate-test")


class CapacitySweeper(Sweeper):
    """Finds the capacity of every combination of what is swept; see `gpu_simulate_test.studies.capacities`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None
        self.task: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.config, self.task = hydra_context, config, task_function
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search; what was found is in the folder of the sweep."""
        from gpu_simulate_test.cli.capacity import Wanted, sweep  # late: Hydra imports every plugin at every start

        return sweep(self, arguments, Wanted(**self.settings))
