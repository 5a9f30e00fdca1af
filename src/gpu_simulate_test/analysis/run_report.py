"""The page of one simulated run: its figures, how it went on, its slowest requests, and what to doubt."""

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.line_chart import Line, line_chart
from gpu_simulate_test.analysis.load_metrics import Run, load_samples, load_simulation
from gpu_simulate_test.analysis.numbers import NS_PER_MS, between, count, decimals, ms, number, percent, significant
from gpu_simulate_test.analysis.over_time import Course, Level, course
from gpu_simulate_test.analysis.run_figures import LATENCIES, figures, num_gpus_of
from gpu_simulate_test.analysis.run_words import doubts, hardware, how_to_read, limits_of, simulated
from gpu_simulate_test.analysis.samples import Floats, ints, request_latencies
from gpu_simulate_test.analysis.slo import levels, objectives, title_of
from gpu_simulate_test.analysis.templates import environment
from gpu_simulate_test.analysis.terms import DEFINITIONS, TITLES, counted
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.io.run_dir import RunDir

PAGE = "report.html"
_TEMPLATE = "run.html.j2"
_SLOWEST = 10


def write_run_report(target: RunDir, meta: dict[str, Any], slo: SloConfig, price_per_hour: float | None) -> None:
    """Write ``report.html`` of the simulation in a run directory; it needs no other file, no network and no script.

    Parameters
    ----------
    target : RunDir
        Its tables are written.
    meta : dict
        What its metadata file will say.
    slo : SloConfig
    price_per_hour : float or None
        Of one GPU.

    Raises
    ------
    ArtifactError
        A table contradicts itself.
    MachineError
        The directory cannot be written.
    """
    run, limits = load_simulation(target.path, meta), objectives(slo)
    gpus = num_gpus_of(run)

    def of(one: Run) -> tuple[dict[str, float], Floats]:
        return figures(one, limits, price_per_hour, gpus), levels(one, limits) if limits else np.empty(0)

    sampled = [of(one) for one in load_samples(target.path, meta)]  # one at a time, for they may be large
    rows, num_samples = sampled or [of(run)], len(sampled)
    table, attained = pd.DataFrame([one for one, _ in rows]), _levels(np.array([met for _, met in rows]), limits)
    went = course(run)
    context = {
        "headline": _headline(run, table, attained),
        "terms": DEFINITIONS,
        "simulated": simulated(run, num_samples),
        "latencies": _latencies(run, table),
        "slo": attained,
        "throughput": _throughput(run, table, went),
        "charts": _charts(run, went),
        "slowest": _slowest(run),
        "ranges": len(rows) > 1,
        "doubts": doubts(run, num_samples),
        "limits": how_to_read(run, slo, num_samples),
    }
    target.write_text(PAGE, environment().get_template(_TEMPLATE).render(context))


def _headline(run: Run, table: pd.DataFrame, met: list[dict[str, str]]) -> str:
    found = {str(name): float(column.mean()) for name, column in table.items()}
    median, tail, first = (_time(found[name]) for name in ("e2e_p50_ms", "e2e_p99_ms", "ttft_p50_ms"))
    sent, requests = number(found["request_rate_per_s"], 2), count(len(run.requests), "request")
    sentence = (
        f"{run.meta.get('model') or 'The model'} on {hardware(run)}, simulated: of {requests}"
        f"{sent and f' at {sent} a second'}, the median takes {median} (P99 {tail}) and has its first token after "
        f"{first}; {significant(found['output_tokens_per_s'])} output tokens a second"
    )
    return sentence + (f". {met[-1]['attainment']} of the requests meet the objectives." if met else ".")


def _time(value_ms: float) -> str:
    """Write a time for a sentence, as ``7.29 s`` or ``140 ms``."""
    value, unit = (value_ms / 1e3, "s") if value_ms >= 1e3 else (value_ms, "ms")
    return f"{significant(value)} {unit}"


def _range(column: "pd.Series[float]", digits: int) -> str:
    """Where 95 % of the simulations with noise lie; empty without them."""
    if len(column) < 2 or column.isna().any():
        return ""
    low, high = column.quantile([0.025, 0.975])
    return between(number(low, digits), number(high, digits))


def _latencies(run: Run, table: pd.DataFrame) -> list[dict[str, Any]]:
    done = run.requests["num_decode_tokens_actual"][is_ok(run.requests)]
    several = int((done > 1).sum())
    n = {"ttft": len(done), "e2e": len(done), "tpot": several, "tbt": int(done.sum()) - len(done)}
    groups = []
    for metric in LATENCIES:
        columns = {name: table[f"{metric}_{name}_ms"] for name in ("p50", "p90", "p99", "mean")}
        digits = decimals(np.array([column.mean() for column in columns.values()]) * NS_PER_MS)
        rows = [
            {
                "statistic": "mean" if name == "mean" else name.upper(),
                "value": number(column.mean(), digits) or "undefined",
                "range": _range(column, digits),
            }
            for name, column in columns.items()
        ]
        groups.append({"title": TITLES[metric], "over": counted(metric, n[metric]), "rows": rows})
    return groups


