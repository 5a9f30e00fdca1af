"""Which charts a sweep has, and what is in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpu_simulate_test.analysis.numbers import short, significant
from gpu_simulate_test.studies.drawing import chart_svg, dots_svg, swatch_svg
from gpu_simulate_test.studies.marks import Chart, Line, Mark
from gpu_simulate_test.studies.points import ATTAINMENT, INTERACTIVITY, THROUGHPUT, Group, Sweep, load_of
from gpu_simulate_test.studies.settings import CONCURRENCY, LOADS, RATE

COST, SENT = "cost_per_million_output_tokens", "request_rate_per_s"
_X_LABELS = {RATE: "requests sent each second", CONCURRENCY: "concurrent requests", SENT: "requests sent each second"}
_FEW = 6  # settings whose ranges a chart can show
_TICKS = 8
_LONG = 28  # letters of a name beside a row; beyond them the code alone


@dataclass(frozen=True)
class Figure:
    """A figure of the table as charts show it: `limit` is the objective that bounds it."""

    name: str
    title: str
    unit: str
    limit: str | None = None


Link = Callable[[int], str | None]


def charts_of(sweep: Sweep, link: Link) -> list[str]:
    """Draw a sweep.

    Parameters
    ----------
    sweep : Sweep
    link : callable
        Gives the address of a row's run.

    Returns
    -------
    list of str
        SVG elements: latencies against the load, of a sweep without one a row a job; throughput against
        interactivity; cost. What no job knows is not drawn.
    """
    figures = [figure for figure in _latencies(sweep) if _known(sweep, figure.name)]
    x = _x(sweep)
    if x is not None:
        drawn = [_against_load(sweep, figure, x, link) for figure in figures]
    else:
        figures += [Figure(THROUGHPUT, "Throughput", "output tokens/s per GPU")]
        figures += [Figure(COST, "Cost", "per million output tokens")]
        drawn = [_dots(sweep, figure, link) for figure in figures if _known(sweep, figure.name)]
    if len(sweep.front) and sweep.table[THROUGHPUT].notna().sum() > 1:
        drawn.append(_front(sweep, link))
    if x is not None and _known(sweep, COST) and sweep.front:
        drawn.append(_cost(sweep, link))
    return drawn


def legend_of(sweep: Sweep) -> list[dict[str, str]]:
    """The settings that charts tell apart: ``swatch`` (SVG), ``code``, ``label``."""
    return [
        {"swatch": swatch_svg(Line(group.code, group.looks, ())), "code": group.code, "label": group.label}
        for group in sweep.groups
        if group.code
    ]


def name_of(sweep: Sweep, row: int) -> str:
    """What a job is called beside its point: the code of its setting and its load, or its number."""
    code = next(group.code for group in sweep.groups if row in group.jobs)
    name = f"{code} {load_of(sweep, row, bare=True)}".strip() if code else load_of(sweep, row)
    return name or f"job {sweep.table['job'].iloc[row]}"


def common_slo(sweep: Sweep) -> dict[str, float]:
    """The objectives, where all jobs whose attainment is known have the same."""
    found = [slo for slo, met in zip(sweep.slo, sweep.meets, strict=True) if not np.isnan(met)]
    return found[0] if found and all(slo == found[0] for slo in found) else {}


def _latencies(sweep: Sweep) -> list[Figure]:
    # An objective is for nearly all requests: the median would lie far below it where it is missed.
    e2e, tpot = ("p99" if limit in common_slo(sweep) else "p50" for limit in ("e2e_ms", "tbt_ms"))
    return [
        Figure("slo_attainment", "Requests that meet the objectives", "%", "attainment"),
        Figure("ttft_p99_ms", "Time to first token, P99", "ms", "ttft_ms"),
        Figure(f"tpot_{tpot}_ms", f"Time per output token, {tpot.upper()}", "ms", "tbt_ms"),
        Figure(f"e2e_{e2e}_ms", f"End to end, {e2e.upper()}", "ms", "e2e_ms"),
    ]


def _known(sweep: Sweep, name: str) -> bool:
    return bool(sweep.table[name].notna().any())


def _x(sweep: Sweep) -> str | None:
    """The column that is along the charts: a load that takes several values among the jobs that have figures."""
    if sweep.load is None:
        return None
    name = SENT if sweep.load in LOADS and sweep.load not in _X_LABELS else sweep.load
    values = sweep.table.loc[sweep.table["num_requests"].notna(), name].dropna()
    return name if values.nunique() > 1 else None


def _lines(sweep: Sweep, x: str, figure: Figure, link: Link, *, vertical: bool = True) -> list[Line]:
    """One a setting. Ranges are of the figure, which is upwards unless `vertical` is false."""
    table, factor = sweep.table, 100 if figure.unit == "%" else 1
    ranged = f"{figure.name}_low" in table and (not vertical or len(sweep.groups) <= _FEW)
    along = table[x].astype("float64").to_numpy()
    up = factor * table[figure.name].to_numpy()
    low, high = (
        factor * table[f"{figure.name}_{end}"].to_numpy() if ranged else np.full(len(table), np.nan)
        for end in ("low", "high")
    )
    return [
        Line(
            group.code,
            group.looks,
            [
                Mark(
                    job=row,
                    x=float(along[row] if vertical else up[row]),
                    y=float(up[row] if vertical else row),
                    title=_title(sweep, group, row, figure, float(up[row])),
                    href=link(row),
                    low=float(low[row]),
                    high=float(high[row]),
                    misses=bool(sweep.meets[row] == 0),
                    name=_row_name(sweep, group, row),
                )
                for row in group.jobs
                if np.isfinite(up[row]) and (not vertical or np.isfinite(along[row]))
            ],
        )
        for group in sweep.groups
    ]


def _title(sweep: Sweep, group: Group, row: int, figure: Figure, value: float) -> str:
    said = ", ".join(part for part in (group.label, load_of(sweep, row)) if part)
    return (
        f"job {sweep.table['job'].iloc[row]}{said and ': ' + said}\n{figure.title}: {significant(value)} {figure.unit}"
    )


def _row_name(sweep: Sweep, group: Group, row: int) -> str:
    name = f"{group.code} {group.label}".strip() or f"job {sweep.table['job'].iloc[row]}"
    return group.code if group.code and len(name) > _LONG else name


def _limit(sweep: Sweep, figure: Figure) -> tuple[float, str] | None:
    slo = common_slo(sweep)
    if figure.limit == "attainment" and slo:
        wanted = 100 * slo.get("attainment", ATTAINMENT)
        return wanted, f"wanted: {short(wanted)} %"
    if figure.limit not in slo or figure.limit is None:
        return None
    return slo[figure.limit], f"SLO {significant(slo[figure.limit])} ms"


def _against_load(sweep: Sweep, figure: Figure, x: str, link: Link) -> str:
    lines = _lines(sweep, x, figure, link)
    loads = sorted({mark.x for line in lines for mark in line.marks})
    apart = min(np.diff(loads), default=0.0) >= (loads[-1] - loads[0]) / _TICKS if len(loads) > 1 else True
    ticks: Sequence[float] = loads if x == sweep.load and len(loads) <= _TICKS and apart else ()
    label = _X_LABELS.get(x) or sweep.keys[x]
    return chart_svg(
        Chart(figure.title, label, figure.unit, lines, _limit(sweep, figure), ticks=ticks, span=_span(figure))
    )


def _dots(sweep: Sweep, figure: Figure, link: Link) -> str:
    lines = _lines(sweep, "job", figure, link, vertical=False)
    return dots_svg(Chart(figure.title, figure.unit, "", lines, _limit(sweep, figure), span=_span(figure)))


def _span(figure: Figure) -> tuple[float, float] | None:
    return (0.0, 104.0) if figure.unit == "%" else None


def _front(sweep: Sweep, link: Link) -> str:
    figure = Figure(THROUGHPUT, "Throughput against interactivity", "output tokens/s per GPU")
    lines = _lines(sweep, INTERACTIVITY, figure, link)
    marks = {mark.job: mark for line in lines for mark in line.marks}
    front = [replace(marks[row], name=name_of(sweep, row)) for row in sweep.front]
    return chart_svg(Chart(figure.title, "tokens/s per user", figure.unit, lines, front=front, codes=False))


def _cost(sweep: Sweep, link: Link) -> str:
    figure = Figure(COST, "Cost against interactivity", "per million output tokens")
    lines = _lines(sweep, INTERACTIVITY, figure, link)
    return chart_svg(Chart(figure.title, "tokens/s per user", figure.unit, lines, codes=False))
