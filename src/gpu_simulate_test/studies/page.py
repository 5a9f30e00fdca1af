"""The page of a sweep, and its summary in text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from gpu_simulate_test.analysis.numbers import count, percent, short, significant
from gpu_simulate_test.analysis.templates import environment
from gpu_simulate_test.io.files import write_text
from gpu_simulate_test.studies.charts import charts_of, common_slo, legend_of, name_of
from gpu_simulate_test.studies.jobs import Outcome
from gpu_simulate_test.studies.points import ATTAINMENT, INTERACTIVITY, THROUGHPUT, Sweep, load_of, sweep_of, written

_PAGE, _SUMMARY = "sweep.html.j2", "sweep.md.j2"
_REPORT = "report.html"
_COLUMNS = {  # of the table on the page and in the summary
    "request_rate_per_s": "Sent, 1/s",
    "requests_per_s": "Done, 1/s",
    "output_tokens_per_s_per_gpu": "Output tokens/s per GPU",
    "interactivity_tokens_per_s": "Tokens/s per user",
    "ttft_p50_ms": "TTFT P50, ms",
    "ttft_p99_ms": "TTFT P99, ms",
    "tpot_p50_ms": "TPOT P50, ms",
    "tpot_p99_ms": "TPOT P99, ms",
    "e2e_p50_ms": "E2E P50, ms",
    "e2e_p99_ms": "E2E P99, ms",
    "slo_attainment": "SLO met",
    "goodput_per_s": "Goodput, 1/s",
    "cost_per_million_output_tokens": "Cost per 1M output tokens",
}
_OBJECTIVES = {"ttft_ms": "TTFT", "tbt_ms": "mean TBT", "e2e_ms": "E2E"}


def write_page(folder: Path, root: Path, outcomes: Sequence[Outcome], table: pd.DataFrame, extra_html: str) -> Path:
    """Write ``index.html``, which needs no other file and no network, and ``summary.md``.

    Parameters
    ----------
    folder : Path
        Of the sweep, two below `root`.
    root : Path
        ``output.root``, which the links to the runs go through.
    outcomes : sequence of Outcome of length n_jobs
    table : pandas.DataFrame of shape (n_jobs, n_columns)
        `gpu_simulate_test.studies.table.sweep_table`.
    extra_html : str
        A section before the charts, as it is.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    MachineError
        The folder cannot be written.
    """
    sweep = sweep_of(outcomes, root, table)
    links = [_link(run_dir, root) for run_dir in table["run_dir"]]
    legend, total_known = legend_of(sweep), int(table[THROUGHPUT].notna().sum())
    context = {
        "stage": outcomes[0].stage.replace("_", "-") if outcomes else "",
        "headline": headline(sweep),
        "common": [f"{key}={written(value)}" for key, value in sweep.common.items()],
        "extra": Markup(extra_html),  # made by whoever passes it
        "charts": [Markup(chart) for chart in charts_of(sweep, links.__getitem__)],  # every text in them is escaped
        "legend": [one | {"swatch": Markup(one["swatch"])} for one in legend],
        "unnamed": len(sweep.groups) - len(legend) if legend else 0,
        "hollow": bool((sweep.meets == 0).any()),
        "front": [_point(sweep, row, links[row]) for row in sweep.front[::-1]] if total_known > 1 else [],
        **_table(sweep, links),
        "failed": _failed(outcomes, table, links),
    }
    templates = environment(Path(__file__).parent)
    write_text(folder / "summary.md", templates.get_template(_SUMMARY).render(context))
    write_text(folder / "index.html", templates.get_template(_PAGE).render(context))
    return folder / "index.html"


def headline(sweep: Sweep) -> str:
    """Say in one sentence how many jobs there are, how many failed, and which is best."""
    total, failed = len(sweep.table), int((sweep.table["status"] != "ok").sum())
    if not total:
        return "No job has ended yet."
    jobs = count(total, "job")
    if failed == total:
        return f"{jobs}, and {'it' if total == 1 else 'all of them'} failed."
    jobs += f", {failed:,} of them failed" if failed else ""
    if not np.isnan(sweep.meets).all():
        met = int((sweep.meets == 1).sum())
        wanted = _wanted(common_slo(sweep))
        if not met:
            return f"{jobs}; {'it misses' if total == 1 else 'none meets'} the objectives{wanted}."
        jobs += f"; {met:,} {'meets' if met == 1 else 'meet'} the objectives{wanted}"
    if sweep.best is None:
        return f"{jobs}."
    most = f"{significant(sweep.table[THROUGHPUT].iloc[sweep.best])} output tokens/s per GPU"
    if total - failed == 1:
        return f"{jobs}: {most}."
    return f"{jobs}; {'of these ' if 'objectives' in jobs else ''}{_said(sweep, sweep.best)} gives most, {most}."


def _said(sweep: Sweep, row: int) -> str:
    """The settings of a job in words, its code first."""
    group = next(group for group in sweep.groups if row in group.jobs)
    said = ", ".join(part for part in (group.label, load_of(sweep, row)) if part)
    name = name_of(sweep, row)
    return f"{name} ({said})" if said and name != said else name


def _wanted(slo: dict[str, float]) -> str:
    limits = [f"{name} at most {significant(slo[key])} ms" for key, name in _OBJECTIVES.items() if key in slo]
    share = short(100 * slo.get("attainment", ATTAINMENT))
    return f" ({' and '.join(limits)} for {share} % of the requests)" if limits else ""


def _link(run_dir: str | None, root: Path) -> str | None:
    """The address of a run's report, or of its folder, from the folder of the sweep."""
    if not isinstance(run_dir, str):
        return None
    report = (root / run_dir / _REPORT).is_file()
    return f"../../{quote(run_dir)}/{_REPORT if report else ''}"


