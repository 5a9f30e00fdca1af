"""The interactive charts of the report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gpu_simulate_test.analysis.assess import Assessment
from gpu_simulate_test.analysis.attribution import Attribution
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.drawing import COLOURS, GRID, INK
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import NS_PER_MS, ms
from gpu_simulate_test.analysis.samples import METRICS, PERCENTILES, Floats
from gpu_simulate_test.analysis.terms import TITLES
from gpu_simulate_test.analysis.trace import phases
from gpu_simulate_test.analysis.wording import cdf, cdf_limits, taken_over

# Above this many points a browser draws faster with WebGL than with SVG.
_SVG_LIMIT = 5000
_DASHED = {"color": "#8a96a3", "width": 1.2, "dash": "dash"}
_PHASES = {  # real, simulated; spans that were not told apart have the colours of the last
    "queue": ("#b9c2cc", "#d5dae0"),
    "prefill": ("#6f9ed1", "#f0b27a"),
    "decode": (COLOURS["real"], COLOURS["sim"]),
}
_SLOWEST = 10


def interactive_figures(assessment: Assessment, real: Run, sim: Run) -> dict[str, go.Figure]:
    """Make the charts of the HTML report, by name, in the order they are shown.

    Parameters
    ----------
    assessment : Assessment
    real, sim : Run
        The first repeat and the simulated run.
    """
    comparison = assessment.comparison
    known = [metric for metric in METRICS if len(comparison.real_values[metric])]
    figures = {f"cdf-{metric}": _interactive_cdf(comparison, metric) for metric in known}
    figures |= {f"qq-{metric}": _quantiles(comparison, metric) for metric in known}
    figures |= {f"scatter-{metric}": _scatter(comparison, metric) for metric in ("e2e", "ttft") if metric in known}
    figures["error-prompt"] = _error_by_prompt(comparison)
    if len(assessment.positions):
        figures["error-position"] = _error_by_position(assessment.positions)
    figures["timeline-slowest"] = _slowest(comparison, real, sim)
    return figures


def waterfalls(attribution: Attribution) -> dict[str, go.Figure]:
    """Make the charts that build the mean difference up from its parts, by name."""
    table = attribution.table()
    return {
        f"waterfall-{metric}": _waterfall(str(metric), rows.set_index("part")["mean_ns"])
        for metric, rows in table.groupby("metric", sort=False)
    }


def _waterfall(metric: str, mean_ns: "pd.Series[float]") -> go.Figure:
    figure = _figure(f"Mean {metric.upper()}: from real to simulated", "", "simulated - real, ms")
    parts, values = list(map(str, mean_ns.index[:-1])), mean_ns.tolist()
    figure.add_trace(
        go.Waterfall(
            x=[*(part.replace(" ", "<br>") for part in parts), "<b>sim -<br>real</b>"],
            y=[value / NS_PER_MS for value in values],
            measure=[*["relative"] * len(parts), "total"],
            text=[ms(value, 2, sign=True) for value in values],
            textposition="outside",
            cliponaxis=False,
            connector={"line": {"color": GRID}},
            increasing={"marker": {"color": COLOURS["sim"]}},
            decreasing={"marker": {"color": "#3b8a6e"}},
            totals={"marker": {"color": INK}},
            hovertemplate="%{x}: %{text} ms<extra></extra>",
        )
    )
    figure.add_hline(0, line=_DASHED)
    figure.update_xaxes(tickangle=0, tickfont={"size": 10})
    return figure


def _quantiles(comparison: Comparison, metric: str) -> go.Figure:
    levels = np.linspace(0, 1, 201)
    real, sim = (np.quantile(comparison.cdfs[side][metric][0], levels) / NS_PER_MS for side in COLOURS)
    figure = _figure(f"{TITLES[metric]}: quantiles", "real, ms", "simulated, ms")
    _diagonal(figure, real, sim)
    figure.add_scatter(
        x=real,
        y=sim,
        mode="markers",
        marker={"size": 5, "color": COLOURS["sim"]},
        customdata=levels,
        hovertemplate="%{customdata:.1%}: real %{x:,.3f} ms, sim %{y:,.3f} ms<extra></extra>",
        name="quantiles",
    )
    return figure


def _error_by_position(positions: pd.DataFrame) -> go.Figure:
    figure = _figure("Error of a token's time since arrival, median over requests", "output token", "sim - real, ms")
    figure.add_hline(0, line=_DASHED)
    figure.add_scatter(
        x=positions["token_index"].to_numpy(),
        y=_ms(positions["median_error_ns"]),
        mode="lines+markers" if len(positions) < 3 else "lines",
        line={"width": 2.2, "color": COLOURS["sim"]},
        customdata=positions["n"].to_numpy(),
        hovertemplate="token %{x}: %{y:+,.3f} ms (%{customdata} requests)<extra></extra>",
        name="median",
    )
    return figure


def _slowest(comparison: Comparison, real: Run, sim: Run) -> go.Figure:
    """Draw the requests that took longest in the first real run as bars from their arrival on."""
    latencies = comparison.real.latencies.nlargest(_SLOWEST, "e2e_ns")
    ids = latencies["request_id"].tolist()
    figure = _figure(f"The {len(ids)} slowest requests of the real run", "ms since arrival", "")
    labels = [f"{request_id} {side}" for request_id in ids for side in ("real", "sim")]
    rows = [_phases(run, request_id) for request_id in ids for run in (real, sim)]
    found = {phase for row in rows for phase in row}
    for phase in sorted(found, key=lambda name: [list(_PHASES).index(part) for part in name.split(" and ")]):
        colours = _PHASES[phase.rpartition(" ")[2]]
        figure.add_bar(
            x=[row.get(phase, 0.0) for row in rows],
            y=labels,
            orientation="h",
            name=phase,
            marker={"color": [*colours] * len(ids)},
            hovertemplate=f"request %{{y}}: {phase} %{{x:,.3f}} ms<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.18, height=120 + 20 * len(labels), legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed", type="category", tickfont={"size": 11}, showgrid=False)
    return figure


def _phases(run: Run, request_id: int) -> dict[str, float]:
    """Milliseconds of each phase of a request."""
    row = run.requests[run.requests["request_id"] == request_id].iloc[0]
    return {phase: (end - begin) / NS_PER_MS for phase, begin, end in phases(row.to_dict())}


def _diagonal(figure: go.Figure, real: Floats, sim: Floats) -> None:
    """Same axis limits both ways, and the line on which the simulation would be right."""
    low, high = min(real.min(), sim.min()), max(real.max(), sim.max())
    air = 0.05 * (high - low) or 0.05 * high or 1.0
    ends = [low - air, high + air]
    figure.update_xaxes(range=ends)
    figure.update_yaxes(range=ends)
    figure.add_scatter(x=ends, y=ends, mode="lines", line=_DASHED, name="sim = real", hoverinfo="skip")


def _interactive_cdf(comparison: Comparison, metric: str) -> go.Figure:
    figure = _figure(f"{TITLES[metric]}, n = {taken_over(comparison, metric)}", "ms", "share at or below")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_xaxes(range=cdf_limits(comparison, metric))
    for side in COLOURS:
        x, fraction = cdf(comparison, side, metric)
        figure.add_scatter(
            x=x,
            y=fraction,
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
    frame = comparison.per_request.dropna(subset=f"error_{metric}_ns")
    real, sim = _ms(frame[f"real_{metric}_ns"]), _ms(frame[f"sim_{metric}_ns"])
    figure = _figure(f"{metric.upper()} of each request", "real, ms", "simulated, ms")
    _diagonal(figure, real, sim)
    figure.add_trace(_points(frame, real, sim, "real %{x:,.3f} ms, sim %{y:,.3f} ms"))
    return figure


def _error_by_prompt(comparison: Comparison) -> go.Figure:
    frame = comparison.per_request
    real = _ms(frame["real_e2e_ns"])
    error = np.divide(100 * _ms(frame["error_e2e_ns"]), real, out=np.full(len(real), np.nan), where=real > 0)
    figure = _figure("E2E error against prompt length", "prompt tokens", "(sim - real) / real, %")
    figure.add_hline(0, line=_DASHED)
    prompt = frame["num_prefill_tokens"].to_numpy(dtype=np.float64)
    figure.add_trace(_points(frame, prompt, error, "%{x:,} prompt tokens, %{y:+.2f} %"))
    return figure


def _points(frame: pd.DataFrame, x: Floats, y: Floats, hover: str) -> Any:
    kind = go.Scattergl if len(frame) > _SVG_LIMIT else go.Scatter
    request = "request %{customdata[0]} (%{customdata[1]} in, %{customdata[2]} out)<br>"
    return kind(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 8, "color": COLOURS["sim"], "opacity": 0.65, "line": {"width": 0.6, "color": "white"}},
        customdata=frame[["request_id", "num_prefill_tokens", "num_tokens_compared"]].to_numpy(),
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
