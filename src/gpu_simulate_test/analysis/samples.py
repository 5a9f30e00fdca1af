"""Latencies of requests and tokens, and the statistics taken of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.analysis.load_metrics import Run, is_ok

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
    owner: Ints


@dataclass(frozen=True)
class Measured:
    """One run, cut to the tokens that are compared.

    Attributes
    ----------
    latencies : pandas.DataFrame of shape (n_requests, 8)
        See `request_latencies`.
    samples : dict of str to Sample
        One a metric.
    """

    latencies: pd.DataFrame
    samples: dict[str, Sample]


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
    token_ids, index = ints(run.tokens["request_id"]), ints(run.tokens["token_index"])
    position = np.minimum(np.searchsorted(ids, token_ids), len(ids) - 1)
    limit = np.where(ids[position] == token_ids, num_tokens[position], 0)
    # Tokens are in request order, as the ids are: one last token each, in the same order.
    last = index == limit - 1
    completion = ints(run.tokens["token_time_ns"])[last] if len(index) else ints(rows["completion_time_ns"])
    between = (index > 0) & (index < limit)
    tbt = run.tokens["token_latency_ns"].to_numpy(dtype=np.float64, na_value=np.nan)[between]
    latencies = _latencies(rows, num_tokens, completion)
    owners = np.arange(len(ids))
    columns = {name: (latencies[f"{name}_ns"].to_numpy(dtype=np.float64), owners) for name in PER_REQUEST_METRICS}
    columns["tbt"] = (tbt, position[between])
    samples = {}
    for name in METRICS:
        values, owner = columns[name]
        known = ~np.isnan(values)
        samples[name] = Sample(values[known], owner[known])
    return Measured(latencies, samples)


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
            in_all &= np.bincount(run.samples[name].owner, minlength=len(in_all)) > 0
        for samples, run in zip(kept, runs, strict=True):
            values, owner = run.samples[name].values, run.samples[name].owner
            samples[name] = Sample(values[in_all[owner]], owner[in_all[owner]])
    return [replace(run, samples=samples) for run, samples in zip(runs, kept, strict=True)]


def statistics(values: Floats) -> Floats:
    """P50, P90, P99 (linear interpolation) and mean, in the order of `STATISTICS`; NaN of no values."""
    if not len(values):
        return np.full(len(STATISTICS), np.nan)
    return np.append(np.percentile(values, list(PERCENTILES.values()), method="linear"), values.mean())


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


def ints(column: "pd.Series[int]") -> Ints:
    """A column without missing values as int64."""
    return np.asarray(column, dtype=np.int64)
