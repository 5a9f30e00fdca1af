"""Everything compare-runs finds out about two runs, before any of it is written down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.attribution import Attribution, attribute
from gpu_simulate_test.analysis.calibration import Calibration, calibration_of
from gpu_simulate_test.analysis.compare import Comparison, compare
from gpu_simulate_test.analysis.gates import check_gates
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.samples import METRICS, Floats, Ints, ints, token_groups
from gpu_simulate_test.analysis.slo import service_levels, throughput
from gpu_simulate_test.analysis.verdict import judge, verdict_of
from gpu_simulate_test.config.schema import SloConfig

_MAX_TOKENS = 500_000  # whose errors are looked at by their position


@dataclass(frozen=True)
class Assessment:
    """A comparison with its judgement.

    Attributes
    ----------
    comparison : Comparison
        Its percentile table has a ``verdict`` column.
    gates : pandas.DataFrame
        See `gpu_simulate_test.analysis.gates.check_gates`.
    verdict : str
        See `gpu_simulate_test.analysis.verdict.verdict_of`.
    tolerance : float
        The relative error that is good enough.
    attribution : Attribution or str
        A sentence where it is not known.
    distances : pandas.DataFrame of shape (n_metrics, 3)
        See `distances`.
    positions : pandas.DataFrame
        See `errors_by_position`.
    throughput : pandas.DataFrame
        See `gpu_simulate_test.analysis.slo.throughput`. No part of the verdict.
    slo : pandas.DataFrame
        See `gpu_simulate_test.analysis.slo.service_levels`. No part of the verdict.
    calibration : Calibration or None
        Of the simulated run, held against these real runs; None where it was not calibrated.
    """

    comparison: Comparison
    gates: pd.DataFrame
    verdict: str
    tolerance: float
    attribution: Attribution | str
    distances: pd.DataFrame
    positions: pd.DataFrame
    throughput: pd.DataFrame
    slo: pd.DataFrame
    calibration: Calibration | None


def assess(
    repeats: Sequence[Run],
    sim: Run,
    *,
    tolerance: float = 0.05,
    allow_mismatch: bool = False,
    slo: SloConfig | None = None,
    compared: Callable[[Comparison], None] = lambda _: None,
) -> Assessment:
    """Compare, judge and explain.

    Parameters
    ----------
    repeats : sequence of Run
        The real runs, the first one first.
    sim : Run
    tolerance : float
        A relative error up to this is good enough.
    allow_mismatch : bool
        See `gpu_simulate_test.analysis.compare.compare`.
    slo : SloConfig, optional
        Objectives to hold the requests against.
    compared : callable
        Given the comparison as soon as there is one, before it is explained.

    Raises
    ------
    ArtifactError
        The runs cannot be compared.
    """
    comparison = compare(repeats[0], sim, repeats=repeats[1:], allow_mismatch=allow_mismatch)
    calibration = calibration_of(sim, repeats)
    in_sample = calibration is not None and calibration.in_sample
    table = comparison.percentiles.assign(verdict=judge(comparison.percentiles, tolerance, in_sample=in_sample))
    comparison = replace(comparison, percentiles=table)
    compared(comparison)
    gates = check_gates(comparison, repeats, sim, calibration)
    return Assessment(
        comparison,
        gates,
        verdict_of(table, gates, in_sample=in_sample),
        tolerance,
        attribute(comparison, repeats[0], sim),
        distances(comparison),
        errors_by_position(comparison, repeats[0], sim),
        throughput(repeats, sim),
        service_levels(repeats, sim, slo or SloConfig()),
        calibration,
    )


def distances(comparison: Comparison) -> pd.DataFrame:
    """Distances between the real and the simulated distribution of each metric.

    Returns
    -------
    pandas.DataFrame of shape (n_metrics, 3)
        ``metric``, ``ks`` (Kolmogorov-Smirnov statistic: the largest vertical distance of the two CDFs),
        ``wasserstein_ns`` (the area between them); NaN where a metric has no values. Samples above 100,000 values are
        thinned to evenly spaced ranks.
    """
    rows = []
    for metric in METRICS:
        real, sim = (comparison.cdfs[side][metric][0] for side in ("real", "sim"))
        if len(real) and len(sim):
            rows.append((metric, _ks(real, sim), _wasserstein(real, sim)))
        else:
            rows.append((metric, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["metric", "ks", "wasserstein_ns"])


def _ks(real: Floats, sim: Floats) -> float:
    """Largest distance of two CDFs, of ascending values."""
    return float(_apart(real, sim, np.concatenate([real, sim])).max())


def _wasserstein(real: Floats, sim: Floats) -> float:
    """Area between two CDFs, of ascending values."""
    both = np.sort(np.concatenate([real, sim]), kind="stable")
    return float(np.diff(both) @ _apart(real, sim, both[:-1]))


def _apart(real: Floats, sim: Floats, at: Floats) -> Floats:
    """Distance of two CDFs at some values; `scipy.stats` has both measures, but takes seconds to import."""
    below = [np.searchsorted(side, at, side="right") / len(side) for side in (real, sim)]
    apart: Floats = np.abs(below[0] - below[1])
    return apart


def errors_by_position(comparison: Comparison, real: Run, sim: Run) -> pd.DataFrame:
    """How the simulation runs ahead or falls behind as a request's tokens come, against the first repeat.

    Returns
    -------
    pandas.DataFrame of shape (longest output, 3)
        ``token_index``, ``median_error_ns`` (over the requests that made that token: simulated - real time since
        arrival), ``n`` (those requests; of more than 500,000 tokens in all, every second request, third, and so on).
        Empty where a run did not record the time of each token.
    """
    if real.tokens.empty or sim.tokens.empty:
        return pd.DataFrame({"token_index": [], "median_error_ns": [], "n": []})
    length = ints(comparison.real.latencies["num_tokens"])
    chosen = np.arange(0, len(length), -(-int(length.sum()) // _MAX_TOKENS))
    index = _ranges(length[chosen])
    since_real, since_sim = (
        _since_arrival(run, of_run.latencies.iloc[chosen], index)
        for run, of_run in ((real, comparison.real), (sim, comparison.sim))
    )
    error = pd.Series(since_sim - since_real).groupby(index).agg(["median", "size"])
    return pd.DataFrame(
        {"token_index": error.index, "median_error_ns": error["median"].to_numpy(), "n": error["size"].to_numpy()}
    )


def _ranges(lengths: Ints) -> Ints:
    """0 to n-1 for each of the lengths, one after another."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _since_arrival(run: Run, latencies: pd.DataFrame, index: Ints) -> Floats:
    """Time since arrival of the tokens of these requests, by request and `index`."""
    owners, starts, _ = token_groups(run, ints(latencies["request_id"]))
    length, arrival = (ints(latencies[name]) for name in ("num_tokens", "arrival_time_ns"))
    rows = np.repeat(starts[owners >= 0], length) + index
    since: Ints = ints(run.tokens["token_time_ns"])[rows] - np.repeat(arrival, length)
    return since.astype(np.float64)
