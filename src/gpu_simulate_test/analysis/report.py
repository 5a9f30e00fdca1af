"""Write a comparison down: CSV tables, a Markdown summary and one interactive HTML page.

Markdown and HTML are made from one context, so they cannot disagree.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpu_simulate_test.analysis.compare import METRICS, Comparison
from gpu_simulate_test.analysis.load_metrics import Run, is_ok
from gpu_simulate_test.analysis.plots import NS_PER_MS, TITLES, counted, decimals, interactive_figures, percent
from gpu_simulate_test.io.run_dir import RunDir
from gpu_simulate_test.io.tables import write_table

NAMES = {"ttft": "TTFT", "tbt": "TBT", "tpot": "TPOT", "e2e": "E2E", "e2e_per_token": "E2E / token"}
_TEMPLATE = "report.html.j2"
_LIMITS = (
    "An error is simulated - real; a relative error divides by real. Percentiles interpolate linearly.",
    "TTFT and E2E count from the scheduled arrival, so the time a request waits in a queue is part of them.",
    "TBT is the time between neighbouring tokens of a request; the first token has none. "
    "TPOT = (completion - first token) / (tokens - 1). E2E / token = E2E / tokens.",
    "The real run is taken as it is: how much a second real run would differ from it is not part of these figures.",
)


def write_report(comparison: Comparison, real: Run, sim: Run, run: RunDir, plots: Sequence[Path]) -> None:
    """Write ``percentiles.csv``, ``per_request.csv``, ``summary.md`` and ``report.html``.

    Parameters
    ----------
    comparison : Comparison
    real, sim : Run
        The runs it was made from.
    run : RunDir
        The directory being written.
    plots : sequence of Path
        PNG files below it, which ``summary.md`` shows. ``report.html`` needs no other file and no network.

    Raises
    ------
    MachineError
        The directory cannot be written.
    """
    write_table(run.path / "percentiles.csv", comparison.percentiles)
    write_table(run.path / "per_request.csv", comparison.per_request)
    context = _context(comparison, real, sim)
    images = [(plot.stem, plot.relative_to(run.path).as_posix()) for plot in plots]
    run.write_text("summary.md", _markdown(context, images))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    charts = [Markup(html) for html in _charts(comparison)]  # plotly's own markup, made of numbers
    run.write_text("report.html", environment.get_template(_TEMPLATE).render(**context, charts=charts))


def headline(comparison: Comparison) -> str:
    """Say in one sentence how far the simulated median end-to-end latency is off."""
    rows = _of_metric(comparison, "e2e")
    median = rows.to_dict("records")[0]
    digits = max(decimals(rows) - 1, 0)  # a sentence is read, not computed with
    real, sim = (_ms(median[f"{side}_ns"], digits) for side in ("real", "sim"))
    relative = round(100 * median["relative_error"], 1)
    figures = f"(sim {sim} ms, real {real} ms, {counted('e2e', median['n_real'])})"
    if np.isnan(relative):
        return f"The simulator cannot be judged on the median end-to-end latency, which is zero in reality {figures}."
    if not relative:
        return f"The simulator predicts the median end-to-end latency to within 0.1 % {figures}."
    direction = "low" if relative < 0 else "high"
    return f"The simulator predicts the median end-to-end latency {abs(relative):,.1f} % too {direction} {figures}."


def comparison_table(comparison: Comparison) -> str:
    """Lay the percentile table out for a terminal, in ms and %.

    Returns
    -------
    str
        Fixed-width lines of at most 80 characters, no newline at the end. An undefined figure is blank.
    """
    lines = [f"{'metric':<12}{'':<6}{'real ms':>14}{'sim ms':>14}{'error ms':>14}{'error':>11}{'n':>9}"]
    for group in _table(comparison):
        for index, row in enumerate(group["rows"]):
            name, n = (group["name"], f"{group['n']:,}") if index == 0 else ("", "")
            cells = f"{row['real']:>14}{row['sim']:>14}{row['error']:>14}{row['relative']:>11}"
            lines.append(f"{name:<12}{row['statistic']:<6}{cells}{n:>9}")
    return "\n".join(line.rstrip() for line in lines)


def _context(comparison: Comparison, real: Run, sim: Run) -> dict[str, Any]:
    """Everything that both reports say."""
    groups = _table(comparison)
    limits = list(_LIMITS)
    n = len(comparison.per_request)
    if n < 100:
        limits.insert(1, f"With {counted('e2e', n)}, P99 rests on the slowest one or two.")
    return {
        "headline": headline(comparison),
        "tiles": [{"name": group["name"], **group["rows"][0]} for group in groups],
        "compared": _compared(real, sim),
        "table": groups,
        "notes": comparison.notes or ["None: every request of both runs was compared, token for token."],
        "caveats": len(comparison.notes),
        "limits": limits,
    }


def _table(comparison: Comparison) -> list[dict[str, Any]]:
    """Group the percentile table by metric, its figures written out."""
    groups = []
    for metric in METRICS:
        rows = _of_metric(comparison, metric)
        digits = decimals(rows)
        written = [
            {
                "statistic": "mean" if row["statistic"] == "mean" else row["statistic"].upper(),
                "real": _ms(row["real_ns"], digits),
                "sim": _ms(row["sim_ns"], digits),
                "error": _ms(row["error_ns"], digits, sign=True),
                "relative": percent(row["relative_error"]),
            }
            for row in rows.to_dict("records")
        ]
        n = int(rows["n_real"].iloc[0])
        groups.append(
            {"name": NAMES[metric], "title": TITLES[metric], "n": n, "over": counted(metric, n), "rows": written}
        )
    return groups


def _of_metric(comparison: Comparison, metric: str) -> pd.DataFrame:
    return comparison.percentiles[comparison.percentiles["metric"] == metric]


def _ms(ns: float, digits: int, *, sign: bool = False) -> str:
    """Write nanoseconds as ms; a missing figure stays empty."""
    if np.isnan(ns):
        return ""
    value = round(ns / NS_PER_MS, digits) + 0.0  # turns -0.0 into 0.0
    return f"{value:+,.{digits}f}" if sign and value else f"{value:,.{digits}f}"


def _compared(real: Run, sim: Run) -> list[dict[str, str]]:
    """List what the two runs say about themselves; a row that neither can fill is left out."""
    of_real, of_sim = _identity(real), _identity(sim)
    of_real["Engine"] = _look_up(real.meta, "engine.name", "backend", "params.backend.name")
    of_sim["Engine"] = " ".join(filter(None, ["Vidur", _look_up(sim.meta, "env.versions.vidur")]))
    of_real["Scheduler"] = _look_up(real.meta, "engine.details.scheduler")
    of_sim["Scheduler"] = _look_up(sim.meta, "settings.scheduler", "params.vidur.scheduler.name")
    of_real["Predictor"] = "none, measured"
    of_sim["Predictor"] = _look_up(sim.meta, "predictor", "params.vidur.predictor.name")
    return [
        {"label": label, "real": of_real[label] or "not recorded", "sim": of_sim[label] or "not recorded"}
        for label in of_sim
        if of_real[label] or of_sim[label]
    ]


def _identity(run: Run) -> dict[str, str]:
    """Collect what both kinds of run record; settings in force go before those asked for."""
    meta = run.meta
    done = run.requests[is_ok(run.requests)]
    failed = len(run.requests) - len(done)
    commit = _look_up(meta, "git_commit")[:10]
    seqs, tokens, blocks, size = (
        _look_up(meta, f"engine.{key}", f"settings.{simulated}", f"params.backend.{key}")
        for key, simulated in (
            ("max_num_seqs", "batch_cap"),
            ("max_num_batched_tokens", "token_budget"),
            ("num_blocks", "num_blocks"),
            ("block_size", "block_size"),
        )
    )
    return {
        "Run": _look_up(meta, "run_id") or run.path.name,
        "Model": _look_up(meta, "model"),
        "Hardware": _look_up(meta, "params.hardware.name", "hardware.hardware_id"),
        "Ran on": _look_up(meta, "engine.details.device_name", "env.cuda_device_name", "env.cpu"),
        "Data type": _look_up(meta, "engine.dtype", "params.hardware.dtype"),
        "Engine": "",
        "Scheduler": "",
        "Predictor": "",
        "Batch limits": f"{seqs} requests, {tokens} tokens" if seqs and tokens else "",
        "KV cache": f"{blocks} blocks of {size} tokens" if blocks and size else "",
        "Requests": f"{len(done):,} completed" + (f", {failed:,} failed" if failed else ""),
        "Output tokens": f"{int(done['num_decode_tokens_actual'].sum()):,}",
        "Workload": _look_up(meta, "workload_sha256")[:12] or "unknown",
        "Ended": re.sub(r"\.\d+", "", _look_up(meta, "ended_at")).replace("T", " "),
        "Code": f"{commit} with local changes" if commit and meta.get("git_dirty") else commit,
    }


def _look_up(meta: dict[str, Any], *keys: str) -> str:
    """Find the first dotted key that holds a plain value; empty when none does."""
    for key in keys:
        value: Any = meta
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict | list):
            return " ".join(str(value).split())
    return ""


def _markdown(context: dict[str, Any], images: list[tuple[str, str]]) -> str:
    lines = ["# Real run against simulation", "", context["headline"], "", "## What was compared", ""]
    lines += _markdown_table(
        ["", "Real", "Simulated"], [[row["label"], row["real"], row["sim"]] for row in context["compared"]]
    )
    lines += ["", "## Latencies", ""]
    lines += _markdown_table(
        ["Metric", "Statistic", "Real, ms", "Simulated, ms", "Error, ms", "Error", "Taken over"],
        [
            [group["title"], row["statistic"], row["real"], row["sim"], row["error"], row["relative"], group["over"]]
            for group in context["table"]
            for row in group["rows"]
        ],
    )
    lines += ["", "## Caveats", "", *(f"- {note}" for note in context["notes"])]
    lines += ["", "## How to read this", "", *(f"- {limit}" for limit in context["limits"])]
    lines += ["", "## Distributions", "", *(f"![{name}]({path})" for name, path in images)]
    return "\n".join(lines) + "\n"


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    cells = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def _charts(comparison: Comparison) -> list[str]:
    """Charts as HTML fragments; the first one brings plotly.js for all."""
    return [
        str(
            figure.to_html(
                full_html=False,
                include_plotlyjs=index == 0,
                div_id=name,
                config={"displayModeBar": False, "responsive": True},
            )
        )
        for index, (name, figure) in enumerate(interactive_figures(comparison).items())
    ]
