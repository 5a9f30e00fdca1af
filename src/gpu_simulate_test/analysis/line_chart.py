"""Line charts over the time of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from gpu_simulate_test.analysis.drawing import COLOURS, INK
from gpu_simulate_test.analysis.samples import Floats
from gpu_simulate_test.analysis.svg import Plot, at, legend, line, stairs, step_of, text

_LINES = (("sim", "", 2.0), ("real", "5 3", 1.6))  # told apart without their colours, too
_PEAK = "#f3d3b3"
_HOURS_FROM = 7200


@dataclass(frozen=True)
class Line:
    """A quantity in the parts of a run; NaN breaks it.

    Attributes
    ----------
    name : str
    values : ndarray of shape (n_parts,)
    peak : ndarray of shape (n_parts,), optional
        A band reaches from the line up to it.
    """

    name: str
    values: Floats
    peak: Floats | None = None


def line_chart(
    title: str, unit: str, edges_s: Floats, lines: Sequence[Line], limit: tuple[str, float] | None = None
) -> Markup:
    """Draw at most two lines over time, in steps.

    Parameters
    ----------
    title, unit : str
        What is drawn, and the label of its axis.
    edges_s : ndarray of shape (n_parts + 1,)
    lines : sequence of Line
    limit : (str, float), optional
        A level that is marked, where the lines come near it.
    """
    top = float(max(np.nanmax(one.values if one.peak is None else one.peak, initial=0.0) for one in lines))
    marked = limit is not None and top >= limit[1] / 2
    highest = _round_up(max(top, limit[1]) if limit and marked else top)
    scale, unit_s = (1.0, "s") if edges_s[-1] < _HOURS_FROM else (3600.0, "h")
    plot = Plot(title, f"{unit_s} since the first arrival", unit, (0.0, float(edges_s[-1]) / scale), (0.0, highest))
    x = plot.across(edges_s / scale)
    peaks = [(plot.down(one.values), plot.down(one.peak)) for one in lines if one.peak is not None]
    parts = [f'<path d="{_area(x, *ends)}" fill="{_PEAK}"/>' for ends in peaks]
    parts += [_drawn(stairs(x, plot.down(one.values)), number) for number, one in enumerate(lines)]
    if limit and marked:
        level = float(plot.down(limit[1]))
        parts.append(line(f"M{at(plot.left)} {at(level)}H{at(plot.right)}", INK, "2 3"))
        parts.append(text(plot.right, level - 4, limit[0], "end"))
    named = [(_drawn("M0 5h22", number), one.name) for number, one in enumerate(lines) if one.name]
    named += [(f'<path d="M0 0h22v10h-22z" fill="{_PEAK}"/>', "up to the most")] * bool(peaks)
    return plot.svg([*parts, *legend(named)])


def _drawn(path: str, number: int) -> str:
    side, dashes, width = _LINES[number]
    return line(path, COLOURS[side], dashes, width)


def _round_up(top: float) -> float:
    """The first round number that is no less than `top`."""
    if top <= 0:
        return 1.0
    step = step_of(top)
    return step * float(np.ceil(top / step * (1 - 1e-9)))


def _area(x: Floats, low: Floats, high: Floats) -> str:
    """Rectangles, one a part, from the line up to its peak."""
    return "".join(
        f"M{at(left)} {at(bottom)}V{at(top)}H{at(right)}V{at(bottom)}Z"
        for left, right, bottom, top in zip(x[:-1], x[1:], low, high, strict=True)
        if not np.isnan(bottom)
    )
