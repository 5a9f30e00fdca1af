"""The plot of the board: a point an error, by data set."""

import re
from collections.abc import Iterable
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from benchmarks.fidelity.board import METRICS
from benchmarks.fidelity.figures import Points, Runs, sides
from gpu_simulate_test.analysis.drawing import INK, STYLE

_RC: Any = STYLE | {"svg.fonttype": "none", "svg.hashsalt": "board", "font.size": 9.5}
# Told apart by shape and by lightness: a printed page has no colours.
_MARKS = {"e2e": ("o", "#16324f", "E2E"), "tpot": ("s", "#c25a00", "TPOT"), "ttft": ("^", "#5a93c7", "TTFT")}
_LINEAR = 10  # %: up to here the axis is linear, beyond it logarithmic
_TICKS = (-100, -30, -10, 0, 10, 30, 100, 300)
_SIDES = ("nothing fitted", "calibrated")

Dots = dict[str, tuple[dict[str, list[float]], dict[str, list[float]]]]
"""By data set: the errors with nothing fitted and the calibrated ones, in %, by metric."""


def errors(runs: Iterable[Runs], points: Points | None) -> str:
    """SVG of every run's error of E2E, TPOT and TTFT at P50, and of each closed-loop run's means."""
    dots = _dots(runs, points)
    with rc_context(_RC):
        figure = Figure(figsize=(4.7, 8.6))
        FigureCanvasSVG(figure)
        for place, (side, title) in enumerate(zip((0, 1), _SIDES, strict=True)):
            axes = figure.add_axes((0.33, 0.56 - 0.49 * place, 0.64, 0.37))
            _draw(axes, {line: both[side] for line, both in dots.items()}, title)
        handles = [
            Line2D([], [], marker=mark, color=colour, linestyle="none", markeredgecolor=INK, label=label)
            for mark, colour, label in _MARKS.values()
        ]
        figure.legend(handles=handles, loc="upper center", ncols=3, frameon=False)
        file = StringIO()
        figure.savefig(file, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)


def _dots(runs: Iterable[Runs], points: Points | None) -> Dots:
    found: Dots = {}
    for one in runs:
        for line in dict.fromkeys(row.line for row in one.rows if row.line):
            plain, calibrated = (
                {metric: [100 * of_run.of(metric) for of_run in side] for metric in METRICS}
                for side in sides([row for row in one.rows if row.line == line])
            )
            found[line] = plain, calibrated
    if points:
        plain, calibrated = (
            {metric: [100 * pair[place] for pair in of_side if pair] for place, metric in enumerate(("ttft", "tpot"))}
            for of_side in ([point.plain for point in points.points], [point.calibrated for point in points.points])
        )
        found["closed loop, means"] = plain, calibrated
    return found


def _draw(axes: Axes, lines: dict[str, dict[str, list[float]]], title: str) -> None:
    for place, of_line in enumerate(lines.values()):
        for metric, shift in zip(("e2e", "tpot", "ttft"), (-0.25, 0.0, 0.25), strict=True):
            values, (mark, colour, _) = of_line.get(metric, []), _MARKS[metric]
            many = len(values) > 50
            axes.scatter(
                values,
                [place + shift] * len(values),
                marker=mark,
                s=16 if many else 30,
                color=colour,
                alpha=0.5 if many else 0.9,
                edgecolors="none" if many else INK,
                linewidths=0.5,
                zorder=3,
                rasterized=many,  # hundreds of points are smaller as an image
            )
    axes.axvline(0, color=INK, linewidth=1.2, zorder=2)
    for place in range(len(lines) - 1):
        axes.axhline(place + 0.5, color="#dfe4ea", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.7)
    axes.set_xlim(-100, 600)
    axes.set_xticks(_TICKS, minor=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f}" if value else "0"))
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", linewidth=0.7)
    axes.set_axisbelow(True)
    names = [line.replace(", ", ",\n").replace(" on ", "\non ").replace(" by ", "\nby ") for line in lines]
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title[0].upper() + title[1:], loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(f"error, % (linear to ±{_LINEAR}, then logarithmic)")
