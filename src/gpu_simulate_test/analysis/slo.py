"""Throughput, and service-level objectives: how many requests meet them, in reality and in the simulation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.floor import side_by_side
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import between, number, percent, points, short
from gpu_simulate_test.analysis.samples import Floats, request_latencies
from gpu_simulate_test.analysis.verdict import NOT_JUDGED
from gpu_simulate_test.config.schema import SloConfig

ALL = "all"  # the objectives together
_NAMES = {"ttft": "TTFT", "tbt": "Mean TBT", "e2e": "E2E", ALL: "All of them"}
ATTAINMENT, GOODPUT = "attainment", "goodput_per_s"


def service_levels(repeats: Sequence[Run], sim: Run, slo: SloConfig) -> pd.DataFrame:
    """Attainment and goodput under `slo`, real against simulated.

    A request meets an objective when its latency is at most the limit. Its TBT is the mean time between its tokens,
    (completion - first token) / (tokens - 1), by which goodput has been judged since DistServe (Zhong et al., OSDI
    2024, TPOT there) and is in vLLM's ``bench serve --goodput``; a request of one token has none and meets it. A
    request that failed meets nothing. Where a latency that an objective limits was not recorded of some request that
    completed, how many meet it is not known.

    Parameters
    ----------
    repeats : sequence of Run
        The real runs.
    sim : Run
        With its simulations with noise, if any: then their figures count and not its own.
    slo : SloConfig

    Returns
    -------
    pandas.DataFrame of shape (2 * (n_objectives + 1), 13), or of no rows without an objective
        ``objective`` (ttft, tbt, e2e; all: every one at once), ``limit_ms`` (NaN of all), ``statistic`` (attainment:
        share of the requests of the run, failed ones included; goodput_per_s: those that meet it, for each second from
        the first arrival to the last completion), ``real`` (mean over the repeats), ``sim`` (mean over the simulations
        with noise), ``error``, ``relative_error``, ``n_real``, ``n_sim`` (requests of one run), ``sim_low``,
        ``sim_high`` (95 % of the simulations with noise lie between), ``n_repeats``, ``floor`` (half-width, see
        `gpu_simulate_test.analysis.floor.floor_of`). A figure that is not known is NaN.
    """
    limits = objectives(slo)
    if not limits:
        return pd.DataFrame()
    per_repeat = np.array([levels(run, limits) for run in repeats])
    per_sample = np.array([levels(run, limits) for run in sim.samples or [sim]])
    names = [*limits, ALL]
    return pd.DataFrame(
        {
            "objective": np.repeat(names, 2),
            "limit_ms": np.repeat([*limits.values(), np.nan], 2),
            "statistic": [ATTAINMENT, GOODPUT] * len(names),
            "n_real": len(repeats[0].requests),
            "n_sim": len(sim.requests),
            **side_by_side(per_repeat, per_sample),
        }
    )


def objectives(slo: SloConfig) -> dict[str, float]:
    """The limits that are set, ms, by objective."""
    limits = {name: getattr(slo, f"{name}_ms") for name in _NAMES if name != ALL}
    return {name: limit for name, limit in limits.items() if limit is not None}


def levels(run: Run, limits: dict[str, float]) -> Floats:
    """How well one run meets `objectives`; definitions as of `service_levels`.

    Returns
    -------
    ndarray of shape (2 * (n_objectives + 1),)
        Attainment and goodput (requests/s) of each objective and, last, of all at once.
    """
    done = request_latencies(run)
    tpot = done["tpot_ns"].mask(done["num_tokens"] == 1, 0)
    latencies = {"ttft": done["ttft_ns"], "tbt": tpot, "e2e": done["e2e_ns"]}
    met = np.array([latencies[name] <= limit * 1e6 for name, limit in limits.items()])
    known = np.array([latencies[name].notna().all() for name in limits])
    attained = np.append(met.sum(axis=1), met.all(axis=0).sum()).astype(np.float64)
    attained[~np.append(known, known.all())] = np.nan
    return np.column_stack([attained / len(run.requests), attained / duration_s(run)]).ravel()


def duration_s(run: Run) -> float:
    """Seconds from the first arrival to the last completion; NaN where no request completed."""
    last = run.requests["completion_time_ns"].max()
    return float("nan") if pd.isna(last) else float(last - run.requests["arrival_time_ns"].min()) / 1e9


def throughput(repeats: Sequence[Run], sim: Run) -> pd.DataFrame:
    """Requests and output tokens a second, real against simulated.

    Returns
    -------
    pandas.DataFrame of shape (2, 9)
        ``statistic`` (requests_per_s: those that completed, for each second from the first arrival to the last
        completion; output_tokens_per_s: the tokens that they made), and as of `service_levels` ``real``, ``sim``,
        ``error``, ``relative_error``, ``sim_low``, ``sim_high``, ``n_repeats``, ``floor``.
    """
    per_repeat, per_sample = (
        np.array([throughput_of(run) for run in runs]) for runs in (repeats, sim.samples or [sim])
    )
    return pd.DataFrame(
        {"statistic": ["requests_per_s", "output_tokens_per_s"], **side_by_side(per_repeat, per_sample)}
    )


def throughput_of(run: Run) -> tuple[float, float]:
    """Requests/s and output tokens/s of those that completed, see `throughput`; NaN where they took no time."""
    done, took_s = run.requests[is_ok(run.requests)], duration_s(run)
    tokens = int(done["num_decode_tokens_actual"].sum())
    return (len(done) / took_s, tokens / took_s) if took_s else (float("nan"), float("nan"))


def written_throughput(table: pd.DataFrame) -> list[dict[str, str]]:
    """Figures of `throughput` as both reports show them."""
    names = {"requests_per_s": "requests/s", "output_tokens_per_s": "output tokens/s"}
    return [
        {
            "statistic": names[row["statistic"]],
            "sim_range": between(number(row["sim_low"], 3), number(row["sim_high"], 3)),
            "error": number(row["error"], 3, sign=True),
            "relative": percent(row["relative_error"], sign=True),
            **{name: number(row[name], 3) for name in ("real", "sim", "floor")},
        }
        for row in table.to_dict("records")
    ]


def written(levels: pd.DataFrame) -> list[dict[str, Any]]:
    """Figures of `service_levels` as both reports show them, by objective; one alone is not repeated as all."""
    groups: list[dict[str, Any]] = []
    for row in levels.to_dict("records"):
        together, share = row["objective"] == ALL, row["statistic"] == ATTAINMENT
        if together and len(levels) == 4:
            break
        if share:
            limit = None if together else row["limit_ms"]
            groups.append({"title": title_of(row["objective"], limit), "rows": []})
        low, high = (_figure(row[key], share) for key in ("sim_low", "sim_high"))
        groups[-1]["rows"].append(
            {
                "statistic": "attainment" if share else "goodput, requests/s",
                "real": _figure(row["real"], share) or "not recorded",
                "sim": _figure(row["sim"], share) or "not recorded",
                "sim_range": between(low, high),
                "error": _distance(row["error"], share, sign=True) or NOT_JUDGED,
                "relative": percent(row["relative_error"], sign=True),
                "floor": _distance(row["floor"], share),
            }
        )
    return groups


def title_of(objective: str, limit_ms: float | None) -> str:
    """An objective in words, as ``TTFT at most 20 ms``; all of them have no limit."""
    return _NAMES[objective] + ("" if limit_ms is None else f" at most {short(limit_ms)} ms")


def _figure(value: float, share: bool) -> str:
    return percent(value) if share else number(value, 3)


def _distance(value: float, share: bool, *, sign: bool = False) -> str:
    return points(value, sign=sign) if share else number(value, 3, sign=sign)
