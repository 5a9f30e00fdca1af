"""An engine on its machine, and the real runs it served: simulated and compared by the commands that a user types."""

import math
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.fidelity.board import LEVELS, METRICS, Errors
from benchmarks.stages import run_command
from gpu_simulate_test.analysis.verdict import IN_SAMPLE
from gpu_simulate_test.io.comparison_tables import GATES, PERCENTILES
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.io.run_dir import RUN_META
from gpu_simulate_test.io.table_files import read_table
from gpu_simulate_test.profiles.bundle import CALIBRATION, PROFILE_META

_DIGITS = 5  # of a relative error that is kept


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
        given = (f"output.root={self.deployment.root}", *self.deployment.settings, *self.workload, *more)
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

    @cached_property
    def calibration(self) -> Path:
        """``calibration.json`` of a copy of the profile, learned from this run alone."""
        root = self._bundle("own")
        if not (found := list(root.rglob(CALIBRATION))):
            self.stage("vidur_profile", f"vidur.profiling.root={root}", f"calibration.real_run_dir={self.real}")
            found = list(root.rglob(CALIBRATION))
        return found[0]

    def held_out(self, kind: str) -> Errors:
        """Errors on the requests that the run's own calibration held back: ``errors``, or ``without`` it."""
        record = read_json(self.calibration)
        told = record["held_out"]
        errors = {metric: tuple(round(told[kind][metric][level], _DIGITS) for level in LEVELS) for metric in METRICS}
        return Errors(told["requests"], errors, (commit(record),), record["created_at"][:10])

    def plain(self) -> Errors:
        """Errors of the simulation with nothing fitted."""
        _ = self.deployment.profile
        return compared(self.deployment.root, self.real, self.stage("vidur_sim", f"real_run_dir={self.real}"))

    def calibrated_on(self, donor: "Run") -> Errors:
        """Errors of the simulation with the constants that were learned from another run, of whatever deployment."""
        root = self._bundle(donor.name)
        (meta,) = root.rglob(PROFILE_META)
        shutil.copy(donor.calibration, meta.with_name(CALIBRATION))
        sim = self.stage(
            "vidur_sim",
            "vidur/predictor=calibrated",
            *(["vidur.samples=0"] if "backend=recorded" in self.deployment.settings else []),  # of large runs one
            f"real_run_dir={self.real}",
            f"vidur.profiling.root={root}",
            f"workload.workload_dir={self.workload_dir}",
            f"output.root={root.parent}",  # beside the constants that it is made with
        )
        return compared(root.parent, self.real, sim)

    def _bundle(self, calibrated_on: str) -> Path:
        """A copy of the profile, for a bundle holds one calibration."""
        names = (re.sub(r"\W+", "_", name) for name in (self.name, calibrated_on))
        root = self.deployment.root.joinpath("calibrated", *names, "profile")
        if not root.is_dir():
            shutil.copytree(self.deployment.profile, root)
        return root


def compared(root: Path, real: Path, sim: Path, *more: str) -> Errors:
    """Compare two runs by compare-runs.

    Raises
    ------
    StageFailed
        They cannot be compared.
    """
    folder = run_command("compare_runs", f"output.root={root}", f"real_run_dir={real}", f"sim_run_dir={sim}", *more)
    table = read_table(folder, PERCENTILES).set_index(["metric", "statistic"])
    errors = {metric: _figures(table, metric, "relative_error") for metric in METRICS}
    floors = {metric: _figures(table, metric, "floor") for metric in METRICS}
    known = {metric: of for metric, of in floors.items() if not any(map(math.isnan, of))}
    within = table["real_ns"].between(table["sim_low_ns"], table["sim_high_ns"])
    inside = tuple(metric for metric in METRICS if all(within[metric, level] for level in LEVELS))
    in_sample = IN_SAMPLE in set(read_table(folder, GATES)["value"])
    ours = [folder, *([sim] if sim.is_relative_to(root) else [])]  # not where somebody else simulated
    commits = tuple(sorted({commit(read_json(path / RUN_META)) for path in ours}))
    date = read_json(folder / RUN_META)["ended_at"][:10]
    return Errors(int(table["n_real"]["e2e", "p50"]), errors, commits, date, known, inside, in_sample)


def _figures(table: pd.DataFrame, metric: str, column: str) -> tuple[float, ...]:
    return tuple(round(float(table[column][metric, level]), _DIGITS) for level in LEVELS)


def commit(meta: Mapping[str, Any]) -> str:
    """A checkout's, by what metadata say of it."""
    return f"{meta['git_commit'] or 'not in a checkout'}"[:12] + (" with changes" if meta["git_dirty"] else "")
