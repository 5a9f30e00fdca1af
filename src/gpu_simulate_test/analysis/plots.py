"""Pictures drawn with seaborn."""

from io import BytesIO

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpu_simulate_test.analysis.drawing import COLOURS, SOFT, STYLE, Picture

# Told apart without their colours, too: a printed page has none.
_LINES, _MARKS = {"real": "-", "sim": (0, (5, 1.5))}, {"real": "o", "sim": "D"}


def png(picture: Picture) -> bytes:
    """Draw a picture; returns the content of its file."""
    file = BytesIO()
    with sns.axes_style("whitegrid", rc=STYLE):
        _figure(picture).savefig(file, format="png", dpi=140)
    return file.getvalue()


def _figure(picture: Picture) -> Figure:
    figure = Figure(figsize=(7.2, 5.0), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.105, 0.32, 0.825, 0.56))
    figure.text(0.105, 0.94, picture.title, fontsize=13, fontweight="bold")
    figure.text(0.105, 0.90, picture.below, fontsize=9.5, color=SOFT)
    _label(axes, picture)
    if not picture.curves:
        axes.text(0.5, 0.61, picture.text, ha="center")
        axes.set_xticks([])
        return figure
    for side, (x, share, at_levels) in picture.curves.items():
        style, colour = _LINES[side], COLOURS[side]
        line = {"drawstyle": "steps-post", "linestyle": style, "linewidth": 1.9, "label": side}
        sns.lineplot(x=x, y=share, ax=axes, estimator=None, sort=False, color=colour, **line)
        marks = {"marker": _MARKS[side], "s": 52, "zorder": 4, "legend": False}
        sns.scatterplot(x=at_levels, y=list(picture.levels.values()), ax=axes, color=colour, **marks)
    axes.set_xlim(*picture.limits)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.01), ncols=2, frameon=False, handlelength=3)
    figure.text(0.105, 0.04, picture.text, fontsize=9, family="monospace", linespacing=1.5)
    return figure


def _label(axes: Axes, picture: Picture) -> None:
    sns.despine(ax=axes)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], labels=["0", "25", "50", "75", "100"])
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(picture.y_label)
    axes.tick_params(labelsize=9)
    for name, level in picture.levels.items():
        axes.axhline(level, color=SOFT, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(name, (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
