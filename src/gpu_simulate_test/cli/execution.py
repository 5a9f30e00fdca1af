"""A stage done: its typed settings in, and out comes a run directory, or one line and an exit code."""

import errno
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.config.base import validated
from gpu_simulate_test.config.schema import STAGES, HydraRecord, StageConfig
from gpu_simulate_test.errors import AlreadyFinished, ConfigError, MachineError, StageError, is_out_of_memory

BUG = 1
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RESOLVING = "ConfigError raised while resolving interpolation: "  # what OmegaConf says of an error of ours
_LAUNCHERS = re.compile(r"hydra/launcher/(joblib|ray|ray_aws|submitit_local|submitit_slurm)\b")

Run = Callable[[Any, HydraRecord], Path]


@dataclass(frozen=True)
class Ended:
    """How a stage ended.

    Attributes
    ----------
    code : int
        To exit with.
    error : str or None
        What to say of it, in one line.
    path : Path or None
        The run directory of one that is finished.
    """

    code: int
    error: str | None = None
    path: Path | None = None


def settings_of(stage: str, settings: dict[str, Any]) -> StageConfig:
    """Check resolved settings against the stage's types and ranges.

    Raises
    ------
    ConfigError
        A value of the wrong type or out of range.
    """
    return validated(STAGES[stage], {key: value for key, value in settings.items() if key != "hydra"})


def execute(run: Run, settings: Callable[[], StageConfig], record: Callable[[], HydraRecord]) -> Ended:
    """Do a stage's work; its errors become lines, and a bug of ours a traceback on stderr as well.

    Parameters
    ----------
    run : callable
        Of the stage.
    settings, record : callable
        Make what it takes; what is wrong with them is an error like any other.
    """
    root = "the folder of results"
    try:
        of_hydra, config = record(), settings()
        root = config.output.root
        return Ended(0, path=run(config, of_hydra).absolute())
    except AlreadyFinished as error:
        if of_hydra.multirun:
            return Ended(0, path=error.path.absolute())
        return Ended(error.exit_code, one_line(error))
    except StageError as error:
        return Ended(error.exit_code, one_line(error))
    except OmegaConfBaseException as error:
        return Ended(ConfigError.exit_code, one_line(error))
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            said = "out of memory; lower limits.num_blocks or take a smaller model"
            return Ended(MachineError.exit_code, said)
        return _bug(error)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            return _bug(error)
        said = f"cannot write: {error.filename or root}: {error.strerror}; "
        return Ended(MachineError.exit_code, said + "free some space, or choose another output.root")
    except Exception as error:
        return _bug(error)


def _bug(error: BaseException) -> Ended:
    with suppress(BrokenPipeError):
        traceback.print_exc()
    return Ended(BUG, f"a bug of ours: {type(error).__name__}: {' '.join(str(error).split())}")


def one_line(error: BaseException) -> str:
    """One line of an error: Hydra and OmegaConf spread theirs over a page."""
    if isinstance(error, StageError):
        return " ".join(str(error).split())
    if isinstance(error.__cause__, StageError):
        return one_line(error.__cause__)
    lines = []
    for source in (error, error.__cause__):
        for line in str(source or "").splitlines():
            if "Config search path" in line:
                break
            lines.append(line.strip().removeprefix(_RESOLVING).replace("full_key: ", "in "))
    told = "; ".join(line for line in lines if line and not line.startswith(("object_type=", "reference_type=")))
    if launcher := _LAUNCHERS.search(told):
        return (
            f"hydra/launcher={launcher[1]} is not installed: it comes with the extra sweep, as in make setup or "
            "pip install '.[sweep]'"
        )
    return f"{told.replace(':; ', ': ')}; see --help"


def report(message: str, code: int) -> int:
    """Say on stderr what is wrong; return `code`."""
    with suppress(BrokenPipeError):
        print(f"error: {message}", file=sys.stderr, flush=True)
    return code
