"""Latencies of requests and tokens, and the statistics taken of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.load_metrics import Run

METRICS = ("ttft", "tbt", "tpot", "e2e", "e2e_per_token")
PER_REQUEST_METRICS = ("ttft", "tpot", "e2e", "e2e_per_token")
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
STATISTICS = (*PERCENTILES, "mean")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Values of one metric in one run.

    Attributes
    ----------
    values : ndarray of shape (n_values,)
        In ns, those that are undefined left out.
    owner : ndarray of shape (n_values,)
        Position of the request each value belongs to, among the compared requests by ascending id.
    """

    values: Floats
    owner: npt.NDArray[np.integer[Any]]

    @cached_property
    def ordered(self) -> Floats:
        """The values, ascending: sorted once for percentiles and CDFs."""
        return np.sort(self.values)

    def statistics(self) -> Floats:
        """P50, P90, P99 (linear interpolation) and mean, in the order of `STATISTICS`; NaN of no values."""
        if not len(self.values):
            return np.full(len(STATISTICS), np.nan)
        return np.append(np.percentile(self.ordered, list(PERCENTILES.values()), method="linear"), self.values.mean())


@dataclass(frozen=True)
class Measured:
    """One run, cut to the tokens that are compared.

    Attributes
    ----------
    latencies : pandas.DataFrame of shape (n_requests, 8)
        See `request_latencies`.
    samples : dict of str to Sample
        One a metric; of TBT without values where only its quantiles are known.
    tbt_quantiles : ndarray of shape (1001,) or (0,), optional
        See `gpu_simulate_test.analysis.load_metrics.Run`.
    """

    latencies: pd.DataFrame
    samples: dict[str, Sample]
    tbt_quantiles: Floats | None = None

    def ordered(self, metric: str) -> Floats:
        """What stands for the distribution of a metric, ns, ascending: its values, or quantiles at even levels."""
        quantiles = self.tbt_quantiles if metric == "tbt" else None
        return self.samples[metric].ordered if quantiles is None else quantiles

    def statistics(self, metric: str) -> Floats:
        """Of shape (n_statistics,); the mean of a TBT of which only quantiles are known follows from the requests."""
        if metric != "tbt" or self.tbt_quantiles is None:
            return self.samples[metric].statistics()
        found = Sample(self.tbt_quantiles, np.empty(0, dtype=np.int64)).statistics()
        if len(self.tbt_quantiles):
            between = self.latencies["e2e_ns"] - self.latencies["ttft_ns"]
            found[-1] = between.sum() / (self.latencies["num_tokens"] - 1).sum()
        return found


def request_latencies(run: Run) -> pd.DataFrame:
    """Latencies of each request that completed.

    Returns
    -------
    pandas.DataFrame of shape (n_ok, 8)
        ``request_id``, ``num_tokens`` (output tokens made), ``arrival_time_ns``, ``completion_time_ns`` (of the last
        token counted), ``ttft_ns``, ``tpot_ns`` (NaN for one token), ``e2e_ns`` and ``e2e_per_token_ns``. The first
        two are NaN where the time of the first token was not recorded.
    """
    done = run.requests[is_ok(run.requests)]
    return _latencies(done, ints(done["num_decode_tokens_actual"]), ints(done["completion_time_ns"]))


def measure(run: Run, rows: pd.DataFrame, num_tokens: Ints) -> Measured:
    """Measure the requests in `rows` as if each had ended after `num_tokens` tokens.

    Parameters
    ----------
    rows : pandas.DataFrame of shape (n_requests, n_columns)
        Rows of `run.requests`, by ascending id.
    num_tokens : ndarray of shape (n_requests,)
        At most what each request made; exactly that where the run did not record the time of each token.
    """
    ids = ints(rows["request_id"])
    if not run.has_tokens:
        completion, tbt = ints(rows["completion_time_ns"]), Sample(np.empty(0), np.empty(0, dtype=np.int64))
    else:
        # Tokens are in request order, as the ids are.
        owners, starts, counts = token_groups(run, ids)
        limit = np.zeros(len(owners), dtype=np.int64)
        limit[owners >= 0] = num_tokens[owners[owners >= 0]]
        completion = ints(run.tokens["token_time_ns"])[(starts + limit - 1)[owners >= 0]]
        between = np.ones(len(run.tokens), dtype=bool)
        if (limit != counts).any():
            between = run.tokens["token_index"].to_numpy() < np.repeat(limit.astype(np.int32), counts)
        between[starts] = False
        gaps = run.tokens["token_latency_ns"].to_numpy()[between]
        tbt = Sample(gaps, np.repeat(owners.astype(np.int32), np.maximum(limit - 1, 0)))
    latencies = _latencies(rows, num_tokens, completion)
    samples = {}
    for name in PER_REQUEST_METRICS:
        values = latencies[f"{name}_ns"].to_numpy(dtype=np.float64)
        known = np.flatnonzero(~np.isnan(values))
        samples[name] = Sample(values[known], known)
    named = {name: tbt if name == "tbt" else samples[name] for name in METRICS}
    return Measured(latencies, named, run.tbt_quantiles)


