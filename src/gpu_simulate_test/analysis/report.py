"""Write a comparison down: CSV tables, a Markdown summary and one interactive HTML page.

Markdown and HTML are made from one context, so they cannot disagree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpu_simulate_test.analysis.assess import Assessment
from gpu_simulate_test.analysis.attribution import PARTS, Attribution
from gpu_simulate_test.analysis.charts import interactive_figures, waterfalls
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.gates import PASSED
from gpu_simulate_test.analysis.identity import compared
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.plots import NS_PER_MS, TITLES, counted, decimals, percent, taken_over
from gpu_simulate_test.analysis.samples import METRICS
from gpu_simulate_test.analysis.slo import written
from gpu_simulate_test.analysis.trace import trace_json
from gpu_simulate_test.analysis.verdict import (
    MAX_FLOOR,
    NOT_JUDGED,
    OFF,
    TOO_NOISY,
    VOID,
    WITHIN_FLOOR,
    WITHIN_TOLERANCE,
)
from gpu_simulate_test.io.comparison_tables import ATTRIBUTION, GATES, PER_REQUEST, PERCENTILES, SLO
from gpu_simulate_test.io.run_dir import RunDir

NAMES = {"ttft": "TTFT", "tbt": "TBT", "tpot": "TPOT", "e2e": "E2E", "e2e_per_token": "E2E / token"}
_TEMPLATE = "report.html.j2"
_LIMITS = (
    "An error is simulated - real; a relative error divides by real. Percentiles interpolate linearly.",
    "TTFT and E2E count from the scheduled arrival, so the time a request waits in a queue is part of them.",
    "TBT is the time between neighbouring tokens of a request; the first token has none. "
    "TPOT = (completion - first token) / (tokens - 1). E2E / token = E2E / tokens.",
)


def write_report(assessment: Assessment, real: Run, sim: Run, run: RunDir, plots: Sequence[Path]) -> None:
    """Write the tables, ``trace.json``, ``summary.md`` and ``report.html``.

    Parameters
    ----------
    assessment : Assessment
    real, sim : Run
        The first repeat and the simulated run.
    run : RunDir
        The directory being written.
    plots : sequence of Path
        PNG files below it, which ``summary.md`` shows. ``report.html`` needs no other file and no network.

    Raises
    ------
    MachineError
        The directory cannot be written.
    """
    run.write_table(PERCENTILES, assessment.comparison.percentiles)
    run.write_table(PER_REQUEST, assessment.comparison.per_request)
    run.write_table(GATES, assessment.gates)
    if len(assessment.slo):
        run.write_table(SLO, assessment.slo)
    falls: dict[str, go.Figure] = {}
    if isinstance(assessment.attribution, Attribution):
        run.write_table(ATTRIBUTION, assessment.attribution.table())
        falls = waterfalls(assessment.attribution)
    run.write_text("trace.json", trace_json(real, sim))
    context = _context(assessment, real, sim)
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
    figures = falls | interactive_figures(assessment, real, sim)
    html = [Markup(one) for one in _html(figures)]  # plotly's own markup, made of numbers
    page = environment.get_template(_TEMPLATE).render(
        **context, waterfalls=html[: len(falls)], charts=html[len(falls) :]
    )
    run.write_text("report.html", page)


def headline(assessment: Assessment) -> str:
    """Say in one sentence how far the simulated median end-to-end latency is off, and whether that matters."""
    rows = _of_metric(assessment.comparison, "e2e")
    median = rows.to_dict("records")[0]
    digits = max(decimals(rows) - 1, 0)  # a sentence is read, not computed with
    real, sim = (_ms(median[f"{side}_ns"], digits) for side in ("real", "sim"))
    relative = round(100 * median["relative_error"], 1)
    figures = f"(sim {sim} ms, real {real} ms, {taken_over(assessment.comparison, 'e2e')})"
    if np.isnan(relative):
        return f"The simulator cannot be judged on the median end-to-end latency, which is zero in reality {figures}."
    distance = f"{abs(relative):,.1f} % too {'low' if relative < 0 else 'high'}" if relative else "to within 0.1 %"
    return f"The simulator predicts the median end-to-end latency {distance} {figures}; {_against(median, assessment)}."


def _against(median: Mapping[Any, Any], assessment: Assessment) -> str:
    """Hold the error of the headline against the floor and the tolerance."""
    floor, tolerance = median["floor"], f"the tolerance of {_percent(assessment.tolerance)}"
    within = median["verdict"] != OFF
    if np.isnan(floor):
        return (
            f"that is {'within' if within else 'beyond'} {tolerance}, and one real run has no floor to hold it against"
        )
    spread = f"the real run differs from itself by {_percent(floor)}"
    if median["verdict"] == TOO_NOISY:
        return f"{spread}, too much to judge the simulator by"
    if median["verdict"] == WITHIN_FLOOR:
        return f"{spread}, so the two cannot be told apart"
    if abs(median["error_ns"]) <= median["floor_ns"]:  # under a floor too wide to excuse anything by itself
        return f"{spread}, and the error is within {tolerance}"
    return f"{spread}, so the error is real, {'yet within' if within else 'and beyond'} {tolerance}"


def verdict_line(assessment: Assessment) -> str:
    """Say the verdict on the run and what it rests on."""
    if assessment.verdict == VOID:
        void = assessment.gates[assessment.gates["status"] == VOID]
        return "void ({})".format(
            "; ".join(f"{row['gate']} {row['value']}, {row['detail']}" for row in void.to_dict("records"))
        )
    rows = assessment.comparison.percentiles
    rows = rows[(rows["statistic"] != "mean") & (rows["verdict"] == assessment.verdict)]
    rows = rows.sort_values("relative_error", key=abs, ascending=False, kind="stable")
    worst = [
        f"{NAMES[row['metric']]} {row['statistic'].upper()} {percent(row['relative_error'])}"
        for row in rows.to_dict("records")
    ]
    line = assessment.verdict
    if line in (OFF, WITHIN_TOLERANCE):
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        line += f" ({', '.join(worst[:3])}{more})"
    unjudged = [NAMES[metric] for metric in assessment.comparison.unjudged]
    return f"{line}; {', '.join(unjudged)} {NOT_JUDGED}" if unjudged else line


def comparison_table(comparison: Comparison) -> str:
    """Lay the percentile table out for a terminal, in ms and %.

    Returns
    -------
    str
        Fixed-width lines of at most 100 characters, no newline at the end. An undefined figure is blank. Below, why a
        metric is not judged.
    """
    header = f"{'metric':<12}{'':<5}{'real ms':>12}{'sim ms':>12}{'error ms':>12}{'error':>11}{'floor':>9}{'n':>9}"
    lines = [f"{header}  verdict"]
    for group in _table(comparison):
        for index, row in enumerate(group["rows"]):
            name, n = (group["name"], f"{group['n']:,}") if index == 0 else ("", "")
            cells = f"{row['real']:>12}{row['sim']:>12}{row['error']:>12}{row['relative']:>11}{row['floor']:>9}"
            lines.append(f"{name:<12}{row['statistic']:<5}{cells}{n:>9}  {row['verdict']}")
    for reason in dict.fromkeys(comparison.unjudged.values()):
        names = [NAMES[metric] for metric, why_not in comparison.unjudged.items() if why_not == reason]
        lines.append(f"{', '.join(names)} {NOT_JUDGED}: {reason}")
    return "\n".join(line.rstrip() for line in lines)


def _context(assessment: Assessment, real: Run, sim: Run) -> dict[str, Any]:
    """Everything that both reports say."""
    comparison = assessment.comparison
    groups = _table(comparison)
    return {
        "headline": headline(assessment),
        "verdict": assessment.verdict,
        "verdict_line": verdict_line(assessment),
        "tiles": [{"name": group["name"], "over": group["over"], **group["rows"][0]} for group in groups],
        "compared": compared(real, sim, comparison.findings),
        "table": groups,
        "slo": written(assessment.slo),
        "gates": assessment.gates.to_dict("records"),
        "attribution": _attribution(assessment.attribution),
        "attribution_note": _attribution_note(assessment, real),
        "distances": _distances(assessment),
        "notes": comparison.notes or ["None: every request of both runs was compared, token for token."],
        "caveats": len(comparison.notes),
        "gates_open": int((assessment.gates["status"] != PASSED).sum()),
        "limits": _limits(assessment),
    }


def _limits(assessment: Assessment) -> list[str]:
    comparison = assessment.comparison
    limits = list(_LIMITS)
    n = len(comparison.per_request)
    if n < 100:
        limits.insert(1, f"With {counted('e2e', n)}, P99 rests on the slowest one or two.")
    if comparison.num_repeats > 1:
        limits.append(
            f"A real figure is the mean of {comparison.num_repeats} real runs. The floor is half the 95 % prediction "
            "interval for one more of them: an error within it is one that another real run could have."
        )
    else:
        limits.append("There is one real run: how much another one would differ is not known (no floor).")
    if len(assessment.slo):
        limits.append(
            "A request meets an objective when its latency is at most the limit; its TBT is the mean time between its "
            "tokens. One that failed meets none. Goodput counts those that do, for each second from the first arrival "
            "to the last completion. Where the latency of some request was not recorded, neither is judged. "
            "Objectives are no part of the verdict."
        )
    if assessment.comparison.percentiles["sim_low_ns"].notna().any():
        limits.append(
            "A simulated figure is the mean of several simulations, each with the scatter of the profile's own "
            "iterations; 95 % of them lie in the range beside it. Paired errors and causes are of one without scatter."
        )
    limits.append(
        "The interval beside an error is its 95 % bootstrap confidence interval, had other requests of the same "
        "traffic come (blocks of neighbours in order of arrival, the same ones for both runs)."
    )
    limits.append(
        f"Verdict: within a floor of at most {_percent(MAX_FLOOR)}, else within tolerance "
        f"({_percent(assessment.tolerance)} of the real figure), else too noisy to judge where a wider floor would "
        "excuse it, else off. The run takes the worst verdict of P50, P90 and P99, but for what chance "
        "alone does to so many figures (4 % for the median E2E, 1 % for all by Benjamini and "
        "Hochberg); a void gate makes it void."
    )
    return limits


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
                "sim_range": _range(row["sim_low_ns"], row["sim_high_ns"], digits),
                "error": _ms(row["error_ns"], digits, sign=True),
                "relative": percent(row["relative_error"]),
                "interval": _interval(row["ci_low"], row["ci_high"]),
                "floor": _percent(row["floor"]),
                "verdict": row["verdict"],
            }
            for row in rows.to_dict("records")
        ]
        groups.append(
            {
                "name": NAMES[metric],
                "title": TITLES[metric],
                "n": int(rows["n_real"].iloc[0]),
                "over": comparison.unjudged.get(metric) or taken_over(comparison, metric),
                "rows": written,
            }
        )
    return groups


def _attribution(attribution: Attribution | str) -> list[dict[str, str]]:
    if isinstance(attribution, str):
        return []
    rows = {(row["metric"], row["part"]): row for row in attribution.table().to_dict("records")}
    return [
        {
            "part": part,
            **{f"{metric}_{figure}": "" for metric in ("e2e", "ttft") for figure in ("ms", "share")},
            **{f"{metric}_ms": _ms(rows[metric, part]["mean_ns"], 3, sign=True) for metric in attribution.per_request},
            **{f"{metric}_share": _percent(rows[metric, part]["share"]) for metric in attribution.per_request},
        }
        for part in (*PARTS, "total")
    ]


def _attribution_note(assessment: Assessment, real: Run) -> str:
    if isinstance(assessment.attribution, str):
        return assessment.attribution
    of_first = f"of {real.path.name}, the first of {assessment.comparison.num_repeats} real runs, "
    return (
        f"Mean difference {of_first if assessment.comparison.num_repeats > 1 else ''}from the simulation. "
        "Predictor: its time of each iteration that really ran, against the measured one. Between iterations: time in "
        "which the real engine ran none. Knock-on: longer queues and larger batches that both of these make. "
        "Dispatch lag: time without an iteration before the engine was handed the request. Scheduling: the rest, "
        "other batches or waiting for them at the same speed."
    )


def _distances(assessment: Assessment) -> list[dict[str, str]]:
    groups = {metric: decimals(_of_metric(assessment.comparison, metric)) for metric in METRICS}
    return [
        {
            "title": TITLES[row["metric"]],
            "ks": NOT_JUDGED if np.isnan(row["ks"]) else f"{row['ks']:.3f}",
            "wasserstein": _ms(row["wasserstein_ns"], groups[row["metric"]]),
        }
        for row in assessment.distances.to_dict("records")
    ]


def _of_metric(comparison: Comparison, metric: str) -> pd.DataFrame:
    return comparison.percentiles[comparison.percentiles["metric"] == metric]


def _ms(ns: float, digits: int, *, sign: bool = False) -> str:
    """Write nanoseconds as ms; a missing figure stays empty."""
    if np.isnan(ns):
        return ""
    value = round(ns / NS_PER_MS, digits) + 0.0  # turns -0.0 into 0.0
    return f"{value:+,.{digits}f}" if sign and value else f"{value:,.{digits}f}"


def _percent(fraction: float) -> str:
    """Write a fraction that has no direction, as ``4.1 %``; empty when missing."""
    return "" if np.isnan(fraction) else f"{100 * fraction:,.1f} %"


def _range(low: float, high: float, digits: int) -> str:
    return "" if np.isnan(low) else f"{_ms(low, digits)} to {_ms(high, digits)}"


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"{percent(low)} to {percent(high)}"


def _markdown(context: dict[str, Any], images: list[tuple[str, str]]) -> str:
    lines = ["# Real run against simulation", "", context["headline"], "", f"Verdict: {context['verdict_line']}.", ""]
    lines += ["## What was compared", ""]
    lines += _markdown_table(["", "Real", "Simulated"], context["compared"], ["label", "real", "sim"])
    lines += ["", "## Latencies", ""]
    lines += _markdown_table(
        [
            *("Metric", "Statistic", "Real, ms", "Simulated, ms", "95 % of it"),
            *("Error, ms", "Error", "95 % interval", "Floor", "Verdict", "Taken over"),
        ],
        [
            {**row, "title": group["title"], "over": group["over"]}
            for group in context["table"]
            for row in group["rows"]
        ],
        ["title", "statistic", "real", "sim", "sim_range", "error", "relative", "interval", "floor", "verdict", "over"],
    )
    if context["slo"]:
        lines += ["", "## Service-level objectives", ""]
        lines += _markdown_table(
            ["Objective", "Statistic", "Real", "Simulated", "95 % of it", "Error", "Relative", "Floor"],
            [{**row, "title": group["title"]} for group in context["slo"] for row in group["rows"]],
            ["title", "statistic", "real", "sim", "sim_range", "error", "relative", "floor"],
        )
    lines += ["", "## Gates", ""]
    lines += _markdown_table(["Gate", "Status", "Value", ""], context["gates"], ["gate", "status", "value", "detail"])
    lines += ["", "## Where the difference comes from", "", context["attribution_note"], ""]
    if context["attribution"]:
        lines += _markdown_table(
            ["Part", "E2E, ms", "of E2E", "TTFT, ms", "of TTFT"],
            context["attribution"],
            ["part", "e2e_ms", "e2e_share", "ttft_ms", "ttft_share"],
        )
    lines += ["", "## Distances", ""]
    lines += _markdown_table(
        ["Metric", "Kolmogorov-Smirnov", "Wasserstein, ms"], context["distances"], ["title", "ks", "wasserstein"]
    )
    lines += ["", "## Caveats", "", *(f"- {note}" for note in context["notes"])]
    lines += ["", "## How to read this", "", *(f"- {limit}" for limit in context["limits"])]
    lines += ["", "## Distributions", "", *(f"![{name}]({path})" for name, path in images)]
    return "\n".join(lines) + "\n"


def _markdown_table(header: list[str], rows: list[dict[str, str]], keys: list[str]) -> list[str]:
    written = [[row[key].replace("|", "\\|") for key in keys] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *written)]


def _html(figures: dict[str, go.Figure]) -> list[str]:
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
        for index, (name, figure) in enumerate(figures.items())
    ]
