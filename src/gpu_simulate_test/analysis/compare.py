"""Pair the requests of the real runs and a simulated one and measure how far apart they are.

An error is simulated - real throughout; a relative error divides by real.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.findings import (
    Finding,
    Pairing,
    find,
    rows_of,
    same_lengths,
    same_requests,
    same_subject,
    why_not_judged,
)
from gpu_simulate_test.analysis.floor import confidence_intervals, floor_of
from gpu_simulate_test.analysis.identity import caveats
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import count
from gpu_simulate_test.analysis.samples import (
    METRICS,
    PER_REQUEST_METRICS,
    STATISTICS,
    Floats,
    Ints,
    Measured,
    empirical_cdf,
    ints,
    measure,
    of_the_same_requests,
    pooled,
)
from gpu_simulate_test.errors import ArtifactError


@dataclass(frozen=True)
class Comparison:
    """What one simulated run says against one real run and its repeats.

    Attributes
    ----------
    percentiles : pandas.DataFrame of shape (n_metrics * 4, 15)
        ``metric``, ``statistic`` (p50, p90, p99, mean), ``real_ns`` (mean over the repeats of each one's statistic),
        ``sim_ns`` (likewise, over the simulations with noise where there are any), ``error_ns``, ``relative_error``,
        ``n_real``, ``n_sim`` (values in one run), ``sim_low_ns`` and ``sim_high_ns`` (95 % of the simulations with
        noise lie between), ``n_repeats``,
        ``floor_ns`` and ``floor`` (relative to real; see `gpu_simulate_test.analysis.floor.floor_of`), ``ci_low``
        and ``ci_high`` (of the relative error). NaN where a metric has no values, where there is one repeat only
        (floor), and for a relative figure against zero.
    per_request : pandas.DataFrame of shape (n_pairs, 18)
        ``request_id``, ``num_prefill_tokens`` and ``num_decode_tokens`` (as asked of the real run),
        ``real_num_decode_tokens_actual``, ``sim_num_decode_tokens_actual``, ``num_tokens_compared``, then
        ``real_<metric>_ns``, ``sim_<metric>_ns``, ``error_<metric>_ns`` for ttft, tpot, e2e and e2e_per_token.
        A real time is the mean over the repeats. The mean TBT of a request is its TPOT.
    real_values, sim_values : dict of str to ndarray of shape (n_values,)
        Every value of each metric in ns, ascending, those that are undefined in some run left out of all; the repeats,
        and the simulations with noise, are pooled.
    real, sim : Measured
        Latencies of the first repeat and of the simulated run, without noise, request by request.
    findings : list of Finding
        What the first repeat and the simulated run say about themselves: `gpu_simulate_test.analysis.findings.find`.
    notes : list of str
        Every caveat a reader has to know, one sentence each.
    unjudged : dict of str to str
        Why a metric has no values, by metric.
    """

    percentiles: pd.DataFrame
    per_request: pd.DataFrame
    real_values: dict[str, Floats]
    sim_values: dict[str, Floats]
    real: Measured
    sim: Measured
    findings: list[Finding]
    notes: list[str]
    unjudged: dict[str, str]

    @property
    def num_repeats(self) -> int:
        """Real runs behind the real figures."""
        return int(self.percentiles["n_repeats"].iloc[0])

    @cached_property
    def cdfs(self) -> dict[str, dict[str, tuple[Floats, Floats]]]:
        """The distribution of each metric, real and sim: ascending values in ns and the share at or below each.

        Samples above 100,000 values are thinned to evenly spaced ranks.
        """
        sides = {"real": self.real_values, "sim": self.sim_values}
        return {side: {metric: empirical_cdf(values[metric]) for metric in METRICS} for side, values in sides.items()}

    def of_metric(self, metric: str) -> pd.DataFrame:
        """Rows of the percentile table of one metric."""
        return self.percentiles[self.percentiles["metric"] == metric]

    def figure(self, metric: str, statistic: str, column: str) -> float:
        """One figure of the percentile table."""
        rows = self.of_metric(metric)
        return float(rows.loc[rows["statistic"] == statistic, column].iloc[0])


def compare(real: Run, sim: Run, *, repeats: Sequence[Run] = (), allow_mismatch: bool = False) -> Comparison:
    """Compare the requests that completed in every run.

    Parameters
    ----------
    real, sim : Run
        The two runs of one workload.
    repeats : sequence of Run
        Further real runs of the same workload.
    allow_mismatch : bool
        Compare although the workload is unknown, or requests, lengths or arrivals differ: on the requests that all
        have, each cut to the first tokens that all made. A note says so. Two different workloads stay refused.

    Returns
    -------
    Comparison

    Raises
    ------
    ArtifactError
        Different or unknown workloads, requests that differ, or no request that completed in every run.
    """
    runs = [real, *repeats]
    ids, notes = _pair(runs, sim, allow_mismatch)
    sim_rows, real_rows = rows_of(sim, ids), [rows_of(one, ids) for one in runs]
    for one, rows in zip(runs, real_rows, strict=True):
        notes += _admit(same_lengths(rows, sim_rows), one, sim, allow_mismatch)
    num_tokens: Ints = reduce(np.minimum, [ints(rows["num_decode_tokens_actual"]) for rows in (*real_rows, sim_rows)])
    for run, rows in zip([*runs, sim], [*real_rows, sim_rows], strict=True):
        if not run.has_tokens and (ints(rows["num_decode_tokens_actual"]) != num_tokens).any():
            raise ArtifactError(f"output lengths differ, and the time of each token is not known: {run.path}")
    usable = [sample for sample in sim.samples if _has_all(sample, ids, num_tokens)]
    if len(usable) < len(sim.samples):
        left_out = count(len(sim.samples) - len(usable), "simulation")
        notes.append(f"Left out: {left_out} with noise, of whose tokens only quantiles over all requests are known.")
    measured = of_the_same_requests(
        [
            *(measure(run.with_tokens(), rows, num_tokens) for run, rows in zip(runs, real_rows, strict=True)),
            measure(sim, sim_rows, num_tokens),
            *(measure(sample, rows_of(sample, ids), num_tokens) for sample in usable),
        ]
    )
    of_real, of_sim = measured[: len(runs)], measured[len(runs)]
    sampled = measured[len(runs) + 1 :] or [of_sim]
    notes += caveats(real, sim, num_tokens)
    return Comparison(
        _percentile_table(of_real, of_sim, sampled),
        _per_request(real_rows[0], sim_rows, of_real, of_sim),
        {name: pooled([one.samples[name].ordered for one in of_real]) for name in METRICS},
        {name: pooled([one.ordered(name) for one in sampled]) for name in METRICS},
        of_real[0],
        of_sim,
        find(real, sim),
        list(dict.fromkeys(notes)),  # what every repeat says is said once
        {name: why_not_judged(name, runs, sim, num_tokens) for name in METRICS if not len(of_sim.samples[name].values)},
    )


def _pair(runs: Sequence[Run], sim: Run, allow: bool) -> tuple[Ints, list[str]]:
    """Ids of the requests that completed in every run, and what has to be known of the others."""
    notes = []
    for one in runs:
        for finding in same_subject(one, sim):
            notes += _admit(finding, one, sim, allow)
    pairings = [same_requests(one, sim) for one in runs]
    for one, pairing in zip(runs, pairings, strict=True):
        for finding in pairing.findings:
            notes += _admit(finding, one, sim, allow)
        notes += _left_out(pairing, one, sim)
    ids: Ints = reduce(np.intersect1d, [pairing.paired for pairing in pairings])
    if not len(ids):
        raise ArtifactError(f"nothing to compare, no request completed in every repeat: {runs[0].path}")
    return ids, notes


def _has_all(sample: Run, ids: Ints, num_tokens: Ints) -> bool:
    """Whether a simulation can be measured on these requests and tokens: all of its own, where it has no more."""
    if sample.tbt_quantiles is None:
        return True
    made = sample.requests["num_decode_tokens_actual"]
    return np.array_equal(sample.requests["request_id"], ids) and np.array_equal(made, num_tokens)


def _admit(finding: Finding, real: Run, sim: Run, allow: bool) -> list[str]:
    """Refuse what does not hold, or note it when the user allowed it; two different workloads stay refused."""
    if finding.holds or (finding.holds is None and finding.name != "workload"):
        return []
    if finding.name == "workload" and finding.holds is False:
        raise ArtifactError(
            f"different workloads: {real.path} ({finding.real}) and {sim.path} ({finding.sim}); "
            "run vidur-sim on the workload of the real run"
        )
    if finding.name == "workload":
        if allow:
            return ["Nothing proves that both runs served the same workload: no hash (allow_mismatch)."]
        unknown = [run.path for run, name in ((real, finding.real), (sim, finding.sim)) if not name]
        raise ArtifactError(
            f"unknown workload: no workload_sha256 in run_meta.json: {' and '.join(map(str, unknown))}; "
            "set allow_mismatch=true to take the two runs for the same workload"
        )
    what = finding.detail
    if finding.grave:  # of a run as a whole
        what = f"different {finding.name}, {finding.real} and {finding.sim}"
    if not allow:
        raise ArtifactError(
            f"{what}: {real.path} and {sim.path}; run vidur-sim with real_run_dir={real.path}, or set "
            "allow_mismatch=true"
        )
    return [f"{what[0].upper()}{what[1:]}; {finding.otherwise} (allow_mismatch)."]


def _left_out(pairing: Pairing, real: Run, sim: Run) -> list[str]:
    """Refuse a pair of runs that share no request which completed; note those which did not."""
    if not len(pairing.paired):
        raise ArtifactError(
            f"nothing to compare, no request completed in both runs: {real.path} and {sim.path}; "
            "look at error_msg in their tables of requests"
        )
    if len(pairing.paired) == len(pairing.common):
        return []
    n, of_real, of_sim = len(pairing.common) - len(pairing.paired), *pairing.failed
    return [
        f"Left out: {count(n)} of {count(len(pairing.common), 'request')}, which failed "
        f"({count(of_real)} in the real run, {count(of_sim)} in the simulated run)."
    ]


def _percentile_table(real: list[Measured], sim: Measured, sampled: list[Measured]) -> pd.DataFrame:
    rows = {}
    for metric in METRICS:
        per_repeat = np.array([one.statistics(metric) for one in real])
        per_sample = np.array([one.statistics(metric) for one in sampled])
        of_real, of_sim, floor = per_repeat.mean(axis=0), per_sample.mean(axis=0), floor_of(per_repeat)
        rows[metric] = pd.DataFrame(
            {
                "metric": metric,
                "statistic": STATISTICS,
                "real_ns": of_real,
                "sim_ns": of_sim,
                "error_ns": of_sim - of_real,
                "relative_error": _ratio(of_sim - of_real, of_real),
                "n_real": len(real[0].samples[metric].values),
                "n_sim": len(sim.samples[metric].values),
                "sim_low_ns": np.quantile(per_sample, 0.025, axis=0) if len(sampled) > 1 else np.nan,
                "sim_high_ns": np.quantile(per_sample, 0.975, axis=0) if len(sampled) > 1 else np.nan,
                "n_repeats": len(real),
                "floor_ns": floor,
                "floor": _ratio(floor, of_real),
            }
        )
    intervals = confidence_intervals(
        [one.samples for one in real],
        sampled[0].samples if sampled[0].tbt_quantiles is None else sampled[0].samples | {"tbt": sim.samples["tbt"]},
        ints(real[0].latencies["arrival_time_ns"]),
        {metric: rows[metric]["relative_error"].to_numpy() for metric in METRICS},
    )
    for metric, (low, high) in intervals.items():
        rows[metric] = rows[metric].assign(ci_low=low, ci_high=high)
    return pd.concat(list(rows.values()), ignore_index=True)


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
    return ratio


def _per_request(real_rows: pd.DataFrame, sim_rows: pd.DataFrame, real: list[Measured], sim: Measured) -> pd.DataFrame:
    columns = {
        "request_id": sim.latencies["request_id"],
        "num_prefill_tokens": ints(real_rows["num_prefill_tokens"]),
        "num_decode_tokens": ints(real_rows["num_decode_tokens"]),
        "real_num_decode_tokens_actual": ints(real_rows["num_decode_tokens_actual"]),
        "sim_num_decode_tokens_actual": ints(sim_rows["num_decode_tokens_actual"]),
        "num_tokens_compared": sim.latencies["num_tokens"],
    }
    for name in PER_REQUEST_METRICS:
        of_sim, of_real = sim.latencies[f"{name}_ns"], [one.latencies[f"{name}_ns"] for one in real]
        # One run stays in whole nanoseconds.
        mean = of_real[0] if len(of_real) == 1 else sum(of_real[1:], of_real[0]) / len(of_real)
        error = of_sim - mean
        known = error.notna()
        columns[f"real_{name}_ns"] = mean.where(known)
        columns[f"sim_{name}_ns"] = of_sim.where(known)
        columns[f"error_{name}_ns"] = error
    return pd.DataFrame(columns)
