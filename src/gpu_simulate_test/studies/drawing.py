"""Charts of a sweep as SVG text whose points are links, drawn with matplotlib; the same bytes for the same points."""

import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

from markupsafe import escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpu_simulate_test.analysis.drawing import STYLE
from gpu_simulate_test.studies.axes import (
    draw_codes,
    draw_front,
    draw_limit,
    draw_limit_upright,
    draw_line,
    scale,
    set_ticks,
)
from gpu_simulate_test.studies.marks import Chart, Line, Mark

_RC: Any = STYLE | {
    "svg.fonttype": "none",
    "svg.hashsalt": "sweep",
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
}
_WIDTH, _HEIGHT = 4.1, 3.1  # inches; narrow, so that a phone need not shrink the text
_LETTER = 0.019  # of the width
_FEW = 40  # rows that are given more room


def chart_svg(chart: Chart) -> str:
    """Draw lines through the jobs of each setting."""
    marks = [mark for line in chart.lines for mark in line.marks]
    with rc_context(_RC):
        figure, axes = _axes(chart, _HEIGHT, (0.16, 0.155, 0.735, 0.665))
        for line in sorted(chart.lines, key=lambda one: one.looks is not None):  # those without looks behind
            draw_line(axes, line)
        if chart.span is not None:
            axes.set_ylim(*chart.span)
        else:
            heights = [height for mark in marks for height in (mark.y, mark.high)]
            scale(axes, "y", heights, limit=chart.limit[0] if chart.limit else None, from_zero=True)
        scale(axes, "x", [mark.x for mark in marks])
        if chart.ticks:
            set_ticks(axes, chart.ticks)
        if chart.front:
            draw_front(axes, chart.front)
        if chart.limit:
            draw_limit(axes, *chart.limit)
        if chart.codes:
            draw_codes(axes, chart.lines)
        return _svg(figure, marks, chart.title)


def dots_svg(chart: Chart) -> str:
    """Draw one row a job, named at its left, whose figure is its ``x``; the ``y`` of a mark is of no account."""
    marks = sorted((mark for line in chart.lines for mark in line.marks), key=lambda mark: mark.job)
    rows = {mark.job: row for row, mark in enumerate(marks)}
    height = 0.95 + max(len(rows), 2) * (0.23 if len(rows) <= _FEW else 0.15)
    with rc_context(_RC):
        below, above = 0.5 / height, 0.42 / height
        names = [_cut(mark.name) for mark in marks]
        left = 0.05 + _LETTER * max(map(len, names))
        figure, axes = _axes(chart, height, (left, below, 0.96 - left, 1 - below - above))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        for line in chart.lines:
            turned = [replace(mark, y=float(rows[mark.job])) for mark in line.marks]
            draw_line(axes, replace(line, marks=turned), across=True)
        axes.set_yticks(range(len(marks)), labels=names, parse_math=False)
        if chart.span is not None:
            axes.set_xlim(*chart.span)
        else:
            numbers = [number for mark in marks for number in (mark.x, mark.high)]
            scale(axes, "x", numbers, limit=chart.limit[0] if chart.limit else None, from_zero=True)
        if chart.limit:
            draw_limit_upright(axes, *chart.limit)
        return _svg(figure, marks, chart.title)


def swatch_svg(line: Line) -> str:
    """Draw what a setting looks like in the charts, for a legend."""
    with rc_context(_RC):
        figure = Figure(figsize=(0.42, 0.17))
        FigureCanvasSVG(figure)
        figure.add_artist(Line2D([0, 1], [0.5, 0.5], color=line.colour, linestyle=line.dashes))
        figure.add_artist(Line2D([0.5], [0.5], color=line.colour, marker=line.shape, markersize=5.5))
        return _svg(figure, [], "", hidden=True)


def _axes(chart: Chart, height: float, place: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes(place)
    figure.text(0.015, 1 - 0.09 / height, chart.title, fontsize=10.5, fontweight="bold", va="top")
    axes.set_xlabel(chart.x_label)
    if chart.y_label:  # above the axis, where it takes no width
        axes.annotate(chart.y_label, (0, 1), xycoords="axes fraction", xytext=(-36, 7), textcoords="offset points")
    return figure, axes


def _cut(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"


_IDS = re.compile(r'<g id="[^"]*">')
_LINK = re.compile(r'<a xlink:href="job:(\d+)"[^>]*?(/?)>')


def _svg(figure: Figure, marks: Sequence[Mark], title: str, *, hidden: bool = False) -> str:
    """The drawing as an element of a page: it takes the width it is given, its points have links and tooltips."""
    file = StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = _IDS.sub("<g>", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    said = 'aria-hidden="true"' if hidden else f'role="img" aria-label="{escape(title)}"'
    text = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt" height="([\d.]+)pt"', rf"\1{said}", text, count=1, flags=re.DOTALL)
    by_job = {mark.job: mark for mark in marks}

    def link(found: re.Match[str]) -> str:
        if found[2]:  # of a mark outside the picture
            return ""
        mark = by_job[int(found[1])]
        href = "" if mark.href is None else f' href="{escape(mark.href)}"'
        return f"<a{href}><title>{escape(mark.title)}</title>"

    return _LINK.sub(link, text)
