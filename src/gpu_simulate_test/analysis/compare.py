"""Pair the requests of the real runs and a simulated one and measure how far apart they are.

An error is simulated - real throughout; a relative error divides by real.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.floor import confidence_intervals, floor_of
from gpu_simulate_test.analysis.identity import HARDWARE, look_up
from gpu_simulate_test.analysis.load_metrics import Run, is_ok
from gpu_simulate_test.analysis.samples import (
    METRICS,
    PER_REQUEST_METRICS,
    STATISTICS,
    Floats,
    Ints,
    Measured,
    ints,
    measure,
    of_the_same_requests,
    statistics,
)
from gpu_simulate_test.errors import ArtifactError

# Both runs take arrivals from the workload; a simulator that keeps seconds as floats may round them.
_ARRIVAL_TOLERANCE_NS = 1_000


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
        Every value of each metric in ns, those that are undefined in some run left out of all; the repeats, and the
        simulations with noise, are pooled.
    real, sim : Measured
        Latencies of the first repeat and of the simulated run, without noise, request by request.
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
    notes: list[str]
    unjudged: dict[str, str]

    @property
    def num_repeats(self) -> int:
        """Real runs behind the real figures."""
        return int(self.percentiles["n_repeats"].iloc[0])


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
    all_rules = [_Rules(one, sim, allow_mismatch) for one in runs]
    for rules in all_rules:
        rules.check_workload()
        rules.check_subject()
    ids: Ints = reduce(np.intersect1d, [_paired_ids(rules) for rules in all_rules])
    if not len(ids):
        raise ArtifactError(f"nothing to compare, no request completed in every repeat: {real.path}")
    sim_rows, real_rows = _rows(sim, ids), [_rows(one, ids) for one in runs]
    num_tokens: Ints = reduce(
        np.minimum, [_common_tokens(rules, rows, sim_rows) for rules, rows in zip(all_rules, real_rows, strict=True)]
    )
    for run, rows in zip([*runs, sim], [*real_rows, sim_rows], strict=True):
        if run.tokens.empty and (ints(rows["num_decode_tokens_actual"]) != num_tokens).any():
            raise ArtifactError(f"output lengths differ, and the time of each token is not known: {run.path}")
    measured = of_the_same_requests(
        [
            *(measure(run, rows, num_tokens) for run, rows in zip(runs, real_rows, strict=True)),
            measure(sim, sim_rows, num_tokens),
            *(measure(sample, _rows(sample, ids), num_tokens) for sample in sim.samples),
        ]
    )
    of_real, of_sim = measured[: len(runs)], measured[len(runs)]
    sampled = measured[len(runs) + 1 :] or [of_sim]
    notes = [note for rules in all_rules for note in rules.notes]
    for run, side in ((real, "real"), (sim, "simulated")):
        if run.missing:
            notes.append(f"Not known of the {side} run: {', '.join(run.missing)}.")
    if single := int((num_tokens == 1).sum()):
        notes.append(f"TPOT is undefined for {_count(single, 'request')} with one output token.")
    return Comparison(
        _percentile_table(of_real, sampled),
        _per_request(real_rows[0], sim_rows, of_real, of_sim),
        {name: np.concatenate([one.samples[name].values for one in of_real]) for name in METRICS},
        {name: np.concatenate([one.samples[name].values for one in sampled]) for name in METRICS},
        of_real[0],
        of_sim,
        list(dict.fromkeys(notes)),  # what every repeat says is said once
        {name: _why_not(name, runs, sim, num_tokens) for name in METRICS if not len(of_sim.samples[name].values)},
    )


def _why_not(metric: str, runs: Sequence[Run], sim: Run, num_tokens: Ints) -> str:
    """Why no compared request has the metric in every run."""
    if metric != "ttft" and (num_tokens == 1).all():
        return "every request made one token"

    def lacks(run: Run) -> bool:
        return run.tokens.empty if metric == "tbt" else bool(run.requests["first_token_time_ns"].isna().all())

    of_real, of_sim = any(map(lacks, runs)), lacks(sim)
    if not (of_real or of_sim):
        return "no request has it in every run"
    who = (
        "neither run recorded" if of_real and of_sim else f"the {'real' if of_real else 'simulated'} run did not record"
    )
    return f"{who} {'the times of tokens' if metric == 'tbt' else 'first tokens, as when answers are not streamed'}"


@dataclass(frozen=True)
class _Rules:
    """What makes two runs comparable; a broken rule is refused, or noted when the user allowed it."""

    real: Run
    sim: Run
    allow: bool
    notes: list[str] = field(default_factory=list)

    def check_workload(self) -> None:
        """Both runs name the same workload."""
        hashes = [run.meta.get("workload_sha256") for run in (self.real, self.sim)]
        unknown = [run.path for run, digest in zip((self.real, self.sim), hashes, strict=True) if not digest]
        if unknown and not self.allow:
            raise ArtifactError(
                f"unknown workload: no workload_sha256 in run_meta.json: {' and '.join(map(str, unknown))}; "
                "set allow_mismatch=true to take the two runs for the same workload"
            )
        if unknown:
            self.notes.append("Nothing proves that both runs served the same workload: no hash (allow_mismatch).")
        elif hashes[0] != hashes[1]:
            raise ArtifactError(
                f"different workloads: {self.real.path} ({str(hashes[0])[:12]}) and {self.sim.path} "
                f"({str(hashes[1])[:12]}); run vidur-sim on the workload of the real run"
            )

    def check_subject(self) -> None:
        """Both runs are of the same model on the same hardware, as far as they say."""
        for name, keys in (("model", ("model",)), ("hardware", HARDWARE)):
            values = [look_up(run.meta, *keys) for run in (self.real, self.sim)]
            if all(values) and values[0] != values[1]:
                self.mismatch(f"different {name}, {values[0]} and {values[1]}", "compared all the same")

    def mismatch(self, what: str, consequence: str) -> None:
        """Refuse `what`, or note it with its `consequence`."""
        if not self.allow:
            raise ArtifactError(
                f"{what}: {self.real.path} and {self.sim.path}; run vidur-sim with "
                f"real_run_dir={self.real.path}, or set allow_mismatch=true"
            )
        self.notes.append(f"{what[0].upper()}{what[1:]}; {consequence} (allow_mismatch).")


def _paired_ids(rules: _Rules) -> Ints:
    """Ids, ascending, of the requests that completed on both sides and may be compared."""
    real, sim = rules.real.requests, rules.sim.requests
    alone = np.setxor1d(real["request_id"], sim["request_id"])
    if len(alone):
        owner = "real" if np.isin(alone[0], real["request_id"]) else "simulated"
        rules.mismatch(
            f"{_count(len(alone), 'request')} in only one of the runs, the first being request {alone[0]} "
            f"of the {owner} run",
            "left out",
        )
    common = np.intersect1d(real["request_id"], sim["request_id"])
    real_rows, sim_rows = _rows(rules.real, common), _rows(rules.sim, common)
    for column, name in (("num_prefill_tokens", "prompt lengths"), ("num_decode_tokens", "asked output lengths")):
        _check_equal(rules, name, ints(real_rows[column]), ints(sim_rows[column]), common, "compared all the same")
    if len(common):
        _check_arrivals(rules, ints(real_rows["arrival_time_ns"]), ints(sim_rows["arrival_time_ns"]))
    real_ok, sim_ok = is_ok(real_rows), is_ok(sim_rows)
    paired: Ints = common[real_ok & sim_ok]
    if not len(paired):
        raise ArtifactError(
            f"nothing to compare, no request completed in both runs: {rules.real.path} and {rules.sim.path}; "
            "look at error_msg in their request_metrics.csv"
        )
    if len(paired) < len(common):
        rules.notes.append(
            f"Left out: {len(common) - len(paired)} of {_count(len(common), 'request')}, which failed "
            f"({int((~real_ok).sum())} in the real run, {int((~sim_ok).sum())} in the simulated run)."
        )
    return paired


def _common_tokens(rules: _Rules, real_rows: pd.DataFrame, sim_rows: pd.DataFrame) -> Ints:
    """Find how many tokens of each pair to compare, of shape (n_pairs,)."""
    made = [ints(rows["num_decode_tokens_actual"]) for rows in (real_rows, sim_rows)]
    ids = ints(real_rows["request_id"])
    _check_equal(rules, "output tokens made", made[0], made[1], ids, "each pair is cut to the tokens that both made")
    return np.minimum(made[0], made[1])


def _check_equal(rules: _Rules, name: str, real: Ints, sim: Ints, ids: Ints, consequence: str) -> None:
    differs = np.flatnonzero(real != sim)
    if len(differs):
        first = differs[0]
        rules.mismatch(
            f"{name} differ in {len(differs)} of {_count(len(ids), 'request')}, the first being request {ids[first]} "
            f"({real[first]} real, {sim[first]} simulated)",
            consequence,
        )


def _check_arrivals(rules: _Rules, real: Ints, sim: Ints) -> None:
    """Compare arrival schedules, wherever each run puts its zero."""
    apart = np.abs((real - real[0]) - (sim - sim[0])).max()
    if apart > _ARRIVAL_TOLERANCE_NS:
        rules.mismatch(f"arrival schedules are up to {apart / 1e6:.3f} ms apart", "compared all the same")


def _percentile_table(real: list[Measured], sim: list[Measured]) -> pd.DataFrame:
    rows = {}
    for metric in METRICS:
        per_repeat = np.array([statistics(one.samples[metric].values) for one in real])
        per_sample = np.array([statistics(one.samples[metric].values) for one in sim])
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
                "n_sim": len(sim[0].samples[metric].values),
                "sim_low_ns": np.quantile(per_sample, 0.025, axis=0) if len(sim) > 1 else np.nan,
                "sim_high_ns": np.quantile(per_sample, 0.975, axis=0) if len(sim) > 1 else np.nan,
                "n_repeats": len(real),
                "floor_ns": floor,
                "floor": _ratio(floor, of_real),
            }
        )
    intervals = confidence_intervals(
        [one.samples for one in real],
        sim[0].samples,
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


def _rows(run: Run, ids: Ints) -> pd.DataFrame:
    """Request rows with the ascending `ids`, all of which the run has."""
    return run.requests[run.requests["request_id"].isin(ids)]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
