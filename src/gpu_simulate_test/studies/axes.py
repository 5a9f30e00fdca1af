"""Axes, lines and names of a sweep's charts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Affine2D, Bbox

from gpu_simulate_test.analysis.drawing import INK
from gpu_simulate_test.analysis.numbers import significant
from gpu_simulate_test.studies.marks import Line, Mark

_LOG_FROM = 15  # an axis whose values span more than this factor is logarithmic
_FAR = 3  # a limit beyond so many times the largest value would leave no room for what is measured
_FEW = 40  # marks of a line that have room
_LETTER, _OVER = 4.8, 26.0  # points: of a letter's width, and by which a name may reach beyond the axes
_GAP = 11.0  # points between the codes at the right edge
_DASHES = (0, (2, 1.5))


def draw_line(axes: Axes, line: Line, *, across: bool = False) -> None:
    """Draw the marks of a setting, each with the place of its link, and the line through them; hollow misses."""
    marks = [mark for mark in line.marks if np.isfinite([mark.x, mark.y]).all()]
    if not marks:
        return
    x, y = (np.array([getattr(mark, name) for mark in marks]) for name in "xy")
    behind = 2 if line.looks is None else 3
    if len(marks) > 1 and not across:
        axes.plot(x, y, color=line.colour, linestyle=line.dashes, zorder=behind)
    known = np.array([np.isfinite([mark.low, mark.high]).all() for mark in marks])
    if known.any():
        ends = np.array([[mark.low, mark.high] for mark in marks])[known]
        draw = axes.hlines if across else axes.vlines
        draw((y if across else x)[known], ends[:, 0], ends[:, 1], color=line.colour, linewidth=1, alpha=0.7)
    faces = ["white" if mark.misses else line.colour for mark in marks]
    points = axes.scatter(
        x,
        y,
        s=30 if len(marks) <= _FEW else 10,
        marker=line.shape,
        c=faces,
        edgecolors=line.colour,
        linewidths=1.2,
        zorder=behind + 1,
        clip_on=False,
    )
    points.set_urls([f"job:{mark.job}" for mark in marks])


def scale(
    axes: Axes, name: str, numbers: Sequence[float], *, limit: float | None = None, from_zero: bool = False
) -> None:
    """Fit the axis `name` to what is on it: logarithmic where that spans decades.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    name : {"x", "y"}
    numbers : sequence of float
        NaN are left out.
    limit : float, optional
        Is on the axis as well, unless it is far above all numbers.
    from_zero : bool
        A linear axis begins at zero.
    """
    values = np.array([value for value in numbers if np.isfinite(value)])
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    if limit is not None and limit <= _FAR * high:
        low, high = min(low, limit), max(high, limit)
    axis, set_ends = (axes.xaxis, axes.set_xlim) if name == "x" else (axes.yaxis, axes.set_ylim)
    if low > 0 and high / low > _LOG_FROM:
        getattr(axes, f"set_{name}scale")("log")
        set_ends(low / 1.25, high * 1.25)
        few = (1, 3) if name == "x" else (1, 2, 5)  # numbers beside each other need more room
        axis.set_major_locator(LogLocator(subs=(1,) if high / low > 300 else few))
        axis.set_minor_locator(NullLocator())
    elif from_zero:
        set_ends(min(low, 0.0), (high or 1.0) * 1.08)
    else:
        air = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
        set_ends(low - air, high + air)
    axis.set_major_formatter(FuncFormatter(_number))


def _number(value: float, _: object) -> str:
    return significant(value) if abs(value) < 1e6 else f"{significant(value / 1e6)}M"


def set_ticks(axes: Axes, places: Sequence[float]) -> None:
    """Have ticks of ``x`` at these places and no others."""
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_minor_locator(NullLocator())


def draw_front(axes: Axes, front: Sequence[Mark]) -> None:
    """Join the points of the front, and name those that have room."""
    x, y = (np.array([getattr(mark, name) for mark in front]) for name in "xy")
    axes.plot(x, y, color=INK, linewidth=5, alpha=0.24, solid_capstyle="round", zorder=1)
    to_points = axes.transData + Affine2D().scale(72 / axes.figure.dpi)
    right = axes.get_window_extent().x1 * 72 / axes.figure.dpi
    taken: list[Bbox] = []
    for mark in front:
        across, up = to_points.transform((mark.x, mark.y))
        width = _LETTER * len(mark.name)
        at_left = across + 5 + width > right + _OVER
        box = Bbox.from_bounds(across + (-5 - width if at_left else 5), up + 4, width, 9)
        if not any(box.overlaps(other) for other in taken):
            taken.append(box)
            text = axes.annotate(
                mark.name,
                (mark.x, mark.y),
                xytext=(-5 if at_left else 5, 4),
                ha="right" if at_left else "left",
                textcoords="offset points",
                fontsize=8,
            )
            text.set_parse_math(False)


def draw_limit(axes: Axes, value: float, name: str) -> None:
    """Draw a line across with its name, or say that it lies above."""
    low, high = axes.get_ylim()
    inside = low <= value <= high
    if inside:
        axes.axhline(value, color=INK, linewidth=1.1, linestyle=_DASHES, zorder=2)
    place = axes.transAxes.inverted().transform(axes.transData.transform((1.0, value)))[1] if inside else 1.0
    below = place > 0.9
    axes.annotate(
        name if inside else f"{name}, above",
        (0.01, place),
        xycoords="axes fraction",
        xytext=(0, -4 if below else 1.5),
        textcoords="offset points",
        va="top" if below else "bottom",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    )


def draw_limit_upright(axes: Axes, value: float, name: str) -> None:
    """Draw a line from top to bottom with its name above, where it is within the axes."""
    low, high = axes.get_xlim()
    if low <= value <= high:
        axes.axvline(value, color=INK, linewidth=1.1, linestyle=_DASHES)
        axes.annotate(
            name, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
            ha="right" if value > (low + high) / 2 else "left", fontsize=8
        )  # fmt: skip


def draw_codes(axes: Axes, lines: Sequence[Line]) -> None:
    """Name each line at the right edge, at the height of its last mark or as near as there is room."""
    last = [(line, [m for m in line.marks if np.isfinite([m.x, m.y]).all()]) for line in lines if line.code]
    ends = [(line, marks[-1]) for line, marks in last if marks]
    if not ends:
        return
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = np.array([to_axes.transform((mark.x, mark.y))[1] for _, mark in ends])
    for index, place in enumerate(spread(wanted, _GAP / height)):
        line, mark = ends[index]
        axes.annotate(
            line.code,
            (mark.x, mark.y),
            xytext=(1.035, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": line.colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
            annotation_clip=False,
        )


def spread(wanted: npt.NDArray[np.float64], gap: float) -> npt.NDArray[np.float64]:
    """Move places within 0 to 1 apart, by as little as their order allows.

    Parameters
    ----------
    wanted : ndarray of shape (n,)
    gap : float
        Between neighbours at least; less where not all have room.

    Returns
    -------
    ndarray of shape (n,)
        In the order of `wanted`, which is kept among them.
    """
    if not wanted.size:
        return wanted
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    places = np.maximum.accumulate(np.clip(wanted[order], 0, 1) - steps) + steps
    ceiling = 1 - steps[::-1]
    found: npt.NDArray[np.float64] = np.empty_like(places)
    found[order] = np.minimum(places, ceiling)
    return found
