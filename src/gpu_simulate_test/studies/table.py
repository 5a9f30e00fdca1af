"""One table of a sweep, and the page and the summary made of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.io.study_tables import FIGURES, SWEEP, with_settings
from gpu_simulate_test.io.tables import write_both
from gpu_simulate_test.studies.jobs import Outcome, read_outcomes
from gpu_simulate_test.studies.page import write_page
from gpu_simulate_test.studies.settings import Value, settings_of, swept


def write_sweep(folder: Path, extra_html: str = "") -> Path:
    """Write ``sweep.csv``, ``sweep.parquet``, ``summary.md`` and ``index.html`` of the jobs that have ended.

    Parameters
    ----------
    folder : Path
        ``<output.root>/sweeps/<id>``, with the outcomes of the jobs; none is a sweep, too.
    extra_html : str, optional
        A section that comes before the charts, as it is: nothing in it is escaped.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ArtifactError
        An outcome cannot be read.
    MachineError
        The folder cannot be written.
    """
    root = folder.absolute().parent.parent
    outcomes = read_outcomes(folder)
    table = sweep_table(outcomes, root)
    write_both(folder, with_settings(SWEEP, table), table)
    return write_page(folder, root, outcomes, table, extra_html)


def sweep_table(outcomes: Sequence[Outcome], root: Path) -> pd.DataFrame:
    """Make the table of `gpu_simulate_test.io.study_tables.SWEEP`.

    Parameters
    ----------
    outcomes : sequence of Outcome
        In order of their jobs.
    root : Path
        ``output.root``; taken off the paths in errors, so that the table is the same wherever it lies.

    Returns
    -------
    pandas.DataFrame of shape (n_jobs, 5 + n_settings + n_figures)
        ``job``; a column a setting that is not the same in all jobs, by its key, of integers, of numbers or of texts;
        ``status``, ``exit_code``, ``error``, ``run_dir``; the figures, NaN where not known.
    """
    settings = [settings_of(outcome.overrides) for outcome in outcomes]
    columns: dict[str, object] = {"job": np.array([outcome.job for outcome in outcomes], dtype=np.int64)}
    columns |= {key: _series([job.get(key) for job in settings]) for key in swept(settings)}
    columns["status"] = [outcome.status for outcome in outcomes]
    columns["exit_code"] = np.array([outcome.exit_code for outcome in outcomes], dtype=np.int64)
    columns["error"] = [_portable(outcome.error, root) for outcome in outcomes]
    columns["run_dir"] = [outcome.run_dir for outcome in outcomes]
    for field in FIGURES:
        columns[field.name] = np.array([outcome.figures.get(field.name) for outcome in outcomes], dtype=np.float64)
    return pd.DataFrame(columns)


def _series(values: list[Value | None]) -> pd.Series:
    given = [value for value in values if value is not None]
    if all(isinstance(value, int) and abs(value) < 2**63 for value in given):
        return pd.Series(values, dtype="Int64")
    if all(isinstance(value, int | float) for value in given):
        return pd.Series(values, dtype="float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="object")


def _portable(error: str | None, root: Path) -> str | None:
    return None if error is None else " ".join(error.replace(f"{root}/", "").split())
