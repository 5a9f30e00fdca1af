"""One wrapper around every stage: typed config in, run directory out, one line per error."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test import __version__
from gpu_simulate_test.cli.arguments import Arguments, parse_arguments
from gpu_simulate_test.cli.composition import needs_check, plain, planned
from gpu_simulate_test.cli.execution import BUG, Run, execute, one_line, report, settings_of
from gpu_simulate_test.cli.jobs import recorded
from gpu_simulate_test.cli.logs import log_to_stderr
from gpu_simulate_test.cli.sweeps import run_sweep
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.schema import STAGES, StageConfig
from gpu_simulate_test.errors import ConfigError, MachineError, StageError
from gpu_simulate_test.studies.forks import INTERRUPTED


def stage_main(stage: str, run: Run) -> Callable[[], None]:
    """Make the console entry point of a stage.

    Parameters
    ----------
    stage : str
        Name of its file in the config tree, and of its typed config.
    run : callable
        Takes the typed config and Hydra's record of the job, returns the finished run directory.

    Returns
    -------
    callable
        Exits 0, or with the code of the error; prints the run directory as the last line of stdout.
    """

    def main() -> None:
        try:
            code = _run_hydra(stage, run)
        except SystemExit as end:  # Hydra's own, after --help
            code = end.code if isinstance(end.code, int) else BUG if end.code else 0
        except BrokenPipeError:  # the reader of our output has seen enough, as in --help | head
            code = 0
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        sys.exit(code)

    return main


def _run_hydra(stage: str, run: Run) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing a page
    logging.raiseExceptions = False  # a log that cannot be written is reported by what else cannot be
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable
    try:
        arguments = parse_arguments(sys.argv[1:], STAGES[stage])
        for line in arguments.renamed:
            print(line, file=sys.stderr)
        if arguments.version:
            print(f"gpu-simulate-test {__version__}, Hydra {hydra.__version__}")
            return 0
        return _launch(stage, arguments, run)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and undone: a second Ctrl-C changes nothing
        signal.setitimer(signal.ITIMER_REAL, 0)
        said = "interrupted: what was finished stays, what was not is incomplete; run the same command again"
        return report(said, INTERRUPTED)
    except StageError as error:
        return report(one_line(error), error.exit_code)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return report(one_line(error), ConfigError.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:  # of Hydra's: its output folders, its reading of files
        return report(f"{error.strerror}: {error.filename}; choose another folder", MachineError.exit_code)


def _launch(stage: str, arguments: Arguments, run: Run) -> int:
    """Give Hydra the overrides, of one job or of a sweep."""

    def launch(overrides: list[str], task: Callable[[DictConfig], object]) -> None:
        sys.argv[1:] = [*arguments.flags, *overrides]
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=stage)(task)()

    _forget_what_is_slow(arguments)
    check = needs_check(arguments)
    if arguments.multirun or check:
        plan = planned(stage, arguments, check=check, every=check)
        if plan.multirun:
            try:
                return run_sweep(stage, arguments, plan, launch)
            except HydraException:  # Hydra composes all jobs before it runs the first
                plan = planned(stage, arguments, check=check)
                if check or not plan.failures:
                    raise
                return run_sweep(stage, arguments, plan, launch)
    codes = [0]
    launch(arguments.overrides, lambda config: codes.append(_run_job(stage, config, run)))
    return codes[-1]


def _forget_what_is_slow(arguments: Arguments) -> None:
    """Ray's settings for Amazon's cloud, where it is installed: copied with each look at a group, 3 s of ``--help``."""
    Plugins.instance()  # finds them
    if not any("ray_aws" in override for override in arguments.overrides):
        ConfigStore.instance().repo.get("hydra", {}).get("launcher", {}).pop("ray_aws.yaml", None)


def _run_job(stage: str, config: DictConfig, run: Run) -> int:
    log_to_stderr(HydraConfig.get().verbose)
    ended = execute(run, lambda: typed_config(stage, config), lambda: recorded(stage, config))
    if ended.error is not None:
        return ended.code if ended.code == BUG else report(ended.error, ended.code)  # a bug has told its traceback
    with suppress(BrokenPipeError):  # nobody reads it: the run is finished all the same
        print(ended.path, flush=True)
    return 0


def typed_config(stage: str, config: DictConfig) -> StageConfig:
    """Check the composed settings against the stage's types and ranges.

    Raises
    ------
    OmegaConfBaseException
        A missing value.
    ConfigError
        A value of the wrong type or out of range.
    """
    return settings_of(stage, plain(config, resolve=True, throw_on_missing=True))


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a Ctrl-C that a destructor swallowed: it is raised again."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _interrupt(signum: int, frame: object) -> None:
    """Raise Ctrl-C now, and again in a second should a destructor or a callback have swallowed it."""
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    raise KeyboardInterrupt
