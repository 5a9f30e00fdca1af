"""Everything that the Markdown summary and the HTML report say: both are made from it, so they cannot disagree."""

from typing import Any

from gpu_simulate_test.analysis.assess import Assessment
from gpu_simulate_test.analysis.attribution import HOST, Attribution
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.gates import PASSED
from gpu_simulate_test.analysis.identity import compared
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import between, count, decimals, ms, number, percent
from gpu_simulate_test.analysis.samples import METRICS
from gpu_simulate_test.analysis.slo import written, written_throughput
from gpu_simulate_test.analysis.terms import DEFINITIONS, NAMES, TITLES
from gpu_simulate_test.analysis.verdict import NOT_JUDGED
from gpu_simulate_test.analysis.wording import headline, how_to_read, taken_over, trust, verdict_line


def report_context(assessment: Assessment, real: Run, sim: Run) -> dict[str, Any]:
    """Figures written out and sentences, by the names that the templates use."""
    comparison = assessment.comparison
    return {
        "trust": trust(assessment),
        "headline": headline(assessment),
        "terms": DEFINITIONS,
        "pooled": comparison.num_repeats > 1 or len(sim.samples) > 1,
        "verdict": assessment.verdict,
        "verdict_line": verdict_line(assessment),
        "compared": compared(real, sim, comparison.findings),
        "table": latency_table(comparison),
        "throughput": written_throughput(assessment.throughput),
        "slo": written(assessment.slo),
        "gates": assessment.gates.to_dict("records"),
        "attribution": _attribution(assessment.attribution),
        "attribution_note": _attribution_note(assessment, real),
        "distances": _distances(assessment),
        "notes": comparison.notes or ["None: every request of both runs was compared, token for token."],
        "caveats": len(comparison.notes),
        "gates_open": int((assessment.gates["status"] != PASSED).sum()),
        "limits": how_to_read(assessment),
    }


def latency_table(comparison: Comparison) -> list[dict[str, Any]]:
    """Group the percentile table by metric, its figures written out."""
    groups = []
    for metric in METRICS:
        rows = comparison.of_metric(metric)
        digits = decimals(rows[["real_ns", "sim_ns"]])
        written = [
            {
                "statistic": "mean" if row["statistic"] == "mean" else row["statistic"].upper(),
                "real": ms(row["real_ns"], digits),
                "sim": ms(row["sim_ns"], digits),
                "sim_range": between(ms(row["sim_low_ns"], digits), ms(row["sim_high_ns"], digits)),
                "error": ms(row["error_ns"], digits, sign=True),
                "relative": percent(row["relative_error"], sign=True),
                "interval": between(percent(row["ci_low"], sign=True), percent(row["ci_high"], sign=True)),
                "floor": percent(row["floor"]),
                "verdict": row["verdict"],
            }
            for row in rows.to_dict("records")
        ]
        groups.append(
            {
                "name": NAMES[metric],
                "title": TITLES[metric],
                "n": count(rows["n_real"].iloc[0]),
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
            **{f"{metric}_ms": ms(rows[metric, part]["mean_ns"], 3, sign=True) for metric in attribution.per_request},
            **{f"{metric}_share": percent(rows[metric, part]["share"]) for metric in attribution.per_request},
        }
        for part in (*attribution.parts, "total")
    ]


def _attribution_note(assessment: Assessment, real: Run) -> str:
    attribution = assessment.attribution
    if isinstance(attribution, str):
        return attribution
    of_first = f"of {real.path.name}, the first of {assessment.comparison.num_repeats} real runs, "
    host = (
        "Calibrated host time: what the calibration adds to kernels, that is the host's work in each iteration that "
        "really ran, and before the engine saw the request and after its first token; the predictor's parts are of "
        "kernels alone. "
    )
    return (
        f"Mean difference {of_first if assessment.comparison.num_repeats > 1 else ''}from the simulation. "
        "Predictor: its time of each iteration that really ran, against the measured one. "
        f"{host if HOST in attribution.parts else ''}Between iterations: time in "
        "which the real engine ran none. Knock-on: longer queues and larger batches that both of these make. "
        "Dispatch lag: time without an iteration before the engine was handed the request. Scheduling: the rest, "
        "other batches or waiting for them at the same speed."
    )


def _distances(assessment: Assessment) -> list[dict[str, str]]:
    groups = {metric: decimals(assessment.comparison.of_metric(metric)[["real_ns", "sim_ns"]]) for metric in METRICS}
    return [
        {
            "title": TITLES[row["metric"]],
            "ks": number(row["ks"], 3) or NOT_JUDGED,
            "wasserstein": ms(row["wasserstein_ns"], groups[row["metric"]]),
        }
        for row in assessment.distances.to_dict("records")
    ]
