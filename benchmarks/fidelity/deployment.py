"""An engine on its machine, and the real runs it served: simulated and compared by the commands that a user types."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.fidelity.board import LEVELS, METRICS, Errors
from benchmarks.stages import run_command
from gpu_simulate_test.io.comparison_tables import PERCENTILES
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.io.run_dir import RUN_META
from gpu_simulate_test.io.table_files import read_table


@dataclass
class Deployment:
    """One engine on one machine, at one set of limits.

    Attributes
    ----------
    root : Path
        The folder of all its results.
    settings : tuple of str
        Of every stage.
    measuring : tuple of str
        Of real-bench alone.
    python : str
        The interpreter of an environment that has the engine.
    """

    root: Path
    settings: tuple[str, ...]
    measuring: tuple[str, ...] = ()
    python: str = sys.executable
    runs: list["Run"] = field(default_factory=list)

    def run(self, name: str, *workload: str) -> "Run":
        """A real run by the settings of its workload."""
        self.runs.append(Run(self, name, workload))
        return self.runs[-1]

    @cached_property
    def profile(self) -> Path:
        """The profile, made with nothing but what its source says."""
        _ = self.runs[0].workload_dir  # an engine that is measured wants one
        return self.runs[0].stage("vidur_profile")


@dataclass(eq=False)
class Run:
    """A real run of a deployment."""

    deployment: Deployment
    name: str
    workload: tuple[str, ...]

    def stage(self, stage: str, *more: str) -> Path:
        """Run a stage with the settings of the run."""
        given = (*self.deployment.settings, f"output.root={self.deployment.root}", *self.workload, *more)
        return run_command(stage, *given, python=self.deployment.python)

    @cached_property
    def workload_dir(self) -> Path:
        """Its requests."""
        return self.stage("workload_spec")

    @cached_property
    def real(self) -> Path:
        """Its directory, measured or imported."""
        _ = self.workload_dir
        return self.stage("real_bench", *self.deployment.measuring)

    def plain(self) -> Errors:
        """Errors of the simulation with nothing fitted."""
        _ = self.deployment.profile
        return compared(self.deployment.root, self.real, self.stage("vidur_sim", f"real_run_dir={self.real}"))


def compared(root: Path, real: Path, sim: Path, *more: str) -> Errors:
    """Compare two runs by compare-runs.

    Raises
    ------
    StageFailed
        They cannot be compared.
    """
    folder = run_command("compare_runs", f"output.root={root}", f"real_run_dir={real}", f"sim_run_dir={sim}", *more)
    table = read_table(folder, PERCENTILES).set_index(["metric", "statistic"])
    errors = {metric: tuple(_figure(table, metric, level, "relative_error") for level in LEVELS) for metric in METRICS}
    floors = {metric: _figure(table, metric, "p50", "floor") for metric in METRICS}
    known = {metric: floor for metric, floor in floors.items() if not math.isnan(floor)}
    ours = [folder, *([sim] if sim.is_relative_to(root) else [])]  # not where somebody else simulated
    commits = frozenset(_commit(read_json(path / RUN_META)) for path in ours)
    return Errors(int(_figure(table, "e2e", "p50", "n_real")), errors, known, commits=commits)


def _figure(table: pd.DataFrame, metric: str, statistic: str, column: str) -> float:
    return float(table[column].loc[(metric, statistic)])


def _commit(meta: Mapping[str, Any]) -> str:
    return f"{meta['git_commit'] or 'not in a checkout'}"[:12] + (" with changes" if meta["git_dirty"] else "")
