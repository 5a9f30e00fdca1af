"""The jobs of a sweep, as Hydra's launchers call them: each in a child process, each with its outcome on disk."""

import importlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.cli.composition import plain
from gpu_simulate_test.cli.execution import Ended, execute, one_line, settings_of
from gpu_simulate_test.cli.logs import log_to_stderr
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import HydraRecord
from gpu_simulate_test.errors import ConfigError, StageError, at_end
from gpu_simulate_test.io.progress import hide, on_terminal
from gpu_simulate_test.studies.forks import INTERRUPTED, Forks, StoppedError
from gpu_simulate_test.studies.jobs import Outcome, write_outcome
from gpu_simulate_test.studies.sweep import Sweep, of_a_job

# What takes seconds to import, and starts no thread that a fork would lose; an engine is imported by its own job.
_IMPORTED = {
    "workload_spec": ("gpu_simulate_test.workloads.spec",),
    "real_bench": ("gpu_simulate_test.analysis.run_figures",),
    "vidur_profile": ("gpu_simulate_test.vidur_ext.profile_runner",),
    "vidur_sim": ("gpu_simulate_test.vidur_ext.sim_runner", "gpu_simulate_test.analysis.run_figures"),
    "compare_runs": ("gpu_simulate_test.analysis.stage",),
}
_RUN_TYPES = {"real_bench": "real", "vidur_sim": "vidur"}
_forks: dict[str, Forks] = {}  # of this process, by stage; a launcher runs several jobs in one
launched_here: set[str] = set()  # sweeps whose launcher this process is
register_resolvers()  # here, so that a job in a process of its own has them as well


def recorded(stage: str, config: DictConfig) -> HydraRecord:
    """Hydra's view of the job that it runs in this process.

    Raises
    ------
    OmegaConfBaseException
        A value that cannot be resolved.
    """
    own = plain(OmegaConf.create({"hydra": HydraConfig.get()}))
    return HydraRecord(
        config_name=stage,
        config_path=str(config_dir()),
        resolved=plain(config, resolve=True),
        hydra=own,
        overrides=own["hydra"]["overrides"]["task"],
    )


@dataclass(frozen=True)
class SweepJob:
    """A stage as the task of a sweep.

    Attributes
    ----------
    numbers : tuple of int or None
        Of the jobs that Hydra counts from 0, in the whole sweep; None where they are the same.
    """

    stage: str
    sweep: Sweep
    numbers: tuple[int, ...] | None = None

    def __call__(self, config: DictConfig) -> dict[str, Any]:
        """Run the job that Hydra has composed; its outcome is returned, and written."""
        if not self.sweep.is_wanted():
            raise StoppedError("this sweep was interrupted, or begun anew")
        if self.sweep.launch not in launched_here and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever launched us says when to stop
        hydra = HydraConfig.get()
        job = int(hydra.job.num) if self.numbers is None else self.numbers[int(hydra.job.num)]
        outcome = Outcome(
            job=job,
            stage=self.stage,
            overrides=[str(override) for override in hydra.overrides.task if of_a_job(override)],
            status="error",
            exit_code=ConfigError.exit_code,
        )
        try:
            record = recorded(self.stage, config)
            plain(config, resolve=True, throw_on_missing=True)
        except (OmegaConfBaseException, StageError) as error:
            outcome = _with(outcome, error=one_line(error))
        else:
            outcome = self._run(record, outcome)
        write_outcome(self.sweep.folder, outcome)
        return outcome.plain()

    def _run(self, record: HydraRecord, outcome: Outcome) -> Outcome:
        if self.stage not in _forks:
            _forks[self.stage] = Forks(f"{__name__}:run_here", _IMPORTED[self.stage])
        given = {
            "stage": self.stage,
            "job": outcome.job,
            "root": str(self.sweep.root),
            "record": vars(replace(record, multirun=True)),
        }
        text = json.dumps(given, default=lambda value: getattr(value, "name", str(value)))
        status, answer = _forks[self.stage].run(text, self.sweep.is_wanted)
        if status == INTERRUPTED:
            return _with(outcome, status="killed", exit_code=INTERRUPTED, error="interrupted")
        if status < 0:
            return _with(outcome, status="killed", exit_code=128 - status, error=_killed(-status))
        if answer is None:
            return _with(outcome, exit_code=status or 1, error=f"it ended with exit code {status}")
        return _with(outcome, **answer)


def _with(outcome: Outcome, **fields: Any) -> Outcome:
    """An outcome with other fields, checked."""
    return Outcome.model_validate(outcome.model_dump() | fields)


def _killed(number: int) -> str:
    name = signal.Signals(number).name
    memory = ": perhaps the machine ran out of memory" if number == signal.SIGKILL else ""
    return f"killed by {name}{memory}"


def run_here(text: str, answer: Callable[[dict[str, Any]], None]) -> None:
    """Do a job of a sweep, in the process that was forked for it; answer with fields of its outcome."""
    at_end.append(lambda error: answer({"exit_code": error.exit_code, "error": one_line(error)}))
    given = json.loads(text)
    stage, record = given["stage"], HydraRecord(**given["record"])
    hide()  # of several jobs at once nobody could read it
    least = logging.WARNING if on_terminal() else logging.CRITICAL
    log_to_stderr(record.hydra["hydra"]["verbose"], f"job {given['job']}: ", least)
    run = importlib.import_module(f"gpu_simulate_test.cli.{stage}").run
    ended = execute(run, lambda: settings_of(stage, record.resolved), lambda: record)
    answer(
        {
            "status": "error" if ended.code else "ok",
            "exit_code": ended.code,
            "error": ended.error,
            "run_dir": None if ended.path is None else os.path.relpath(ended.path, given["root"]),
            "figures": _figures(stage, record, ended),
        }
    )


def _figures(stage: str, record: HydraRecord, ended: Ended) -> dict[str, float]:
    if ended.path is None or stage not in _RUN_TYPES:
        return {}
    from gpu_simulate_test.analysis.run_figures import figures_of

    config = settings_of(stage, record.resolved)
    return figures_of(ended.path, _RUN_TYPES[stage], config.slo, config.hardware.price_per_hour)


def close_forks() -> None:
    """End the processes that fork jobs for this one."""
    while _forks:
        _forks.popitem()[1].close()
