"""A sweep from the first job to its table: Hydra's launcher runs the jobs, what became of them is read from disk."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.cli.arguments import Arguments
from gpu_simulate_test.cli.composition import Part, Plan
from gpu_simulate_test.cli.execution import one_line, report
from gpu_simulate_test.cli.jobs import SweepJob, close_forks, launched_here
from gpu_simulate_test.cli.logs import log_to_stderr
from gpu_simulate_test.errors import ConfigError, MachineError, StageError
from gpu_simulate_test.io.progress import on_terminal
from gpu_simulate_test.studies.jobs import Outcome, jobs_counted, read_outcomes, write_outcome
from gpu_simulate_test.studies.sweep import Sweep, of_a_job, open_sweep

Launch = Callable[[list[str], SweepJob], None]
_LOST = 128 + 9
_FEW = 3  # errors, where stderr is a file or a pipe


def run_sweep(stage: str, arguments: Arguments, plan: Plan, launch: Launch) -> int:
    """Run all jobs of a plan; their run directories, then the sweep's folder, are printed.

    Returns
    -------
    int
        The largest exit code of a job.

    Raises
    ------
    MachineError
        The sweep's folder cannot be written, or the same sweep is under way.
    """
    first = plan.first
    if first is None:
        for line in dict.fromkeys(map(one_line, plan.failures.values())):
            report(line, ConfigError.exit_code)
        return ConfigError.exit_code
    if first.hydra.runtime.choices["hydra/sweeper"] == "capacity":  # which says itself what cannot be composed
        plan = replace(plan, parts=[Part(arguments.overrides, ())], failures={})
    log_to_stderr(first.hydra.verbose)
    root = Path(str(OmegaConf.select(first, "output.root"))).absolute()
    with open_sweep(root, stage, arguments.overrides, arguments.config_dir) as sweep:
        for job, error in plan.failures.items():
            _write(sweep, stage, plan.numbers[job], job, ("error", ConfigError.exit_code, one_line(error)))
        try:
            failed = _launched(stage, sweep, plan, launch)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rest takes a moment, and a second Ctrl-C does not help
            signal.setitimer(signal.ITIMER_REAL, 0)
            sweep.stop()
            raise
        finally:
            close_forks()
            page = _write_table(sweep)
        if not failed:
            sweep.stop()
        code = max(_told(sweep), failed)
        print(f"table and charts: {page}", file=sys.stderr)
        with suppress(BrokenPipeError):
            print(sweep.folder, flush=True)
        return code


def _launched(stage: str, sweep: Sweep, plan: Plan, launch: Launch) -> int:
    """Have the jobs run; the exit code of a launcher that failed, else 0."""
    launched_here.add(sweep.launch)
    counted = plan.first is not None and plan.first.hydra.runtime.choices["hydra/sweeper"] == "basic"
    failed = 0
    try:
        count = sum(len(part.jobs) for part in plan.parts)
        with jobs_counted(sweep.folder, stage.replace("_", "-"), count) if counted else nullcontext():
            for part in plan.parts:
                launch(part.overrides, SweepJob(stage, sweep, part.jobs if counted else None))
    except (HydraException, OmegaConfBaseException, StageError):
        raise
    except Exception as error:  # of a launcher: it lost a job, or could not start one
        said = f"the launcher failed: {type(error).__name__}: {' '.join(str(error).split())}"
        failed = report(f"{said}; run the same command again", MachineError.exit_code)
    finally:
        launched_here.discard(sweep.launch)
    known = {outcome.job for outcome in read_outcomes(sweep.folder)}
    for job, number in plan.numbers.items() if counted else ():
        if number not in known:
            _write(sweep, stage, number, job, ("killed", _LOST, "its launcher lost it"))
    return failed


def _write_table(sweep: Sweep) -> Path:
    """Make the table and the page of what there is."""
    from gpu_simulate_test.studies.capacity_table import capacity_section
    from gpu_simulate_test.studies.table import write_sweep

    return write_sweep(sweep.folder, capacity_section(sweep.folder))


def _write(sweep: Sweep, stage: str, number: int, job: Iterable[str], ended: tuple[str, int, str]) -> None:
    fields: dict[str, object] = dict(zip(("status", "exit_code", "error"), ended, strict=True))
    overrides = list(filter(of_a_job, job))
    write_outcome(
        sweep.folder, Outcome.model_validate({"job": number, "stage": stage, "overrides": overrides} | fields)
    )


def _told(sweep: Sweep) -> int:
    """Say what became of the jobs; the largest of their exit codes."""
    outcomes = read_outcomes(sweep.folder)
    jobs: dict[str, list[int]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            jobs.setdefault(outcome.error, []).append(outcome.job)
    code = max((outcome.exit_code for outcome in outcomes), default=0)
    shown = len(jobs) if on_terminal() else _FEW
    for line, numbers in list(jobs.items())[:shown]:
        report(f"{line} ({_counted(numbers)})", code)
    if rest := sum(map(len, list(jobs.values())[shown:])):
        report(f"others of {rest} more jobs are in the table", code)
    with suppress(BrokenPipeError):
        for outcome in outcomes:
            if outcome.run_dir is not None:
                print(os.path.normpath(sweep.root / outcome.run_dir))
    return code


def _counted(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
    return f"job{'s' if len(numbers) > 1 else ''} {shown}"
