"""What reports and charts have in common: names, colours, the headline, the verdict, how to read the figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpu_simulate_test.analysis.assess import Assessment
from gpu_simulate_test.analysis.calibration import Calibration
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.numbers import NS_PER_MS, count, decimals, ms, number, percent
from gpu_simulate_test.analysis.samples import Floats
from gpu_simulate_test.analysis.terms import NAMES, counted
from gpu_simulate_test.analysis.verdict import (
    IN_SAMPLE,
    MAX_FLOOR,
    NOT_JUDGED,
    OFF,
    TOO_NOISY,
    VOID,
    WITHIN_FLOOR,
    WITHIN_TOLERANCE,
)

_MAX_CORNERS = 2000
_LONG_TAIL = 2  # of a maximum beyond so many times P99 a chart would show little else
_LIMITS = ("An error is simulated - real; a relative error divides by real. Percentiles interpolate linearly.",)


def taken_over(comparison: Comparison, metric: str) -> str:
    """Say what a metric was taken over, repeats included, as ``60 requests x 3 runs``."""
    runs = f" x {comparison.num_repeats} runs" if comparison.num_repeats > 1 else ""
    return counted(metric, int(comparison.figure(metric, "p50", "n_sim"))) + runs


def cdf(comparison: Comparison, side: str, metric: str) -> tuple[Floats, Floats]:
    """Corners of a CDF in ms, as many as a chart shows; it starts at 0, before its first value."""
    x, share = comparison.cdfs[side][metric]
    shown = np.unique(np.linspace(0, len(x) - 1, _MAX_CORNERS).round().astype(np.int64))
    return np.append(x[:1], x[shown]) / NS_PER_MS, np.append(0.0, share[shown])


def cdf_limits(comparison: Comparison, metric: str) -> tuple[float, float]:
    """Axis limits in ms that leave some air around both samples, or around all but a long tail of them."""
    low, high = _ends(comparison, metric)
    tail = max(comparison.figure(metric, "p99", f"{side}_ns") for side in ("real", "sim")) / NS_PER_MS
    high = high if high <= _LONG_TAIL * tail else 1.25 * tail
    air = 0.04 * (high - low) or 0.05 * high or 1.0
    return low - air, high + air


def beyond(comparison: Comparison, metric: str) -> str:
    """Say what is right of the chart; empty where nothing is."""
    high = _ends(comparison, metric)[1]
    return f"; the slowest, up to {number(high, 0)} ms, right of it" if high > cdf_limits(comparison, metric)[1] else ""


def _ends(comparison: Comparison, metric: str) -> tuple[float, float]:
    """The least and the most of both samples, ms."""
    both = [comparison.cdfs[side][metric][0] / NS_PER_MS for side in ("real", "sim")]
    return min(float(x[0]) for x in both), max(float(x[-1]) for x in both)


def trust(assessment: Assessment) -> str:
    """Say in one sentence, and in plain words, whether the simulation can be relied on."""
    verdict, tolerance = assessment.verdict, percent(assessment.tolerance)
    if verdict == VOID:
        return "Nothing can be said about the simulation: the comparison fails a check that it rests on."
    if verdict == IN_SAMPLE:
        return "Whether to rely on the simulation is not shown: it was fitted to a run that it is compared with here."
    if verdict == TOO_NOISY:
        return "Whether to rely on the simulation cannot be said: the real runs differ too much from each other."
    if verdict == NOT_JUDGED:
        return "Whether to rely on the simulation cannot be said: the records lack what a verdict needs."
    rows = assessment.comparison.percentiles
    found = rows.loc[(rows["statistic"] != "mean") & (rows["verdict"] != NOT_JUDGED), "verdict"]
    off, noisy, total = int((found == OFF).sum()), int((found == TOO_NOISY).sum()), len(found)
    floor = assessment.comparison.num_repeats > 1
    if verdict == OFF:
        beyond = " and by more than real runs differ from each other" if floor else ""
        figures = f"{off} of {total} latency figures are off by more than {tolerance}"
        return f"Do not rely on the simulation here: {figures}{beyond}."
    good = f"within {tolerance} of the real ones" + (" or within what real runs differ by" if floor else "")
    rest = [f"{off} off, no more than by chance"] * bool(off) + [f"{noisy} too noisy to judge"] * bool(noisy)
    more = f" ({', '.join(rest)})" if rest else ""
    figures = f"{total - off - noisy} of {total} latency figures are {good}"
    return f"The simulation can be relied on for such a load: {figures}{more}."


def headline(assessment: Assessment) -> str:
    """Say in one sentence how far the simulated median end-to-end latency is off, and whether that matters.

    Where the simulation was calibrated on a run compared here, what it is off elsewhere comes first.
    """
    rows = assessment.comparison.of_metric("e2e")
    median = rows.to_dict("records")[0]
    digits = max(decimals(rows[["real_ns", "sim_ns"]]) - 1, 0)  # a sentence is read, not computed with
    real, sim = (ms(median[f"{side}_ns"], digits) for side in ("real", "sim"))
    figures = f"(sim {sim} ms, real {real} ms, {taken_over(assessment.comparison, 'e2e')})"
    if np.isnan(median["relative_error"]):
        return f"The simulator cannot be judged on the median end-to-end latency, which is zero in reality {figures}."
    distance = _distance(median["relative_error"])
    if assessment.calibration and assessment.calibration.in_sample:
        within = "which proves nothing"
        if median["verdict"] == OFF:
            within = f"beyond the tolerance of {percent(assessment.tolerance)} even there"
        against = _learned_from(assessment.calibration, assessment.comparison.num_repeats)
        lead = _elsewhere(assessment.calibration)
        return f"{lead}; against {against}, it predicts that latency {distance} {figures}, {within}."
    return f"The simulator predicts the median end-to-end latency {distance} {figures}; {_against(median, assessment)}."


def _distance(relative_error: float) -> str:
    percents = round(100 * relative_error, 1)
    if not percents:
        return "to within 0.1 %"
    return f"{number(abs(percents), 1, '%')} too {'low' if percents < 0 else 'high'}"


def _elsewhere(calibration: Calibration) -> str:
    """How far a simulator is off on what its constants do not come from."""
    latency = "the median end-to-end latency"
    if calibration.held_out:
        error, n = calibration.held_out
        held = f"On {count(n, 'request')} held back from its calibration"
        return f"{held}, the simulator predicts {latency} {_distance(error)}"
    if calibration.left_out:
        error, n = calibration.left_out
        held = f"On runs left out of its calibration in turn (median of {count(n)})"
        return f"{held}, the simulator is {percent(error)} off on {latency}"
    return f"How far the simulator is off on {latency} is not known, for nothing was held back from its calibration"


def _learned_from(calibration: Calibration, num_repeats: int) -> str:
    names = ", ".join(calibration.compared)
    if num_repeats == 1:
        return f"{names}, the very run that its constants come from"
    return f"{num_repeats} real runs, of which {names} gave its constants"


def _against(median: Mapping[Any, Any], assessment: Assessment) -> str:
    """Hold the error of the headline against the floor and the tolerance."""
    floor, tolerance = median["floor"], f"the tolerance of {percent(assessment.tolerance)}"
    within = median["verdict"] != OFF
    if np.isnan(floor):
        return (
            f"that is {'within' if within else 'beyond'} {tolerance}, and one real run has no floor to hold it against"
        )
    spread = f"the real run differs from itself by {percent(floor)}"
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
        f"{NAMES[row['metric']]} {row['statistic'].upper()} {percent(row['relative_error'], sign=True)}"
        for row in rows.to_dict("records")
    ]
    line, calibration = assessment.verdict, assessment.calibration
    if line in (OFF, WITHIN_TOLERANCE):
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        line += f" ({', '.join(worst[:3])}{more})"
    if calibration and calibration.in_sample:
        more = f"the constants come from {', '.join(calibration.compared)}, compared here"
        line += f" ({more}; {calibration.proof()})" if line == IN_SAMPLE else f"; {more}"
    unjudged = [NAMES[metric] for metric in assessment.comparison.unjudged]
    return f"{line}; {', '.join(unjudged)} {NOT_JUDGED}" if unjudged else line


def how_to_read(assessment: Assessment) -> list[str]:
    """Say what the figures of this comparison mean, one sentence or two each."""
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
            "iterations and calibrated constants out of their intervals, where there are such; 95 % of them lie in the "
            "range beside it. Paired errors and causes are of one without."
        )
    limits.append(
        "The interval beside an error is its 95 % bootstrap confidence interval, had other requests of the same "
        "traffic come (blocks of neighbours in order of arrival, the same ones for both runs)."
    )
    if assessment.calibration and assessment.calibration.in_sample:
        limits.append(
            f"In-sample: the simulation's constants were made to fit {', '.join(assessment.calibration.compared)}. "
            "That an error here is small proves nothing, so no figure is called within floor or tolerance. Compare it "
            "with a run that it was not calibrated on."
        )
    limits.append(
        f"Verdict: within a floor of at most {percent(MAX_FLOOR)}, else within tolerance "
        f"({percent(assessment.tolerance)} of the real figure), else too noisy to judge where a wider floor would "
        "excuse it, else off. The run takes the worst verdict of P50, P90 and P99, but for what chance "
        "alone does to so many figures (4 % for the median E2E, 1 % for all by Benjamini and "
        "Hochberg); a void gate makes it void."
    )
    return limits
