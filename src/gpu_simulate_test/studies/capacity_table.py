"""The table of the capacities that were found: ``capacity.csv``, a section of the page, a few lines on stderr."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gpu_simulate_test.analysis.numbers import significant
from gpu_simulate_test.analysis.templates import environment
from gpu_simulate_test.io.study_tables import CAPACITY, CAPACITY_FIGURES, with_settings
from gpu_simulate_test.io.table_files import write_table
from gpu_simulate_test.studies.capacities import Combination, remark
from gpu_simulate_test.studies.capacity import MISSED, Bracket, Search
from gpu_simulate_test.studies.settings import CONCURRENCY, settings_of, shortened, swept

NO_RANGE = "No range: the profile has no record of noise, so that between the two loads is all that is known"
_SHOWN = {
    "capacity": "Capacity",
    "missed_at": "Missed at",
    "low": "Low",
    "high": "High",
    "simulations": "Simulations",
    "output_tokens_per_s_per_gpu": "Output tokens/s per GPU",
    "cost_per_million_output_tokens": "Cost per 1M output tokens",
    "remark": "Remark",
}


def capacity_table(combinations: Sequence[Combination], max_rounds: int) -> pd.DataFrame:
    """Make the table of `gpu_simulate_test.io.study_tables.CAPACITY`.

    Returns
    -------
    pandas.DataFrame of shape (n_combinations, n_columns)
    """
    settings = [settings_of(one.overrides) for one in combinations]
    rows: list[dict[str, Any]] = []
    for one, given in zip(combinations, settings, strict=True):
        row: dict[str, Any] = {key: str(given.get(key, "")) for key in swept(settings)}
        rows.append(row | {"searched": one.key} | _found(one) | {"remark": remark(one, max_rounds)})
    return pd.DataFrame(rows)


def _found(one: Combination) -> dict[str, Any]:
    search, best = one.search, one.best
    figures = {} if best is None else best.figures
    ranged = len(search.sides) > 1
    return {
        "capacity": _met(search, search.bracket()),
        "met_at": np.nan if search.bracket().met is None else _met(search, search.bracket()),
        "missed_at": _missed(search, ""),
        "low": _met(search, search.bracket("low")) if ranged else np.nan,
        "high": _missed(search, "high") if ranged else np.nan,
        "simulations": len(one.outcomes),
        **{name: np.nan if (value := figures.get(name)) is None else value for name in CAPACITY_FIGURES},
        "run_dir": None if best is None else best.run_dir,
    }


def _met(search: Search, found: Bracket) -> float:
    """The highest load that met the objectives; 0 where a request alone misses them."""
    if found.met is not None:
        return found.met.value
    return 0.0 if found.above is not None and search.is_alone(found.above) else np.nan


def _missed(search: Search, side: str) -> float:
    above = search.bracket(side).above
    return np.nan if above is None or above.verdict(search.target, side) != MISSED else above.value


def write_capacities(folder: Path, table: pd.DataFrame) -> Path:
    """Write ``capacity.csv`` in the folder of a sweep.

    Raises
    ------
    MachineError
        The folder cannot be written.
    """
    return write_table(folder, with_settings(CAPACITY, table), table)


def capacity_lines(table: pd.DataFrame) -> list[str]:
    """The table as lines of aligned text, for a terminal."""
    header, rows = _cells(table)
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in (header, *rows)]
    return [f"{_title(table)}:", *lines, *_notes(table)]


def capacity_section(folder: Path) -> str:
    """The section of a sweep's page on its capacities, HTML; empty where it has none."""
    path = folder / CAPACITY.filename
    if not path.is_file():
        return ""
    table = pd.read_csv(path)
    header, rows = _cells(table)
    context = {
        "title": _title(table),
        "header": header,
        "rows": [
            {"cells": cells, "link": f"../../{run_dir}/" if isinstance(run_dir, str) else None}
            for cells, run_dir in zip(rows, table["run_dir"], strict=True)
        ],
        "first_figure": header.index(_SHOWN["capacity"]),
        "notes": _notes(table),
    }
    return Markup(environment(Path(__file__).parent).get_template("capacity.html.j2").render(context))


def _title(table: pd.DataFrame) -> str:
    of = "concurrent requests" if table["searched"].iloc[0] == CONCURRENCY else "requests/s"
    return f"Capacity, {of}, by {int(table['simulations'].sum()):,} simulations"


def _notes(table: pd.DataFrame) -> list[str]:
    return [NO_RANGE] if table[["low", "high"]].isna().all(axis=None) else []


def _cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    settings = list(table.columns[: table.columns.get_loc("searched")])
    figures = [name for name in _SHOWN if table[name].notna().any()]
    names = shortened(settings)
    rows = [
        [*(_text(row[key]) for key in settings), *(_text(row[name]) for name in figures)]
        for row in table.to_dict("records")
    ]
    return [*(names[key] for key in settings), *(_SHOWN[name] for name in figures)], rows


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else significant(value)
