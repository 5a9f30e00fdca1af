"""A sweep under way: the folder of its outcomes, found again by the same command, and who is to go on with it."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpu_simulate_test.config.ids import stable_id
from gpu_simulate_test.errors import MachineError
from gpu_simulate_test.io.files import write_text
from gpu_simulate_test.io.locks import LockedError, locked
from gpu_simulate_test.studies.jobs import SWEEPS, outcome_path, read_outcomes

_PLACES = ("output.root", "overwrite")  # they change what is written where, not what is studied
_LAUNCH = "launch"


def studied(override: str) -> bool:
    """True of an override that is part of what a sweep is: of the stage's settings, or of what makes up its jobs."""
    key = override.lstrip("+~").partition("=")[0]
    return key not in _PLACES and (not key.startswith(("hydra/", "hydra.")) or key[6:].startswith("sweeper"))


def of_a_job(override: str) -> bool:
    """True of an override that makes a job this one and no other."""
    return studied(override) and not override.lstrip("+~").startswith(("hydra/", "hydra."))


@dataclass(frozen=True)
class Sweep:
    """What every job of a sweep is told, wherever it runs.

    Attributes
    ----------
    root : Path
        The folder of all results.
    folder : Path
        Of this sweep, in it.
    launch : str
        Which of several attempts at it this is.
    """

    root: Path
    folder: Path
    launch: str

    def is_wanted(self) -> bool:
        """False once this attempt was interrupted, or another one begun."""
        try:
            return (self.folder / _LAUNCH).read_text(encoding="ascii") == self.launch
        except OSError:
            return False

    def stop(self) -> None:
        """Tell the jobs that are still waiting or running elsewhere, of SLURM or on other machines, to end."""
        (self.folder / _LAUNCH).unlink(missing_ok=True)


@contextmanager
def open_sweep(root: Path, stage: str, overrides: Sequence[str], config_dir: str | None) -> Iterator[Sweep]:
    """Begin a sweep, or go on with it: outcomes of jobs that failed are forgotten.

    Raises
    ------
    MachineError
        Its folder cannot be written, or the same sweep is under way.
    """
    given = [override for override in overrides if studied(override)]
    name = stable_id("sweep", {"stage": stage, "overrides": given, "config_dir": config_dir})
    folder = root / SWEEPS / name
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder.with_name(f".{name}.lock")))
        except LockedError:
            raise MachineError(f"the same sweep is under way: {folder}; wait for it to end") from None
        except OSError as error:
            raise MachineError(f"cannot write: {folder}: {error.strerror}; choose another output.root") from error
        for outcome in read_outcomes(folder):
            if outcome.exit_code:
                outcome_path(folder, outcome.job).unlink()
        sweep = Sweep(root, folder, uuid.uuid4().hex)
        write_text(folder / _LAUNCH, sweep.launch)
        yield sweep
