"""Small line charts as SVG text: nothing is imported for them, and a browser draws them sharp at any size.

A sweep writes a page a run; with a plotting library each would take longer than its simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from gpu_simulate_test.analysis.drawing import COLOURS, GRID, INK
from gpu_simulate_test.analysis.numbers import significant
from gpu_simulate_test.analysis.samples import Floats

_WIDTH, _HEIGHT = 400, 246
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 390, 72, 202
_LINES = (  # told apart without their colours, too
    f'fill="none" stroke="{COLOURS["sim"]}" stroke-width="2"',
    f'fill="none" stroke="{COLOURS["real"]}" stroke-width="1.6" stroke-dasharray="5 3"',
)
_PEAK = "#f3d3b3"
_STEPS = (1, 2, 2.5, 5, 10)
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
    tops = [np.nanmax(line.values if line.peak is None else line.peak, initial=0.0) for line in lines]
    top = float(max(tops))
    marked = limit is not None and top >= limit[1] / 2
    ticks = _ticks(max(top, limit[1]) if limit and marked else top)
    scale, unit_s = (1.0, "s") if edges_s[-1] < _HOURS_FROM else (3600.0, "h")
    x = _LEFT + edges_s / edges_s[-1] * (_RIGHT - _LEFT)

    def y(values: Floats) -> Floats:
        return np.asarray(_BOTTOM - values / ticks[-1] * (_BOTTOM - _TOP))

    parts = [*_axes(title, unit, f"{unit_s} since the first arrival"), *_across(ticks), *_along(edges_s[-1] / scale)]
    parts += [
        f'<path d="{_area(x, y(one.values), y(one.peak))}" fill="{_PEAK}"/>' for one in lines if one.peak is not None
    ]
    parts += [f'<path d="{_steps(x, y(one.values))}" {_LINES[i]}/>' for i, one in enumerate(lines)]
    if limit and marked:
        at = float(y(np.array(limit[1])))
        parts.append(f'<path d="M{_LEFT} {_at(at)}H{_RIGHT}" stroke="{INK}" stroke-dasharray="2 3"/>')
        parts.append(_text(_RIGHT, at - 4, limit[0], "end"))
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(svg + "".join([*parts, *_legend(lines)]) + "</svg>")  # numbers, and texts that were escaped


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to the first that is no less than `top`, five steps at most."""
    if top <= 0:
        return [0.0, 1.0]
    power = 10.0 ** np.floor(np.log10(top / 5))
    step = next(float(one * power) for one in _STEPS if one * power * 5 >= top * (1 - 1e-9))
    return [step * number for number in range(int(np.ceil(top / step * (1 - 1e-9))) + 1)]


def _axes(title: str, unit: str, along: str) -> list[str]:
    return [
        f'<text x="8" y="20" font-size="14" font-weight="600">{escape(title)}</text>',
        _text(8, _TOP - 14, unit, "start"),
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, along, "middle"),
    ]


def _across(ticks: Sequence[float]) -> list[str]:
    """Grid lines and their numbers, from the bottom up; the lowest is the axis."""
    parts = []
    for number, tick in enumerate(ticks):
        at = _BOTTOM - tick / ticks[-1] * (_BOTTOM - _TOP)
        parts.append(f'<path d="M{_LEFT} {_at(at)}H{_RIGHT}" stroke="{GRID if number else INK}"/>')
        parts.append(_text(_LEFT - 6, at + 4, significant(tick), "end"))
    return parts


def _along(longest: float) -> list[str]:
    ticks = [tick for tick in _ticks(longest) if tick <= longest]
    return [
        _text(_LEFT + tick / longest * (_RIGHT - _LEFT), _BOTTOM + 16, significant(tick), "middle") for tick in ticks
    ]


def _legend(lines: Sequence[Line]) -> list[str]:
    """Names of the lines, below the title."""
    parts, at = [], 8.0
    for number, line in enumerate(lines):
        if line.name:
            parts.append(f'<path d="M{_at(at)} 34h22" {_LINES[number]}/>')
            parts.append(_text(at + 27, 38, line.name, "start"))
            at += 44 + 6.3 * len(line.name)
    if any(line.peak is not None for line in lines):
        parts.append(f'<path d="M{_at(at)} 29h22v10h-22z" fill="{_PEAK}"/>')
        parts.append(_text(at + 27, 38, "up to the most", "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{_at(x)}" y="{_at(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _at(place: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return str(round(float(place), 1))


def _steps(x: Floats, y: Floats) -> str:
    """A path level in each part; broken where there is no value."""
    path, broken = "", True
    for left, right, level in zip(x[:-1], x[1:], y, strict=True):
        if not np.isnan(level):
            path += f"M{_at(left)} {_at(level)}" if broken else f"V{_at(level)}"
            path += f"H{_at(right)}"
        broken = bool(np.isnan(level))
    return path


def _area(x: Floats, low: Floats, high: Floats) -> str:
    """Rectangles, one a part, from the line up to its peak."""
    return "".join(
        f"M{_at(left)} {_at(bottom)}V{_at(top)}H{_at(right)}V{_at(bottom)}Z"
        for left, right, bottom, top in zip(x[:-1], x[1:], low, high, strict=True)
        if not np.isnan(bottom)
    )