def _point(sweep: Sweep, row: int, link: str | None) -> dict[str, Any]:
    figures = [significant(sweep.table[name].iloc[row]) for name in (INTERACTIVITY, THROUGHPUT)]
    return {"said": _said(sweep, row), "link": link, "misses": bool(sweep.meets[row] == 0), "figures": figures}


def _table(sweep: Sweep, links: Sequence[str | None]) -> dict[str, Any]:
    """The jobs as rows of text: ``header`` and ``rows``; a figure that no job knows has no column."""
    table = sweep.table
    known = [name for name in _COLUMNS if table[name].notna().any()]
    codes = {row: group.code for group in sweep.groups for row in group.jobs}
    coded = any(codes.values())
    header = [
        "Job",
        *(["Setting"] if coded else []),
        *sweep.keys.values(),
        "Status",
        *(_COLUMNS[name] for name in known),
    ]
    rows = []
    for row in range(len(table)):
        settings = [written(table[key].iloc[row]) for key in sweep.keys]
        figures = [_shown(name, float(table[name].iloc[row])) for name in known]
        status = str(table["status"].iloc[row])
        cells = [str(table["job"].iloc[row]), *([codes[row]] if coded else []), *settings, status, *figures]
        rows.append({"link": links[row], "cells": cells, "best": row == sweep.best, "status": status})
    return {"header": header, "rows": rows, "num_figures": len(known)}


def _shown(name: str, value: float) -> str:
    return percent(value) if name == "slo_attainment" else significant(value)


def _failed(outcomes: Sequence[Outcome], table: pd.DataFrame, links: Sequence[str | None]) -> list[dict[str, Any]]:
    return [
        {
            "job": outcome.job,
            "status": outcome.status,
            "exit_code": outcome.exit_code,
            "error": table["error"].iloc[row] or "",
            "overrides": " ".join(outcome.overrides),
            "link": links[row],
        }
        for row, outcome in enumerate(outcomes)
        if outcome.status != "ok"
    ]
