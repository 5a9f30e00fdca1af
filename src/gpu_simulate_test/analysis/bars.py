"""Bars of a comparison's page: what the mean difference is made of, and where the slowest requests spent their time."""

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.attribution import Attribution
from gpu_simulate_test.analysis.charts import Drawn
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.drawing import COLOURS, GRID, INK, SOFT
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import NS_PER_MS, count, decimals, ms, number, percent
from gpu_simulate_test.analysis.svg import TOP, WIDTH, Plot, at, box, legend, line, text, with_air
from gpu_simulate_test.analysis.trace import phases

_MORE, _LESS = f'fill="{COLOURS["sim"]}"', f'fill="#fff" stroke="{COLOURS["real"]}" stroke-width="1.6"'
_SIGNS = ((_MORE, "longer"), (_LESS, "shorter"))
_ROW, _BAR = 33, 10
_PHASES = {  # real, simulated, darker and darker; spans that were not told apart have the colours of the last
    "queue": ("#d3dce8", "#f8e3cd"),
    "prefill": ("#83a5cd", "#efb070"),
    "decode": (COLOURS["real"], "#b45c05"),
}
_SLOWEST = 10
_PAIR, _THIN = 32, 11


def waterfalls(attribution: Attribution | str) -> list[Drawn]:
    """Build the mean difference up from its parts, a chart a metric; none where they are not known."""
    if isinstance(attribution, str):
        return []
    table = attribution.table()
    return [_waterfall(str(metric), rows, attribution) for metric, rows in table.groupby("metric", sort=False)]


def _waterfall(metric: str, rows: pd.DataFrame, attribution: Attribution) -> Drawn:
    values = rows["mean_ns"].to_numpy(dtype=np.float64)
    digits = min(decimals(np.abs(values).max()) + 1, 4)
    after = np.cumsum(values[:-1])
    begin = np.append(np.append(0.0, after[:-1]), 0.0) / NS_PER_MS
    end = begin + values / NS_PER_MS
    plot = Plot(
        f"Mean {metric.upper()}: from real to simulated",
        f"sim - real, ms, mean of {count(len(attribution.per_request[metric]), 'request')}",
        None,
        with_air(np.append(begin, end)),
        left=8,
        height=TOP + _ROW * len(values) + 52,
    )
    zero, parts = at(float(plot.across(0.0))), []
    ends = list(zip(plot.across(begin), plot.across(end), strict=True))
    for place, (row, (left, right)) in enumerate(zip(rows.to_dict("records"), ends, strict=True)):
        top = TOP + _ROW * place
        total = row["part"] == "total"
        share = "" if total or np.isnan(row["share"]) else f", {percent(row['share'])}"
        said = f"{ms(row['mean_ns'], digits, sign=True)} ms{share}"
        bold = 'font-weight="600"' if total else ""
        parts.append(text(8, top, "sim - real" if total else str(row["part"]), more=bold))
        parts.append(text(WIDTH - 10, top, said, "end", bold))
        parts.append(line(f"M{zero} {at(top + 3)}v{_BAR + 4}", SOFT))
        look = f'fill="{INK}"' if total else _MORE if row["mean_ns"] >= 0 else _LESS
        parts.append(box(left, right, top + 5, _BAR, look))
        if place + 2 < len(values):  # to where the next one begins
            parts.append(line(f"M{at(right)} {at(top + 5 + _BAR)}V{at(top + 5 + _ROW)}", GRID))
    named = [(f'<rect width="22" height="10" {look}/>', f"simulated {word}") for look, word in _SIGNS]
    return Drawn(f"waterfall-{metric}", plot.svg([*parts, *legend(named)]))


def slowest(comparison: Comparison, real: Run, sim: Run) -> Drawn:
    """Draw the requests that took longest in the first real run as bars from their arrival on."""
    ids = comparison.real.latencies.nlargest(_SLOWEST, "e2e_ns")["request_id"].tolist()
    rows = [[_spans(run, request_id) for run in (real, sim)] for request_id in ids]
    longest = max(end for pair in rows for spans in pair for _, _, end in spans)
    slow = f"{len(ids)} slowest requests" if len(ids) > 1 else "slowest request"
    plot = Plot(
        f"The {slow} of the real run",
        "ms since arrival",
        None,
        (0.0, longest or 1.0),
        left=10 + 7 * max(len(str(one)) for one in ids) + 34,
        height=TOP + _PAIR * len(ids) + 38,
    )
    parts = []
    for place, (request_id, pair) in enumerate(zip(ids, rows, strict=True)):
        top = TOP - 10 + _PAIR * place
        parts.append(text(8, top + 16, str(request_id)))
        for below, (side, spans) in enumerate(zip(("real", "sim"), pair, strict=True)):
            level = top + (_THIN + 1) * below
            parts.append(text(plot.left - 5, level + 9, side, "end", 'font-size="10.5"'))
            for phase, begin, end in spans:
                left, right = plot.across([begin, end])
                said = f"request {request_id}, {side}: {phase} {number(end - begin, 2)} ms"
                parts.append(box(left, right, level, _THIN, _of_phase(phase, below), said))
    found = {phase for pair in rows for spans in pair for phase, _, _ in spans}
    named = [
        (f'<rect width="11" height="10" fill="{real_}"/><rect x="11" width="11" height="10" fill="{sim_}"/>', name)
        for name, (real_, sim_) in _PHASES.items()
        if any(phase.endswith(name) for phase in found)
    ]
    joined = " A phase not told apart from the one before has its own colour for both." * any(
        " and " in one for one in found
    )
    note = f"Left half of a colour's sample: real; right half: simulated.{joined}"
    return Drawn("timeline-slowest", plot.svg([*parts, *legend(named)]), note)


def _of_phase(phase: str, side: int) -> str:
    return f'fill="{_PHASES[phase.rpartition(" ")[2]][side]}"'


def _spans(run: Run, request_id: int) -> list[tuple[str, float, float]]:
    """Each phase of a request, from when to when in ms since its arrival."""
    row = run.requests[run.requests["request_id"] == request_id].iloc[0]
    begin = row["arrival_time_ns"]
    return [
        (phase, (start - begin) / NS_PER_MS, (end - begin) / NS_PER_MS) for phase, start, end in phases(row.to_dict())
    ]