def _levels(values: Floats, limits: dict[str, float]) -> list[dict[str, str]]:
    """Each objective, and last all of them; none where none is set."""
    if not limits:
        return []
    rows = []
    for place, name in enumerate([*limits, "all"]):
        share, goodput = (pd.Series(values[:, 2 * place + offset]) for offset in (0, 1))
        rows.append(
            {
                "title": title_of(name, limits.get(name)),
                "attainment": percent(share.mean()),
                "range": f"{within} %" if (within := _range(100 * share, 1)) else "",
                "goodput": number(goodput.mean(), 3),
            }
        )
    return rows[:1] if len(limits) == 1 else rows


def _throughput(run: Run, table: pd.DataFrame, went: Course) -> list[dict[str, str]]:
    names = {
        "request_rate_per_s": "Requests sent, per second",
        "requests_per_s": "Requests completed, per second",
        "output_tokens_per_s": "Output tokens, per second",
        "output_tokens_per_s_per_gpu": f"Output tokens, per second, for each of {num_gpus_of(run)} GPUs",
        "interactivity_tokens_per_s": "Tokens per second that a user sees (1 / median TPOT)",
        "cost_per_million_output_tokens": "Cost of a million output tokens",
    }
    if num_gpus_of(run) == 1:
        del names["output_tokens_per_s_per_gpu"]
    means = {title: significant(float(table[name].mean())) for name, title in names.items()}
    limits = limits_of(run)
    means |= {
        "Duration, s": number(float(table["duration_s"].mean()), 1),
        "Most requests in the system at once": count(went.in_system.peak.max()),
        "Most requests waiting for their first iteration": count(went.waiting.peak.max()),
        "Most requests in the iterations under way": count(went.batch.peak.max()),
        "Most of the KV cache in use": percent(went.kv_tokens.peak.max() / _kv_tokens(limits)),
        "Preemptions": count(run.requests["num_preemptions"].sum()),
    }
    return [{"title": title, "value": value} for title, value in means.items() if value]


def _kv_tokens(limits: EngineLimits) -> int:
    """Of all replicas."""
    return limits.kv_tokens * limits.data_parallel


def _charts(run: Run, went: Course) -> list[Markup]:
    limits, edges, coarse = limits_of(run), went.edges_s, went.coarse_s
    most = ("limit", float(limits.max_num_seqs * limits.data_parallel)) if limits.pipeline_parallel == 1 else None
    used = went.kv_tokens / (_kv_tokens(limits) / 100)
    load = [_line("in the system", went.in_system), Line("waiting", went.waiting.mean)]
    rates = [Line("arrived", went.arrivals), Line("completed", went.completions)]
    return [
        line_chart("Load and queue", "requests", edges, load),
        line_chart("Requests", "requests / s", coarse, rates),
        line_chart("Output tokens", "tokens / s", coarse, [Line("", went.output_tokens)]),
        line_chart("Batch size", "requests under way", edges, [_line("mean", went.batch)], most),
        line_chart("KV cache in use", "% of its tokens", edges, [_line("mean", used)], ("limit", 100.0)),
        line_chart("Time to first token, by arrival", "ms", edges, [_line("median", went.ttft_ms)]),
    ]


def _line(name: str, level: Level) -> Line:
    return Line(name, level.mean, level.peak)


def _slowest(run: Run) -> list[dict[str, str]]:
    """Requests that took longest, figures written out."""
    slowest = request_latencies(run).nlargest(_SLOWEST, "e2e_ns")
    more = ["request_id", "first_scheduled_time_ns", "num_prefill_tokens", "num_preemptions"]
    found = slowest.merge(run.requests[more], on="request_id")
    found["queued_ns"] = ints(found["first_scheduled_time_ns"]) - found["arrival_time_ns"]
    found["arrival_s"] = (found["arrival_time_ns"] - run.requests["arrival_time_ns"].min()) / 1e9
    digits = {name: decimals(found[f"{name}_ns"].median()) for name in ("ttft", "tpot", "e2e")}
    return [
        {
            "id": str(row["request_id"]),
            "arrival": number(row["arrival_s"], 2),
            "prompt": count(row["num_prefill_tokens"]),
            "output": count(row["num_tokens"]),
            "queued": ms(row["queued_ns"], digits["ttft"]),
            **{name: ms(row[f"{name}_ns"], digits[name]) for name in digits},
            "preemptions": count(row["num_preemptions"]),
        }
        for row in found.to_dict("records")
    ]
