"""Pair the requests of a real and a simulated run and measure how far apart they are.

An error is simulated - real throughout; a relative error divides by real.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.analysis.load_metrics import Run, is_ok
from gpu_simulate_test.errors import ArtifactError

METRICS = ("ttft", "tbt", "tpot", "e2e", "e2e_per_token")
PER_REQUEST_METRICS = ("ttft", "tpot", "e2e", "e2e_per_token")
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
# Both runs take arrivals from the workload; a simulator that keeps seconds as floats may round them.
_ARRIVAL_TOLERANCE_NS = 1_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """What one simulated run says against one real run.

    Attributes
    ----------
    percentiles : pandas.DataFrame of shape (n_metrics * 4, 8)
        ``metric``, ``statistic`` (p50, p90, p99, mean), ``real_ns``, ``sim_ns``, ``error_ns``,
        ``relative_error``, ``n_real``, ``n_sim``. NaN where a metric has no values, and for a relative error
        against zero.
    per_request : pandas.DataFrame of shape (n_pairs, 18)
        ``request_id``, ``num_prefill_tokens`` and ``num_decode_tokens`` (as asked of the real run),
        ``real_num_decode_tokens_actual``, ``sim_num_decode_tokens_actual``, ``num_tokens_compared``, then
        ``real_<metric>_ns``, ``sim_<metric>_ns``, ``error_<metric>_ns`` for ttft, tpot, e2e and e2e_per_token.
        The mean TBT of a request is its TPOT.
    real_values, sim_values : dict of str to ndarray of shape (n_values,)
        Every value of each metric in ns, those that are undefined left out.
    notes : list of str
        Every caveat a reader has to know, one sentence each.
    """

    percentiles: pd.DataFrame
    per_request: pd.DataFrame
    real_values: dict[str, Floats]
    sim_values: dict[str, Floats]
    notes: list[str]


def request_latencies(run: Run) -> pd.DataFrame:
    """Latencies of each request that completed.

    Returns
    -------
    pandas.DataFrame of shape (n_ok, 6)
        ``request_id``, ``num_tokens`` (output tokens made), ``ttft_ns``, ``tpot_ns`` (NaN for one token), ``e2e_ns``
        and ``e2e_per_token_ns``.
    """
    done = run.requests[is_ok(run.requests)]
    return _latencies(done, _ints(done["num_decode_tokens_actual"]), _ints(done["completion_time_ns"]))


def empirical_cdf(values: Floats, max_points: int = 2000) -> tuple[Floats, Floats]:
    """Sorted values and the fraction of all values at or below each.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
    max_points : int
        A longer sample is thinned to evenly spaced ranks, its extremes kept; every point stays exact.

    Returns
    -------
    x, fraction : ndarray of shape (min(n_values, max_points),)
    """
    ordered = np.sort(values)
    n = len(ordered)
    ranks = np.arange(n) if n <= max_points else np.linspace(0, n - 1, max_points).round().astype(np.int64)
    return ordered[ranks], (ranks + 1.0) / max(n, 1)


def compare(real: Run, sim: Run, *, allow_mismatch: bool = False) -> Comparison:
    """Compare the requests that completed in both runs.

    Parameters
    ----------
    real, sim : Run
        The two runs of one workload.
    allow_mismatch : bool
        Compare although the workload is unknown, or requests, lengths or arrivals differ: on the requests that both
        have, each cut to the first tokens that both made. A note says so. Two different workloads stay refused.

    Returns
    -------
    Comparison

    Raises
    ------
    ArtifactError
        Different or unknown workloads, requests that differ, or no request that completed in both.
    """
    rules = _Rules(real, sim, allow_mismatch)
    rules.check_workload()
    rules.check_subject()
    ids = _paired_ids(rules)
    real_rows, sim_rows = _rows(real, ids), _rows(sim, ids)
    num_tokens = _common_tokens(rules, real_rows, sim_rows)
    real_latencies, real_tbt = _measure(real, real_rows, num_tokens)
    sim_latencies, sim_tbt = _measure(sim, sim_rows, num_tokens)
    for run, side in ((real, "real"), (sim, "simulated")):
        if run.missing:
            rules.notes.append(f"Not known of the {side} run: {', '.join(run.missing)}.")
    if single := int((num_tokens == 1).sum()):
        rules.notes.append(f"TPOT is undefined for {_count(single, 'request')} with one output token.")
    real_values = _values(real_latencies, real_tbt)
    sim_values = _values(sim_latencies, sim_tbt)
    return Comparison(
        _percentile_table(real_values, sim_values),
        _per_request(real_rows, sim_rows, real_latencies, sim_latencies),
        real_values,
        sim_values,
        rules.notes,
    )


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
        for name, keys in (("model", ("model",)), ("hardware", ("params", "hardware", "name"))):
            values = [_dig(run.meta, keys) for run in (self.real, self.sim)]
            if None not in values and values[0] != values[1]:
                self.mismatch(f"different {name}, {values[0]} and {values[1]}", "compared all the same")

    def mismatch(self, what: str, consequence: str) -> None:
        """Refuse `what`, or note it with its `consequence`."""
        if not self.allow:
            raise ArtifactError(
                f"{what}: {self.real.path} and {self.sim.path}; run vidur-sim with "
                f"real_run_dir={self.real.path}, or set allow_mismatch=true"
            )
        self.notes.append(f"{what[0].upper()}{what[1:]}; {consequence} (allow_mismatch).")


def _dig(meta: Any, keys: tuple[str, ...]) -> Any:
    """Look up a nested entry, None where a level is missing."""
    for key in keys:
        meta = meta.get(key) if isinstance(meta, dict) else None
    return meta


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
        _check_equal(rules, name, _ints(real_rows[column]), _ints(sim_rows[column]), common, "compared all the same")
    if len(common):
        _check_arrivals(rules, _ints(real_rows["arrival_time_ns"]), _ints(sim_rows["arrival_time_ns"]))
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
    made = [_ints(rows["num_decode_tokens_actual"]) for rows in (real_rows, sim_rows)]
    ids = _ints(real_rows["request_id"])
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


def _measure(run: Run, rows: pd.DataFrame, num_tokens: Ints) -> tuple[pd.DataFrame, Floats]:
    """Latencies and TBT values of `rows`, as if each request had ended after `num_tokens` tokens."""
    ids = _ints(rows["request_id"])
    token_ids, index = _ints(run.tokens["request_id"]), _ints(run.tokens["token_index"])
    position = np.minimum(np.searchsorted(ids, token_ids), len(ids) - 1)
    limit = np.where(ids[position] == token_ids, num_tokens[position], 0)
    # Tokens are in request order, as the ids are: one last token each, in the same order.
    completion = _ints(run.tokens["token_time_ns"])[index == limit - 1]
    between = (index > 0) & (index < limit)
    tbt = run.tokens["token_latency_ns"].to_numpy(dtype=np.float64, na_value=np.nan)[between]
    return _latencies(rows, num_tokens, completion), tbt


def _latencies(rows: pd.DataFrame, num_tokens: Ints, completion: Ints) -> pd.DataFrame:
    first, arrival = _ints(rows["first_token_time_ns"]), _ints(rows["arrival_time_ns"])
    # A request of one token has no time between tokens.
    intervals = np.where(num_tokens > 1, num_tokens - 1, np.nan)
    return pd.DataFrame(
        {
            "request_id": _ints(rows["request_id"]),
            "num_tokens": num_tokens,
            "ttft_ns": first - arrival,
            "tpot_ns": (completion - first) / intervals,
            "e2e_ns": completion - arrival,
            "e2e_per_token_ns": (completion - arrival) / num_tokens,
        }
    )


def _values(latencies: pd.DataFrame, tbt: Floats) -> dict[str, Floats]:
    values = {name: latencies[f"{name}_ns"].to_numpy(dtype=np.float64) for name in PER_REQUEST_METRICS}
    values["tbt"] = tbt
    return {name: values[name][~np.isnan(values[name])] for name in METRICS}


def _percentile_table(real: dict[str, Floats], sim: dict[str, Floats]) -> pd.DataFrame:
    rows = []
    for metric in METRICS:
        of_real, of_sim = _statistics(real[metric]), _statistics(sim[metric])
        for name, real_ns in of_real.items():
            error = of_sim[name] - real_ns
            relative = error / real_ns if real_ns else float("nan")
            counts = len(real[metric]), len(sim[metric])
            rows.append((metric, name, real_ns, of_sim[name], error, relative, *counts))
    columns = ["metric", "statistic", "real_ns", "sim_ns", "error_ns", "relative_error", "n_real", "n_sim"]
    return pd.DataFrame(rows, columns=columns)


def _statistics(values: Floats) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys([*PERCENTILES, "mean"], float("nan"))
    found = np.percentile(values, list(PERCENTILES.values()), method="linear")
    return {**dict(zip(PERCENTILES, map(float, found), strict=True)), "mean": float(values.mean())}


def _per_request(
    real_rows: pd.DataFrame, sim_rows: pd.DataFrame, real: pd.DataFrame, sim: pd.DataFrame
) -> pd.DataFrame:
    columns = {
        "request_id": real["request_id"],
        "num_prefill_tokens": _ints(real_rows["num_prefill_tokens"]),
        "num_decode_tokens": _ints(real_rows["num_decode_tokens"]),
        "real_num_decode_tokens_actual": _ints(real_rows["num_decode_tokens_actual"]),
        "sim_num_decode_tokens_actual": _ints(sim_rows["num_decode_tokens_actual"]),
        "num_tokens_compared": real["num_tokens"],
    }
    for name in PER_REQUEST_METRICS:
        columns[f"real_{name}_ns"] = real[f"{name}_ns"]
        columns[f"sim_{name}_ns"] = sim[f"{name}_ns"]
        columns[f"error_{name}_ns"] = sim[f"{name}_ns"] - real[f"{name}_ns"]
    return pd.DataFrame(columns)


def _rows(run: Run, ids: Ints) -> pd.DataFrame:
    """Request rows with the ascending `ids`, all of which the run has."""
    return run.requests[run.requests["request_id"].isin(ids)]


def _ints(column: "pd.Series[int]") -> Ints:
    return np.asarray(column, dtype=np.int64)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
