"""What became of each job of a sweep: one small file a job, the same bytes whatever launched it."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpu_simulate_test.errors import ArtifactError, MachineError
from gpu_simulate_test.io.files import read_json, write_json
from gpu_simulate_test.io.progress import progress

JOBS = "jobs"  # of a sweep's folder
SWEEPS = "sweeps"  # of output.root
_LOOK_S = 0.5


class Outcome(BaseModel):
    """What became of one job.

    Attributes
    ----------
    job : int
        Its number in the sweep, from 0.
    stage : str
        Name of the stage's file in the config tree.
    overrides : list of str
        What makes it this job: without the settings of Hydra, the folder of results and ``overwrite``.
    status : str
        ``ok``; ``error``, with a line that says so; ``killed``, by a signal.
    exit_code : int
        As the stage alone would have ended: 0, 1 to 5, or 128 and the signal.
    error : str or None
        One line.
    run_dir : str or None
        Where its results are, relative to the folder of all results.
    figures : dict of float
        Of a finished run, by the names of `gpu_simulate_test.analysis.run_figures`; what is not known is left None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: int = Field(ge=0)
    stage: str
    overrides: list[str]
    status: Literal["ok", "error", "killed"]
    exit_code: int
    error: str | None = None
    run_dir: str | None = None
    figures: dict[str, float | None] = {}

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it: a figure that is no number is None."""
        figures = {name: value if _is_number(value) else None for name, value in self.figures.items()}
        return self.model_dump() | {"figures": figures}


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def outcome_path(folder: Path, job: int) -> Path:
    """The file of a job in a sweep's folder."""
    return folder / JOBS / f"{job}.json"


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the outcome of a job into a sweep's folder, in place of an earlier one.

    Raises
    ------
    MachineError
        The folder cannot be written.
    """
    path = outcome_path(folder, outcome.job)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot write: {path}: {error.strerror}; choose another output.root") from error
    write_json(path, outcome.plain())


def read_outcomes(folder: Path) -> list[Outcome]:
    """Outcomes of the jobs in a sweep's folder, in order of the jobs.

    Raises
    ------
    ArtifactError
        One of them is no outcome of ours.
    """
    return sorted(map(_read_outcome, (folder / JOBS).glob("*.json")), key=lambda outcome: outcome.job)


def _read_outcome(path: Path) -> Outcome:
    try:
        return Outcome.model_validate(read_json(path))
    except ValidationError as error:
        raise ArtifactError(f"not the outcome of a job: {path}; delete it and run the sweep again") from error


@contextmanager
def jobs_counted(folder: Path, what: str, total: int) -> Iterator[None]:
    """Show how many jobs are done, as long as the context lasts: whatever runs them, their outcomes come to the folder.

    Parameters
    ----------
    folder : Path
        Of the sweep.
    what : str
        In front of the figures.
    total : int
        How many jobs there are.
    """
    before, over = _written(folder), threading.Event()

    def watch() -> None:
        with progress(what, total, "jobs") as bar:
            while not over.wait(_LOOK_S):
                new = [job for job, when in _written(folder).items() if before.get(job) != when]
                if count := len(new) - bar.done:
                    failed = 0
                    with suppress(ArtifactError):
                        failed = sum(bool(_read_outcome(folder / JOBS / job).exit_code) for job in new)
                    if failed:
                        bar.note(f"{failed} failed")
                    bar.update(count)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _written(folder: Path) -> dict[str, int]:
    """When each outcome was written, by the name of its file."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / JOBS).glob("*.json")}
