"""One wrapper around every stage: typed config in, run directory out, one line per error."""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import STAGES, HydraRecord, StageConfig
from gpu_simulate_test.errors import ConfigError, MachineError, StageError, is_out_of_memory

if TYPE_CHECKING:  # pandas comes with it, and --help must answer at once
    from gpu_simulate_test.io.run_dir import RunDir

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# They take settings, or a whole job, from files that may name code to run.
_FOREIGN_FLAGS = ("config_path", "config_name", "config_dir", "experimental_rerun")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


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
        sys.exit(_run_hydra(stage, run))

    return main


def _run_hydra(stage: str, run: Callable[[Any, HydraRecord], Path]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing a page
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable
    register_resolvers()
    if not {"-m", "--multirun"} & set(sys.argv):  # a quoted list would be one value, not a sweep
        sys.argv[1:] = [_quoted(argument) for argument in sys.argv[1:]]
    exit_codes = [0]

    def job(config: DictConfig) -> None:
        # In a sweep a failed job must not stop the others: its code is kept, the sweep goes on.
        exit_codes.append(_run_job(stage, config, run))

    try:
        _refuse_foreign_code(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=stage)(job)()
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        return _report(_one_line(error), ConfigError.exit_code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and undone: a second Ctrl-C changes nothing
        signal.setitimer(signal.ITIMER_REAL, 0)
        return _report(
            "interrupted: what was finished stays, what was not is incomplete; run the same command again", INTERRUPTED
        )
    return max(exit_codes)


def _run_job(stage: str, config: DictConfig, run: Callable[[Any, HydraRecord], Path]) -> int:
    _log_to_stderr()
    hydra_config = HydraConfig.get()
    try:
        record = HydraRecord(
            config_name=stage,
            config_path=str(config_dir()),
            overrides=list(hydra_config.overrides.task),
            resolved=_plain(config, resolve=True),
            hydra=_plain(OmegaConf.create({"hydra": hydra_config}), resolve=False),
        )
        path = run(typed_config(stage, config), record)
    except StageError as error:
        return _report(_one_line(error), error.exit_code)
    except OmegaConfBaseException as error:
        return _report(_one_line(error), ConfigError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return _report("out of memory; lower backend.num_blocks or take a smaller model", MachineError.exit_code)
        raise
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        where = error.filename or config.output.root
        message = f"cannot write: {where}: {error.strerror}; free some space, or choose another output.root"
        return _report(message, MachineError.exit_code)
    print(path.absolute(), flush=True)
    return 0


def _refuse_foreign_code(arguments: list[str]) -> None:
    """Refuse what lets Hydra run code that a setting names: its own settings (callbacks, launchers) and their files.

    Raises
    ------
    ConfigError
        The argument is named.
    """
    parsed = get_args_parser().parse_args(arguments)
    flags = [f"--{flag.replace('_', '-')}" for flag in _FOREIGN_FLAGS if getattr(parsed, flag) is not None]
    refused = flags + [override for override in parsed.overrides if "hydra" in override.partition("=")[0]]
    if refused:
        raise ConfigError(f"not accepted: {refused[0]}: it could run code that a file names; --help lists the settings")


def typed_config(stage: str, config: DictConfig) -> StageConfig:
    """Check the composed settings against the stage's types and ranges.

    Raises
    ------
    OmegaConfBaseException
        A value of the wrong type, or a missing one.
    ConfigError
        A value out of range.
    """
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(STAGES[stage]), config))
    assert isinstance(typed, StageConfig)
    return typed


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a Ctrl-C that a destructor swallowed: it is raised again."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _interrupt(signum: int, frame: object) -> None:
    """Raise Ctrl-C now, and again in a second should a destructor or a callback have swallowed it."""
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    raise KeyboardInterrupt


def _quoted(argument: str) -> str:
    """Quote a value that Hydra's override grammar cannot read bare: a path with letters beyond ASCII."""
    key, equals, value = argument.partition("=")
    if not equals or value.isascii() or value[0] in "'\"[{":
        return argument
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _plain(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def write_hydra_record(run: "RunDir", record: HydraRecord) -> None:
    """Keep Hydra's resolved config, its own settings and the overrides in ``.hydra/``."""
    run.write_text(".hydra/config.yaml", OmegaConf.to_yaml(record.resolved))
    run.write_text(".hydra/hydra.yaml", OmegaConf.to_yaml(record.hydra))
    run.write_text(".hydra/overrides.yaml", OmegaConf.to_yaml(record.overrides))


def _log_to_stderr() -> None:
    logging.raiseExceptions = False  # a disk too full for the log is reported by what else cannot be written
    logger = logging.getLogger("gpu_simulate_test")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


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
            lines.append(line.strip().replace("full_key: ", "in "))
    return (
        "; ".join(line for line in lines if line and not line.startswith(("object_type=", "reference_type=")))
        + "; see --help"
    )


def _report(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
