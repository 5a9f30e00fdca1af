"""Outcomes of jobs, made by hand."""

from collections.abc import Sequence
from pathlib import Path

from gpu_simulate_test.io.study_tables import FIGURES
from gpu_simulate_test.studies.jobs import SWEEPS, Outcome, write_outcome


def figures(**known: float) -> dict[str, float | None]:
    """Figures of a run: 100 of each that is not told."""
    return {field.name: known.get(field.name, 100.0) for field in FIGURES}


def ok(job: int, *overrides: str, run_dir: str = "vidur_runs/vidur_a", **known: float) -> Outcome:
    """A job that went well."""
    return Outcome(
        job=job,
        stage="vidur_sim",
        overrides=["experiment=e", *overrides],
        status="ok",
        exit_code=0,
        run_dir=run_dir,
        figures=figures(**known),
    )


def bad(job: int, *overrides: str, error: str = "no such thing: x; look elsewhere") -> Outcome:
    """A job that failed."""
    return Outcome(
        job=job, stage="vidur_sim", overrides=["experiment=e", *overrides], status="error", exit_code=3, error=error
    )


def sweep_folder(root: Path, outcomes: Sequence[Outcome]) -> Path:
    """The folder of a sweep below ``output.root``."""
    folder = root / SWEEPS / "sweep_1"
    folder.mkdir(parents=True)
    for outcome in outcomes:
        write_outcome(folder, outcome)
    return folder
