"""CDFs as PNG files."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.numbers import NS_PER_MS, decimals, ms, percent
from gpu_simulate_test.analysis.samples import METRICS, PERCENTILES, Floats
from gpu_simulate_test.analysis.verdict import NOT_JUDGED
from gpu_simulate_test.analysis.wording import COLOURS, GRID, INK, NAMES, SOFT, TITLES, cdf, cdf_limits, taken_over
from gpu_simulate_test.io.files import write_atomic

_LEVELS = [level / 100 for level in PERCENTILES.values()]
# Told apart without their colours, too: a printed page has none.
_LINES, _MARKS = {"real": "-", "sim": (0, (5, 1.5))}, {"real": "o", "sim": "D"}
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.bottom": False,
    "ytick.left": False,
    "grid.color": GRID,
    "lines.solid_capstyle": "round",
    "font.family": ["DejaVu Sans"],
}


def write_cdf_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw the empirical CDF of each metric, real against simulated, in ms.

    Parameters
    ----------
    comparison : Comparison
    folder : Path
        Made when absent.

    Returns
    -------
    list of Path
        ``<metric>_cdf.png``, one a metric.

    Raises
    ------
    MachineError
        The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context(_STYLE):
        for metric in METRICS:
            figure = _cdf_figure(comparison, metric)

            def save(stream: BinaryIO, figure: Figure = figure) -> None:
                figure.savefig(stream, format="png", dpi=140)

            paths.append(folder / f"{metric}_cdf.png")
            write_atomic(paths[-1], save)
    return paths


def _cdf_figure(comparison: Comparison, metric: str) -> Figure:
    rows = comparison.of_metric(metric).set_index("statistic")
    figure = Figure(figsize=(7.2, 5.0), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.105, 0.32, 0.825, 0.56))
    figure.text(0.105, 0.94, TITLES[metric], fontsize=13, fontweight="bold")
    why_not = comparison.unjudged.get(metric)
    of_what = f"real against simulated, n = {taken_over(comparison, metric)}" if why_not is None else NOT_JUDGED
    figure.text(0.105, 0.90, of_what, fontsize=9.5, color=SOFT)
    _label(axes, metric)
    if why_not is not None:
        axes.text(0.5, 0.61, why_not, ha="center")
        axes.set_xticks([])
        return figure
    for side in COLOURS:
        _draw(axes, side, cdf(comparison, side, metric), rows[f"{side}_ns"])
    axes.set_xlim(*cdf_limits(comparison, metric))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.01), ncols=2, frameon=False, handlelength=3)
    figure.text(0.105, 0.04, _table_text(rows), fontsize=9, family="monospace", linespacing=1.5)
    return figure


def _draw(axes: Axes, side: str, corners: tuple[Floats, Floats], statistics: "pd.Series[float]") -> None:
    x, share = corners
    axes.plot(
        x,
        share,
        drawstyle="steps-post",
        color=COLOURS[side],
        linestyle=_LINES[side],
        linewidth=1.9,
        label=side,
    )
    axes.scatter(
        statistics.loc[list(PERCENTILES)].to_numpy(dtype=np.float64) / NS_PER_MS,
        _LEVELS,
        s=52,
        marker=_MARKS[side],
        color=COLOURS[side],
        edgecolors="white",
        linewidths=0.6,
        zorder=4,
    )


def _label(axes: Axes, metric: str) -> None:
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], labels=["0", "25", "50", "75", "100"])
    axes.set_xlabel(f"{NAMES[metric]}, ms")
    axes.set_ylabel(f"{'token gaps' if metric == 'tbt' else 'requests'} at or below, %")
    axes.tick_params(labelsize=9)
    for name, level in zip(PERCENTILES, _LEVELS, strict=True):
        axes.axhline(level, color=SOFT, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(name.upper(), (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)


def _table_text(rows: pd.DataFrame) -> str:
    """Percentiles as four lines of monospaced text."""
    digits = decimals(rows[["real_ns", "sim_ns"]])
    lines = ["ms   " + "".join(f"{name.upper() if name != 'mean' else name:>13}" for name in rows.index)]
    for name, column in (("real", "real_ns"), ("sim", "sim_ns")):
        lines.append(f"{name:<5}" + "".join(f"{ms(value, digits):>13}" for value in rows[column]))
    lines.append("error" + "".join(f"{percent(value, sign=True):>13}" for value in rows["relative_error"]))
    return "\n".join(lines)
