"""Write a comparison down: tables, a trace, a Markdown summary and one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from gpu_simulate_test.analysis.assess import Assessment
from gpu_simulate_test.analysis.attribution import Attribution
from gpu_simulate_test.analysis.bars import slowest, waterfalls
from gpu_simulate_test.analysis.charts import distributions, errors
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.context import latency_table, report_context
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.templates import environment
from gpu_simulate_test.analysis.terms import NAMES
from gpu_simulate_test.analysis.trace import trace_json
from gpu_simulate_test.analysis.verdict import NOT_JUDGED
from gpu_simulate_test.analysis.wording import headline, verdict_line
from gpu_simulate_test.io.comparison_tables import ATTRIBUTION, GATES, PER_REQUEST, PERCENTILES, SLO, THROUGHPUT
from gpu_simulate_test.io.run_dir import RunDir

__all__ = ["comparison_lines", "comparison_table", "headline", "verdict_line", "write_report"]

_SUMMARY, _PAGE = "summary.md.j2", "report.html.j2"


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
    run.write_table(THROUGHPUT, assessment.throughput)
    if len(assessment.slo):
        run.write_table(SLO, assessment.slo)
    if isinstance(assessment.attribution, Attribution):
        run.write_table(ATTRIBUTION, assessment.attribution.table())
    run.write_text("trace.json", trace_json(real, sim))
    context = report_context(assessment, real, sim) | {
        "images": [(plot.stem, plot.relative_to(run.path).as_posix()) for plot in plots],
        "waterfalls": waterfalls(assessment.attribution),
        "distributions": distributions(assessment),
        "errors": [*errors(assessment), slowest(assessment.comparison, real, sim)],
    }
    templates = environment()
    for template in (_SUMMARY, _PAGE):
        run.write_text(template.removesuffix(".j2"), templates.get_template(template).render(context))


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
    for group in latency_table(comparison):
        for index, row in enumerate(group["rows"]):
            name, n = (group["name"], group["n"]) if index == 0 else ("", "")
            cells = f"{row['real']:>12}{row['sim']:>12}{row['error']:>12}{row['relative']:>11}{row['floor']:>9}"
            lines.append(f"{name:<12}{row['statistic']:<5}{cells}{n:>9}  {row['verdict']}")
    for reason in dict.fromkeys(comparison.unjudged.values()):
        names = [NAMES[metric] for metric, why_not in comparison.unjudged.items() if why_not == reason]
        lines.append(f"{', '.join(names)} {NOT_JUDGED}: {reason}")
    return "\n".join(line.rstrip() for line in lines)


def comparison_lines(comparison: Comparison) -> list[str]:
    """The errors of a few percentiles in as many lines, for a log."""
    lines, groups = [], latency_table(comparison)
    for statistic in ("P50", "P99"):
        found = [
            f"{group['name']} {row['relative']}"
            for group in groups
            for row in group["rows"]
            if row["statistic"] == statistic and row["relative"]
        ]
        lines.append(f"errors of {statistic}: {', '.join(found)}")
    return lines
