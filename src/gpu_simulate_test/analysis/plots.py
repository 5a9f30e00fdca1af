"""Figures of a comparison: CDFs as PNG files, and the interactive charts of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpu_simulate_test.analysis.compare import METRICS, PERCENTILES, Comparison, Floats, empirical_cdf
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
# Above this many points a browser draws faster with WebGL than with SVG.
_SVG_LIMIT = 5000


def counted(metric: str, n: int) -> str:
    """Say what a metric was taken over, as ``60 requests`` or ``2,304 token gaps``."""
    noun = "token gap" if metric == "tbt" else "request"
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


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
    n = int(rows["n_real"].iloc[0])
    figure.text(0.09, 0.94, TITLES[metric], fontsize=13, fontweight="bold", color=INK)
    figure.text(0.09, 0.90, f"real against simulated, n = {counted(metric, n)}", fontsize=9.5, color="#5b6774")
    _style(axes)
    if not n:
        axes.text(0.5, 0.5, "no value: every request made one token", ha="center", color=INK)
        return figure
    for side, values in (("real", comparison.real_values[metric]), ("sim", comparison.sim_values[metric])):
        axes.step(*_steps(values), where="post", color=COLOURS[side], linewidth=1.9, label=side)
        marks = rows.loc[list(PERCENTILES), f"{side}_ns"].to_numpy(dtype=np.float64) / NS_PER_MS
        levels = [level / 100 for level in PERCENTILES.values()]
        axes.plot(marks, levels, "o", color=COLOURS[side], markeredgecolor="white", markersize=7, zorder=4)
    axes.set_xlim(*_limits(comparison, metric))
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


def _steps(values: Floats) -> tuple[Floats, Floats]:
    """Corners of a CDF in ms; it starts at 0, before its first value."""
    x, fraction = empirical_cdf(values / NS_PER_MS)
    return np.append(x[:1], x), np.append(0.0, fraction)


def _limits(comparison: Comparison, metric: str) -> tuple[float, float]:
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


def interactive_figures(comparison: Comparison) -> dict[str, go.Figure]:
    """Make the charts of the HTML report, by name, in the order they are shown."""
    figures = {
        f"cdf-{metric}": _interactive_cdf(comparison, metric)
        for metric in METRICS
        if len(comparison.real_values[metric])
    }
    figures["scatter-e2e"] = _scatter(comparison, "e2e")
    figures["scatter-ttft"] = _scatter(comparison, "ttft")
    figures["error-prompt"] = _error_by_prompt(comparison)
    return figures


def _interactive_cdf(comparison: Comparison, metric: str) -> go.Figure:
    n = len(comparison.real_values[metric])
    figure = _figure(f"{TITLES[metric]}, n = {counted(metric, n)}", "ms", "share at or below")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_xaxes(range=_limits(comparison, metric))
    for side, values in (("real", comparison.real_values[metric]), ("sim", comparison.sim_values[metric])):
        x, fraction = _steps(values)
        figure.add_scatter(
            x=x.tolist(),
            y=fraction.tolist(),
            mode="lines",
            line={"shape": "hv", "width": 2.2, "color": COLOURS[side]},
            name=side,
            hovertemplate="%{x:,.3f} ms: %{y:.1%}",
        )
    for name, level in PERCENTILES.items():
        figure.add_hline(level / 100, line={"color": "#8a96a3", "width": 1, "dash": "dot"})
        place = {"x": 1, "xref": "paper", "xanchor": "left", "y": level / 100}
        figure.add_annotation(place, text=f" {name.upper()}", showarrow=False, font={"size": 11})
    return figure


def _scatter(comparison: Comparison, metric: str) -> go.Figure:
    frame = comparison.per_request
    real, sim = _ms(frame[f"real_{metric}_ns"]), _ms(frame[f"sim_{metric}_ns"])
    figure = _figure(f"{metric.upper()} of each request", "real, ms", "simulated, ms")
    low, high = min(real.min(), sim.min()), max(real.max(), sim.max())
    air = 0.05 * (high - low) or 0.05 * high or 1.0
    ends = [low - air, high + air]
    figure.update_xaxes(range=ends)
    figure.update_yaxes(range=ends)
    dashed = {"color": "#8a96a3", "width": 1.2, "dash": "dash"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=dashed, name="sim = real", hoverinfo="skip")
    figure.add_trace(_points(frame, real, sim, "real %{x:,.3f} ms, sim %{y:,.3f} ms"))
    return figure


def _error_by_prompt(comparison: Comparison) -> go.Figure:
    frame = comparison.per_request
    real = _ms(frame["real_e2e_ns"])
    error = np.divide(100 * _ms(frame["error_e2e_ns"]), real, out=np.full(len(real), np.nan), where=real > 0)
    figure = _figure("E2E error against prompt length", "prompt tokens", "(sim - real) / real, %")
    figure.add_hline(0, line={"color": "#8a96a3", "width": 1.2, "dash": "dash"})
    prompt = frame["num_prefill_tokens"].to_numpy(dtype=np.float64)
    figure.add_trace(_points(frame, prompt, error, "%{x:,} prompt tokens, %{y:+.2f} %"))
    return figure


def _points(frame: pd.DataFrame, x: Floats, y: Floats, hover: str) -> Any:
    kind = go.Scattergl if len(frame) > _SVG_LIMIT else go.Scatter
    request = "request %{customdata[0]} (%{customdata[1]} in, %{customdata[2]} out)<br>"
    return kind(
        x=x.tolist(),
        y=y.tolist(),
        mode="markers",
        marker={"size": 8, "color": COLOURS["sim"], "opacity": 0.65, "line": {"width": 0.6, "color": "white"}},
        customdata=frame[["request_id", "num_prefill_tokens", "num_tokens_compared"]].to_numpy().tolist(),
        hovertemplate=f"{request}{hover}<extra></extra>",
        name="request",
    )


def _figure(title: str, x_title: str, y_title: str) -> go.Figure:
    axis: Mapping[str, Any] = {"gridcolor": GRID, "zeroline": False, "linecolor": "#aab4be", "automargin": True}
    return go.Figure(
        layout={
            "title": {"text": title, "x": 0.02, "xanchor": "left", "y": 0.96, "font": {"size": 15, "color": INK}},
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
            "margin": {"l": 60, "r": 44, "t": 64, "b": 48},
            "height": 340,
            "plot_bgcolor": "white",
            "paper_bgcolor": "white",
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
            "hoverlabel": {"bgcolor": "white"},
            "xaxis": {**axis, "title": {"text": x_title}},
            "yaxis": {**axis, "title": {"text": y_title}},
        }
    )


def _ms(column: "pd.Series[float]") -> Floats:
    return np.asarray(column, dtype=np.float64) / NS_PER_MS
