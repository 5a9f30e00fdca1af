"""CDFs as PNG files, and how every figure of a report is written."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.samples import METRICS, PERCENTILES, Floats, empirical_cdf
from gpu_simulate_test.analysis.verdict import NOT_JUDGED
from gpu_simulate_test.io.files import write_atomic

TITLES = {
    "ttft": "Time to first token (TTFT)",
    "tbt": "Time between tokens (TBT)",
    "tpot": "Time per output token (TPOT)",
    "e2e": "End-to-end latency (E2E)",
    "e2e_per_token": "E2E per output token",
}
COLOURS = {"real": "#1b4f8f", "sim": "#d9730d"}
INK, GRID = "#26323f", "#dfe4ea"
NS_PER_MS = 1e6


def counted(metric: str, n: int) -> str:
    """Say what a metric was taken over, as ``60 requests`` or ``2,304 token gaps``."""
    noun = "token gap" if metric == "tbt" else "request"
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def taken_over(comparison: Comparison, metric: str) -> str:
    """Say what a metric was taken over, repeats included, as ``60 requests x 3 runs``."""
    runs = f" x {comparison.num_repeats} runs" if comparison.num_repeats > 1 else ""
    table = comparison.percentiles
    return counted(metric, int(table.loc[table["metric"] == metric, "n_sim"].iloc[0])) + runs


def decimals(rows: pd.DataFrame) -> int:
    """Count the decimals that give the smallest value of a metric four digits, in ms.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one metric of `Comparison.percentiles`.
    """
    values = rows[["real_ns", "sim_ns"]].to_numpy(dtype=np.float64) / NS_PER_MS
    values = values[values > 0]
    return int(np.clip(3 - np.floor(np.log10(values.min())), 0, 4)) if len(values) else 0


def percent(fraction: float) -> str:
    """Write a signed fraction as ``-3.1 %``; empty when missing."""
    if np.isnan(fraction):
        return ""
    value = round(100 * fraction, 1)
    return f"{value:+,.1f} %" if value else "0.0 %"


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
    for metric in METRICS:
        figure = _cdf_figure(comparison, metric)

        def save(stream: BinaryIO, figure: Figure = figure) -> None:
            figure.savefig(stream, format="png", dpi=140)

        paths.append(folder / f"{metric}_cdf.png")
        write_atomic(paths[-1], save)
    return paths


def _cdf_figure(comparison: Comparison, metric: str) -> Figure:
    rows = comparison.percentiles[comparison.percentiles["metric"] == metric].set_index("statistic")
    figure = Figure(figsize=(7.2, 5.0), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.32, 0.83, 0.56))
    figure.text(0.09, 0.94, TITLES[metric], fontsize=13, fontweight="bold", color=INK)
    why_not = comparison.unjudged.get(metric)
    of_what = f"real against simulated, n = {taken_over(comparison, metric)}" if why_not is None else NOT_JUDGED
    figure.text(0.09, 0.90, of_what, fontsize=9.5, color="#5b6774")
    _style(axes)
    if why_not is not None:
        axes.text(0.5, 0.61, why_not, ha="center", color=INK)
        axes.set_xticks([])
        return figure
    for side, values in (("real", comparison.real_values[metric]), ("sim", comparison.sim_values[metric])):
        axes.step(*steps(values), where="post", color=COLOURS[side], linewidth=1.9, label=side)
        marks = rows.loc[list(PERCENTILES), f"{side}_ns"].to_numpy(dtype=np.float64) / NS_PER_MS
        levels = [level / 100 for level in PERCENTILES.values()]
        axes.plot(marks, levels, "o", color=COLOURS[side], markeredgecolor="white", markersize=7, zorder=4)
    axes.set_xlim(*limits(comparison, metric))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.01), ncols=2, frameon=False, labelcolor=INK)
    figure.text(0.09, 0.045, _table_text(rows), fontsize=9, family="monospace", color=INK, linespacing=1.5)
    return figure


def _style(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], labels=["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("ms", color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=GRID, linewidth=0.7)
    for name, level in PERCENTILES.items():
        axes.axhline(level / 100, color="#8a96a3", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            name.upper(), (1.01, level / 100), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=INK
        )


def steps(values: Floats) -> tuple[Floats, Floats]:
    """Corners of a CDF in ms; it starts at 0, before its first value."""
    x, fraction = empirical_cdf(values / NS_PER_MS)
    return np.append(x[:1], x), np.append(0.0, fraction)


def limits(comparison: Comparison, metric: str) -> tuple[float, float]:
    """Axis limits in ms that leave some air around both samples."""
    both = np.concatenate([comparison.real_values[metric], comparison.sim_values[metric]]) / NS_PER_MS
    low, high = float(both.min()), float(both.max())
    air = 0.04 * (high - low) or 0.05 * high or 1.0
    return low - air, high + air


def _table_text(rows: pd.DataFrame) -> str:
    """Percentiles as four lines of monospaced text."""
    digits = decimals(rows)
    lines = ["ms   " + "".join(f"{name.upper() if name != 'mean' else name:>13}" for name in rows.index)]
    for name, column in (("real", "real_ns"), ("sim", "sim_ns")):
        lines.append(f"{name:<5}" + "".join(f"{value / NS_PER_MS:>13,.{digits}f}" for value in rows[column]))
    lines.append("error" + "".join(f"{percent(value):>13}" for value in rows["relative_error"]))
    return "\n".join(lines)