def token_groups(run: Run, ids: Ints) -> tuple[Ints, Ints, Ints]:
    """Where the tokens of each request are.

    Parameters
    ----------
    ids : ndarray of shape (n_requests,)
        Ascending ids of the requests that count.

    Returns
    -------
    owners, starts, counts : ndarray of shape (n_groups,)
        Of each request that has tokens: its position among `ids`, -1 where it does not count, its first row in
        `run.tokens` and its number of rows.
    """
    token_ids = run.tokens["request_id"].to_numpy()
    starts = np.append(0, np.flatnonzero(token_ids[1:] != token_ids[:-1]) + 1)
    found = ints(token_ids[starts])
    owners = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
    return np.where(ids[owners] == found, owners, -1), starts, np.diff(starts, append=len(token_ids))


def _latencies(rows: pd.DataFrame, num_tokens: Ints, completion: Ints) -> pd.DataFrame:
    arrival = ints(rows["arrival_time_ns"])
    ttft, e2e = rows["first_token_time_ns"] - rows["arrival_time_ns"], completion - arrival
    # A duration is small enough for a float, a time may not be.
    since_arrival = ttft.to_numpy(dtype=np.float64, na_value=np.nan) if ttft.isna().any() else ints(ttft)
    # A request of one token has no time between tokens.
    intervals = np.where(num_tokens > 1, num_tokens - 1, np.nan)
    return pd.DataFrame(
        {
            "request_id": ints(rows["request_id"]),
            "num_tokens": num_tokens,
            "arrival_time_ns": arrival,
            "completion_time_ns": completion,
            "ttft_ns": since_arrival,
            "tpot_ns": (e2e - since_arrival) / intervals,
            "e2e_ns": e2e,
            "e2e_per_token_ns": e2e / num_tokens,
        }
    )


def of_the_same_requests(runs: Sequence[Measured]) -> list[Measured]:
    """Leave a value out where some run has none of that metric and request: what was not measured is unknown."""
    kept: list[dict[str, Sample]] = [{} for _ in runs]
    for name in METRICS:
        in_all = np.ones(len(runs[0].latencies), dtype=bool)
        for run in runs:
            if name == "tbt" and run.tbt_quantiles is not None:
                continue  # of whole requests, as the simulation without noise
            has_one = np.zeros(len(in_all), dtype=bool)
            has_one[run.samples[name].owner] = True
            in_all &= has_one
        for samples, run in zip(kept, runs, strict=True):
            if in_all.all():
                samples[name] = run.samples[name]
                continue
            values, owner = run.samples[name].values, run.samples[name].owner
            samples[name] = Sample(values[in_all[owner]], owner[in_all[owner]])
    found = [replace(run, samples=samples) for run, samples in zip(runs, kept, strict=True)]
    if any(len(samples["tbt"].values) for samples in kept):
        return found
    # Where no run has a time between tokens to be compared, quantiles have none either.
    return [one if one.tbt_quantiles is None else replace(one, tbt_quantiles=np.empty(0)) for one in found]


def pooled(runs: Sequence[Floats]) -> Floats:
    """Ascending values of several runs as one ascending sample; those of one run are not copied."""
    if len(runs) == 1:
        return runs[0]
    values = np.concatenate(runs)
    values.sort()
    return values


def empirical_cdf(ordered: Floats, max_points: int = 100_000) -> tuple[Floats, Floats]:
    """Values and the fraction of all values at or below each.

    Parameters
    ----------
    ordered : ndarray of shape (n_values,)
        Ascending.
    max_points : int
        A longer sample is thinned to evenly spaced ranks, its extremes kept; every point stays exact.

    Returns
    -------
    x, fraction : ndarray of shape (min(n_values, max_points),)
    """
    n = len(ordered)
    ranks = np.arange(n) if n <= max_points else np.linspace(0, n - 1, max_points).round().astype(np.int64)
    return ordered[ranks], (ranks + 1.0) / max(n, 1)


def ints(column: "pd.Series[int] | Ints") -> Ints:
    """A column without missing values as int64."""
    return np.asarray(column, dtype=np.int64)
