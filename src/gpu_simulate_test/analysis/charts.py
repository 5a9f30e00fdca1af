"""The charts of a comparison's page: distributions, and errors request by request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gpu_simulate_test.analysis.assess import Assessment
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.drawing import COLOURS, SOFT
from gpu_simulate_test.analysis.numbers import NS_PER_MS, count, decimals, ms, number
from gpu_simulate_test.analysis.samples import METRICS, PERCENTILES, Floats, Ints
from gpu_simulate_test.analysis.svg import Plot, at, dot, joined, legend, line, text, with_air
from gpu_simulate_test.analysis.terms import NAMES, TITLES
from gpu_simulate_test.analysis.wording import beyond, cdf, cdf_limits, taken_over

_LOOKS = {"real": ("", 1.8), "sim": ("6 2", 2.2)}  # told apart without their colours, too
_MAX_POINTS = 2000
_TOLD = 200  # points with a tooltip
_MAX_POSITIONS = 600
_ZERO = "4 3"


@dataclass(frozen=True)
class Drawn:
    """A chart, its name in the page, and what is written below it."""

    name: str
    svg: Markup
    note: str = ""


def distributions(assessment: Assessment) -> list[Drawn]:
    """Draw the CDF of each metric that is known, with its percentiles marked."""
    comparison = assessment.comparison
    apart = {row["metric"]: row for row in assessment.distances.to_dict("records")}
    return [
        Drawn(f"cdf-{metric}", _cdf(comparison, metric), _distance(comparison, metric, apart[metric]))
        for metric in METRICS
        if len(comparison.real_values[metric])
    ]


def errors(assessment: Assessment) -> list[Drawn]:
    """Draw where the simulation is off: by prompt length, and as a request's tokens come."""
    frame = assessment.comparison.per_request
    drawn = []
    real = frame["real_e2e_ns"].to_numpy(dtype=np.float64)
    error = frame["error_e2e_ns"].to_numpy(dtype=np.float64)
    relative = np.divide(100 * error, real, out=np.full(len(real), np.nan), where=real > 0)
    for name, title, values, unit in (
        ("e2e", "E2E error by prompt length", relative, "(sim - real) / real, %"),
        ("ttft", "TTFT error by prompt length", frame["error_ttft_ns"].to_numpy() / NS_PER_MS, "sim - real, ms"),
    ):
        if np.isfinite(values).any():
            drawn.append(_scatter(f"error-{name}", title, frame, values, unit))
    if len(assessment.positions):
        drawn.append(_by_position(assessment.positions))
    return drawn


def _cdf(comparison: Comparison, metric: str) -> Markup:
    over = "token gaps" if metric == "tbt" else "requests"
    plot = Plot(
        TITLES[metric], f"{NAMES[metric]}, ms", f"{over} at or below, %", cdf_limits(comparison, metric), (0, 100),
        right=362, height=286
    )  # fmt: skip
    parts = []
    for name, level in PERCENTILES.items():
        place = float(plot.down(level))
        parts.append(line(f"M{at(plot.left)} {at(place)}H{at(plot.right)}", SOFT, "1 3"))
        parts.append(text(plot.right + 5, place + 4, name.upper()))
    for side, (dashes, width) in _LOOKS.items():
        x, share = cdf(comparison, side, metric)
        within = x <= plot.x[1]
        path = _climb(plot.across(x[within]), plot.down(100 * share[within])) + f"H{at(plot.right)}" * (
            not within.all()
        )
        parts.append(line(path, COLOURS[side], dashes, width))
    parts += [
        _mark(plot, side, comparison.figure(metric, name, f"{side}_ns") / NS_PER_MS, level, name)
        for side in COLOURS
        for name, level in PERCENTILES.items()
    ]
    samples = {
        side: line("M0 5h22", COLOURS[side], *look) + dot(11, 5, f'fill="{COLOURS[side]}"', "", diamond=side == "sim")
        for side, look in _LOOKS.items()
    }
    return plot.svg([*parts, *legend([(samples["real"], "real"), (samples["sim"], "simulated")])])


def _mark(plot: Plot, side: str, value_ms: float, level: float, name: str) -> str:
    title = f"{side} {name.upper()}: {number(value_ms, decimals(value_ms * NS_PER_MS))} ms"
    colours = f'fill="{COLOURS[side]}" stroke="#fff"'
    return dot(float(plot.across(value_ms)), float(plot.down(level)), colours, title, diamond=side == "sim")


