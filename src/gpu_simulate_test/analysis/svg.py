"""Charts as SVG text: nothing is imported for them, and a browser draws them sharp at any size.

A page needs no script for them, and a sweep writes a page a run; with a plotting library each would take longer than
its simulation. Everything is placed on a width of 400 pixels, which a phone has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from gpu_simulate_test.analysis.drawing import GRID, INK
from gpu_simulate_test.analysis.numbers import significant
from gpu_simulate_test.analysis.samples import Floats

WIDTH = 400
TOP = 72
_BELOW = 44
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Plot:
    """The ground of a chart.

    Attributes
    ----------
    title : str
    x_label, y_label : str
        The label of an axis names its unit. Where ``y_label`` is None, nothing is written along that axis.
    x, y : (float, float)
        What is at the ends of the axes.
    left, right : float
        Where they are, in pixels.
    height : float
        Of the whole, in pixels.
    """

    title: str
    x_label: str
    y_label: str | None
    x: tuple[float, float]
    y: tuple[float, float] = (0.0, 1.0)
    left: float = 54
    right: float = 390
    height: float = 246

    @property
    def bottom(self) -> float:
        """Of the axes, in pixels."""
        return self.height - _BELOW

    def across(self, values: npt.ArrayLike) -> Floats:
        """Pixels from the left."""
        low, high = self.x
        return np.asarray(self.left + (np.asarray(values) - low) / (high - low) * (self.right - self.left))

    def down(self, values: npt.ArrayLike) -> Floats:
        """Pixels from the top."""
        low, high = self.y
        return np.asarray(self.bottom - (np.asarray(values) - low) / (high - low) * (self.bottom - TOP))

    def svg(self, parts: Iterable[str]) -> Markup:
        """The chart with these elements, whose texts are escaped, on its axes."""
        said = f'<svg viewBox="0 0 {WIDTH} {at(self.height)}" role="img" aria-label="{escape(self.title)}">'
        return Markup(said + "".join([*self._axes(), *parts]) + "</svg>")  # numbers, and texts that were escaped

    def _axes(self) -> list[str]:
        parts = [
            f'<text x="8" y="20" font-size="14" font-weight="600">{escape(self.title)}</text>',
            text((self.left + self.right) / 2, self.height - 8, self.x_label, "middle"),
        ]
        if self.y_label is not None:
            parts.append(text(8, TOP - 14, self.y_label))
            for tick in ticks(*self.y):
                place = float(self.down(tick))
                parts.append(line(f"M{at(self.left)} {at(place)}H{at(self.right)}", GRID))
                parts.append(text(self.left - 6, place + 4, significant(tick), "end"))
        parts.append(line(f"M{at(self.left)} {at(self.bottom)}H{at(self.right)}", INK))
        for tick in ticks(*self.x):
            parts.append(text(float(self.across(tick)), self.bottom + 16, significant(tick), "middle"))
        return parts


def step_of(span: float) -> float:
    """The smallest round number of which five reach over a span."""
    power = 10.0 ** np.floor(np.log10(span / 5))
    return next(float(one * power) for one in _STEPS if one * power * 5 >= span * (1 - 1e-9))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, six at most."""
    step = step_of(high - low)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [step * number for number in range(int(first), int(last) + 1)]


def with_air(values: npt.ArrayLike, *more: float) -> tuple[float, float]:
    """Ends of an axis that leave some room around values, and around further ones."""
    known = np.asarray(values, dtype=np.float64)
    known = np.append(known[np.isfinite(known)], more)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def at(place: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{round(float(place), 1):g}"


def text(x: float, y: float, said: str, anchor: str = "start", more: str = "") -> str:
    """Write at a place; `more` are further attributes."""
    return f'<text x="{at(x)}" y="{at(y)}" text-anchor="{anchor}"{more and " " + more}>{escape(said)}</text>'


def line(path: str, colour: str, dashes: str = "", width: float = 1) -> str:
    """Draw along a path."""
    dashed = dashes and f' stroke-dasharray="{dashes}"'
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def box(left: float, right: float, top: float, height: float, colours: str, title: str = "") -> str:
    """A rectangle of any direction; `colours` are its attributes, `title` is told where a pointer rests on it."""
    start, size = min(left, right), abs(right - left)
    place = f'x="{at(start)}" y="{at(top)}" width="{at(max(size, 0.5))}" height="{at(height)}"'
    return f"<rect {place} {colours}>{_told(title)}</rect>"


def dot(x: float, y: float, colours: str, title: str, *, diamond: bool = False, size: float = 3.4) -> str:
    """A mark: a circle of a radius or a diamond."""
    shape = (
        f'<path d="M{at(x)} {at(y - 4.6)}l4.6 4.6l-4.6 4.6l-4.6 -4.6z" {colours}>'
        if diamond
        else f'<circle cx="{at(x)}" cy="{at(y)}" r="{at(size)}" {colours}>'
    )
    return f"{shape}{_told(title)}</{'path' if diamond else 'circle'}>"


def legend(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Names below the title, each after its sample: an element drawn in 22 by 10 pixels from (0, 0)."""
    parts, left = [], 8.0
    for sample, name in entries:
        parts.append(f'<g transform="translate({at(left)} 29)">{sample}</g>')
        parts.append(text(left + 27, 38, name))
        left += 44 + 6.3 * len(name)
    return parts


def stairs(x: Floats, y: Floats) -> str:
    """A path level in each part, from ``x[i]`` to ``x[i + 1]``; broken where there is no value."""
    path, broken = "", True
    for left, right, level in zip(x[:-1], x[1:], y, strict=True):
        if not np.isnan(level):
            path += f"M{at(left)} {at(level)}" if broken else f"V{at(level)}"
            path += f"H{at(right)}"
        broken = bool(np.isnan(level))
    return path


def joined(x: Floats, y: Floats) -> str:
    """A path through points."""
    return "M" + "L".join(f"{at(one)} {at(other)}" for one, other in zip(x, y, strict=True))


def _told(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""
