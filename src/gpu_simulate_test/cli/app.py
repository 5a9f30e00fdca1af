"""One wrapper around every stage: typed config in, run directory out, one line per error."""

import errno
import logging
import os
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test import __version__
from gpu_simulate_test.cli.arguments import Arguments, parse_arguments
from gpu_simulate_test.cli.composition import needs_check, plain, sweeps
from gpu_simulate_test.config.base import validated
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import STAGES, HydraRecord, StageConfig
from gpu_simulate_test.errors import ConfigError, MachineError, StageError, is_out_of_memory

_RESOLVING = "ConfigError raised while resolving interpolation: "  # what OmegaConf says of an error of ours
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BUG = 1
register_resolvers()  # here, so that a job in a process of its own has them as well


def stage_main(stage: str, run: Callable[[Any, HydraRecord], Path]) -> Callable[[], None]:
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


def _run_hydra(stage: str, run: Callable[[Any, HydraRecord], Path]) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing a page
    logging.raiseExceptions = False  # a log that cannot be written is reported by what else cannot be
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable
    codes = ExitCodes()
    try:
        arguments = parse_arguments(sys.argv[1:], STAGES[stage])
        for line in arguments.renamed:
            print(line, file=sys.stderr)
        if arguments.version:
            print(f"gpu-simulate-test {__version__}, Hydra {hydra.__version__}")
            return 0
        errors = _launch(stage, arguments, run, codes)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and undone: a second Ctrl-C changes nothing
        signal.setitimer(signal.ITIMER_REAL, 0)
        said = "interrupted: what was finished stays, what was not is incomplete; run the same command again"
        codes.add(_report(said, INTERRUPTED))
        return codes.worst()
    except (HydraException, OmegaConfBaseException, ConfigError, ValueError) as error:
        errors = [error]
    except BrokenPipeError:
        raise
    except OSError as error:  # of Hydra's: its output folders, its reading of files
        codes.add(_report(f"{error.strerror}: {error.filename}; choose another folder", MachineError.exit_code))
        return codes.worst()
    for line in dict.fromkeys(map(_one_line, errors)):
        codes.add(_report(line, ConfigError.exit_code))
    return codes.worst()


def _launch(
    stage: str, arguments: Arguments, run: Callable[[Any, HydraRecord], Path], codes: "ExitCodes"
) -> list[Exception]:
    """Give Hydra the overrides; return the errors of jobs of a sweep that could not be composed."""

    def job(config: DictConfig) -> None:
        # In a sweep a failed job must not stop the others: its code is kept, the sweep goes on.
        codes.add(_run_job(stage, config, run))

    def launch(overrides: list[str]) -> None:
        sys.argv[1:] = [*arguments.flags, *overrides]
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=stage)(job)()

    errors: list[Exception] = []
    parts = [arguments.overrides]
    checked = needs_check(arguments)
    if checked:
        parts, errors = sweeps(stage, arguments, check=True)
    try:
        for overrides in parts:
            launch(overrides)
    except HydraException:
        # Hydra composes all jobs of a sweep before it runs the first.
        if checked or not arguments.multirun:
            raise
        parts, errors = sweeps(stage, arguments, check=False)
        if not errors:
            raise
        for overrides in parts:
            launch(overrides)
    return errors


class ExitCodes:
    """Exit codes of the jobs, also of those that a launcher runs in processes of their own."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._codes = [0]
        self._file = Path(tempfile.gettempdir()) / f"gpu-simulate-test-{uuid.uuid4()}"

    def add(self, code: int) -> None:
        """Keep the code of a job."""
        if os.getpid() == self._process:
            self._codes.append(code)
        else:
            with self._file.open("a", encoding="ascii") as stream:
                stream.write(f"{code}\n")

    def worst(self) -> int:
        """The largest code."""
        with suppress(FileNotFoundError):
            self._codes += map(int, self._file.read_text(encoding="ascii").split())
            self._file.unlink()
        return max(self._codes)


def _run_job(stage: str, config: DictConfig, run: Callable[[Any, HydraRecord], Path]) -> int:
    hydra_config = HydraConfig.get()
    _log_to_stderr(hydra_config.verbose)
    try:
        record = HydraRecord(
            config_name=stage,
            config_path=str(config_dir()),
            resolved=plain(config, resolve=True),
            hydra=(own := plain(OmegaConf.create({"hydra": hydra_config}))),
            overrides=own["hydra"]["overrides"]["task"],
        )
        path = run(typed_config(stage, config), record)
    except StageError as error:
        return _report(_one_line(error), error.exit_code)
    except OmegaConfBaseException as error:
        return _report(_one_line(error), ConfigError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return _report("out of memory; lower limits.num_blocks or take a smaller model", MachineError.exit_code)
        return _bug()
    except OSError as error:
        if error.errno not in _DISK_FULL:
            return _bug()
        where = error.filename or config.output.root
        message = f"cannot write: {where}: {error.strerror}; free some space, or choose another output.root"
        return _report(message, MachineError.exit_code)
    except Exception:
        return _bug()
    with suppress(BrokenPipeError):  # nobody reads it: the run is finished all the same
        print(path.absolute(), flush=True)
    return 0


def _bug() -> int:
    with suppress(BrokenPipeError):
        traceback.print_exc()
    return BUG


def typed_config(stage: str, config: DictConfig) -> StageConfig:
    """Check the composed settings against the stage's types and ranges.

    Raises
    ------
    OmegaConfBaseException
        A missing value.
    ConfigError
        A value of the wrong type or out of range.
    """
    settings = plain(config, resolve=True, throw_on_missing=True)
    settings.pop("hydra", None)
    return validated(STAGES[stage], settings)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a Ctrl-C that a destructor swallowed: it is raised again."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _interrupt(signum: int, frame: object) -> None:
    """Raise Ctrl-C now, and again in a second should a destructor or a callback have swallowed it."""
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    raise KeyboardInterrupt


def _log_to_stderr(verbose: object) -> None:
    logger = logging.getLogger("gpu_simulate_test")
    logger.setLevel(logging.DEBUG if verbose is True else logging.INFO)
    shown = logging.getLogger() if verbose else logger  # hydra.verbose: of all, or of the loggers it names
    if not any(handler.get_name() == __name__ for handler in shown.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.set_name(__name__)
        handler.setFormatter(logging.Formatter("%(message)s"))
        shown.addHandler(handler)


def _one_line(error: BaseException) -> str:
    """One line of an error: Hydra and OmegaConf spread theirs over a page."""
    if isinstance(error, StageError):
        return " ".join(str(error).split())
    if isinstance(error.__cause__, StageError):
        return _one_line(error.__cause__)
    lines = []
    for source in (error, error.__cause__):
        for line in str(source or "").splitlines():
            if "Config search path" in line:
                break
            lines.append(line.strip().removeprefix(_RESOLVING).replace("full_key: ", "in "))
    told = "; ".join(line for line in lines if line and not line.startswith(("object_type=", "reference_type=")))
    return f"{told.replace(':; ', ': ')}; see --help"


def _report(message: str, code: int) -> int:
    with suppress(BrokenPipeError):
        print(f"error: {message}", file=sys.stderr, flush=True)
    return code