def _climb(x: Floats, y: Floats) -> str:
    """A CDF's path: across to the next value, then up; of its corners those that are a pixel apart."""
    way = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    shown = np.flatnonzero(np.append(True, np.diff(way.astype(np.int64)) > 0))
    shown = np.union1d(shown, [len(x) - 1])
    first, *rest = zip(x[shown], y[shown], strict=True)
    return f"M{at(first[0])} {at(first[1])}" + "".join(f"H{at(right)}V{at(up)}" for right, up in rest)


def _distance(comparison: Comparison, metric: str, row: Mapping[Any, Any]) -> str:
    digits = decimals(comparison.of_metric(metric)[["real_ns", "sim_ns"]])
    over = f"n = {taken_over(comparison, metric)}{beyond(comparison, metric)}."
    ks, wasserstein = number(100 * row["ks"], 1), ms(row["wasserstein_ns"], digits)
    return (
        f"{over} The lines are at most {ks} points apart in height (Kolmogorov-Smirnov) and {wasserstein} ms across on "
        "average (Wasserstein)."
    )


def _scatter(name: str, title: str, frame: pd.DataFrame, values: Floats, unit: str) -> Drawn:
    """A point a request; those furthest off say what they are."""
    prompt = frame["num_prefill_tokens"].to_numpy(dtype=np.float64)
    told, others = _shown(values)
    plot = Plot(title, "prompt, tokens", unit, with_air(prompt), with_air(values, 0.0))
    x, y = plot.across(prompt), plot.down(values)
    parts = [_zero(plot)]
    if len(others):
        path = "".join(f"M{at(one)} {at(other)}h0" for one, other in zip(x[others], y[others], strict=True))
        look = f'stroke="{COLOURS["sim"]}" stroke-width="5" stroke-linecap="round" stroke-opacity="0.5"'
        parts.append(f'<path d="{path}" fill="none" {look}/>')
    columns = ["request_id", "num_prefill_tokens", "num_tokens_compared"]
    figures = frame[columns].to_numpy()[told]
    look = f'fill="{COLOURS["sim"]}" fill-opacity="0.5"'
    for index, (request, size, output) in zip(told, figures, strict=True):
        said = f"request {request} ({count(size)} in, {count(output)} out): {number(values[index], 2, sign=True)}"
        parts.append(dot(float(x[index]), float(y[index]), look, f"{said} {unit.rpartition(' ')[2]}", size=2.5))
    known, drawn = int(np.isfinite(values).sum()), len(told) + len(others)
    over = f"{count(drawn)} of {count(known, 'request')} drawn, those furthest off among them."
    return Drawn(name, plot.svg(parts), over if drawn < known else f"n = {count(known, 'request')}.")


def _shown(values: Floats) -> tuple[Ints, Ints]:
    """Which values are drawn: the largest and smallest, and of the others some evenly spaced."""
    order = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())]  # NaN come last
    if len(order) <= _TOLD:
        return order, order[:0]
    ends = np.append(order[: _TOLD // 2], order[-_TOLD // 2 :])
    rest = np.sort(order[_TOLD // 2 : -_TOLD // 2])
    few = np.unique(np.linspace(0, len(rest) - 1, min(len(rest), _MAX_POINTS - _TOLD)).round().astype(np.int64))
    return ends, rest[few]


def _by_position(positions: pd.DataFrame) -> Drawn:
    index, error = positions["token_index"].to_numpy(), positions["median_error_ns"].to_numpy() / NS_PER_MS
    plot = Plot(
        "Error by output token",
        "output token, from 0",
        "sim - real since arrival, ms",
        with_air(index),
        with_air(error, 0.0),
    )
    shown = _envelope(error)
    x, y = plot.across(index[shown]), plot.down(error[shown])
    parts = [_zero(plot), line(joined(x, y), COLOURS["sim"], width=2)]
    if len(index) < 3:
        parts += [dot(float(x[i]), float(y[i]), f'fill="{COLOURS["sim"]}"', "") for i in range(len(x))]
    most, fewest = int(positions["n"].max()), int(positions["n"].min())
    n = count(most, "request") if most == fewest else f"{count(most)} requests at first, {count(fewest)} at last"
    return Drawn("error-position", plot.svg(parts), f"Median over the requests that made that token: {n}.")


def _envelope(values: Floats) -> Ints:
    """Places of a line's points; of very many the lowest and the highest of each of equal parts."""
    if len(values) <= _MAX_POSITIONS:
        return np.arange(len(values))
    parts: Sequence[Ints] = np.array_split(np.arange(len(values)), _MAX_POSITIONS // 2)
    ends = [part[pick(values[part])] for part in parts for pick in (np.argmin, np.argmax)]
    return np.unique([0, *ends, len(values) - 1])


def _zero(plot: Plot) -> str:
    return line(f"M{at(plot.left)} {at(float(plot.down(0.0)))}H{at(plot.right)}", SOFT, _ZERO)
