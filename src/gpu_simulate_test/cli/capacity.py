"""``hydra/sweeper=capacity``: the combinations of a command line, and the capacity of each, by Hydra's launcher."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.cli.execution import one_line
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.progress import on_terminal
from gpu_simulate_test.io.study_tables import CAPACITY
from gpu_simulate_test.studies.capacities import Combination, search_all, searched_key
from gpu_simulate_test.studies.capacity import Search
from gpu_simulate_test.studies.capacity_table import capacity_lines, capacity_table, write_capacities
from gpu_simulate_test.studies.jobs import Outcome, write_outcome
from gpu_simulate_test.studies.settings import CONCURRENCY, RATE
from gpu_simulate_test.studies.sweep import of_a_job

_FEW = 4  # lines, where stderr is a file or a pipe
_OBJECTIVES = ("ttft_ms", "tbt_ms", "e2e_ms")


class Sweeper(Protocol):
    """What Hydra gave to its sweeper."""

    config: Any
    launcher: Any
    hydra_context: Any
    task: Any


@dataclass(frozen=True)
class Wanted:
    """The sweeper's own settings, see `hydra_plugins.gpu_simulate_test_capacity.sweeper.CapacityConf`."""

    tolerance: float
    max_rounds: int
    low: float | None
    high: float | None

    def check(self) -> None:
        """Raise ConfigError where one is out of range."""
        ranges = {"tolerance": (1e-3, 1), "max_rounds": (1, 1000), "low": (1e-9, 1e9), "high": (1e-9, 1e9)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                said = f"it must be from {least:,.15g} to {most:,.15g}"
                raise ConfigError(f"hydra.sweeper.{name}={value} is out of range: {said}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ConfigError(f"hydra.sweeper.low={self.low} is above hydra.sweeper.high={self.high}")


def sweep(sweeper: Sweeper, arguments: list[str], wanted: Wanted) -> None:
    """Find the capacity of every combination of what is swept.

    Raises
    ------
    ConfigError
        There is no objective, nothing to search, or a setting of the search is out of range.
    """
    job = sweeper.task
    if job.stage != "vidur_sim":
        raise ConfigError("hydra/sweeper=capacity searches simulations: it is for vidur-sim")
    wanted.check()
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    overrides = parser.parse_overrides(arguments)
    swept = [override.get_key_element() for override in overrides if override.is_sweep_override()]
    grid = BasicSweeper.split_arguments(overrides, None)[0]
    found = [_combination(sweeper, list(one), swept, wanted) for one in grid]
    (job.sweep.folder / CAPACITY.filename).unlink(missing_ok=True)  # of an earlier attempt
    failed = [one for one in found if one.error is not None]
    for number, one in enumerate(failed):
        fields = {"status": "error", "exit_code": ConfigError.exit_code, "error": one.error}
        given = {"job": number, "stage": job.stage, "overrides": list(filter(of_a_job, one.overrides))}
        write_outcome(job.sweep.folder, Outcome.model_validate(given | fields))

    def launch(jobs: list[list[str]], first: int) -> Sequence[Outcome]:
        results = sweeper.launcher.launch(jobs, initial_job_idx=first)
        return [Outcome.model_validate(result.return_value) for result in results]

    search_all(found, launch, job.sweep.root, wanted.max_rounds, len(failed))
    table = capacity_table(found, wanted.max_rounds)
    write_capacities(job.sweep.folder, table)
    lines = capacity_lines(table)
    if len(lines) > _FEW and not on_terminal():
        lines = [f"{lines[0]} see {CAPACITY.filename}"]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _combination(sweeper: Sweeper, given: list[str], swept: list[str], wanted: Wanted) -> Combination:
    """Compose one; what is wrong with it is its own failure, what is wrong with the search is everybody's."""
    overrides = [one for one in given if one.lstrip("+~").partition("=")[0] not in (RATE, CONCURRENCY)]
    try:
        loader = sweeper.hydra_context.config_loader
        config: DictConfig = loader.load_sweep_config(sweeper.config, given)
        slo = OmegaConf.select(config, "slo")
        key = searched_key(config.workload.arrival.kind, swept)
        guess = float(OmegaConf.select(config, key))
        target = float(slo.attainment)
        requests = config.workload.num_requests
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:
        return Combination(overrides, RATE, Search(1.0, 1.0), error=one_line(error))
    if all(slo[name] is None for name in _OBJECTIVES):
        raise ConfigError("no objective: hydra/sweeper=capacity needs slo.ttft_ms, slo.tbt_ms or slo.e2e_ms")
    whole, high = key == CONCURRENCY, wanted.high
    if whole and requests is not None:
        high = min(high or requests, requests)
    return Combination(overrides, key, Search(target, guess, wanted.tolerance, wanted.low, high, whole))
