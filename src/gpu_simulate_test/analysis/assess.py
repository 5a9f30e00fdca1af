"""Everything compare-runs finds out about two runs, before any of it is written down."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from gpu_simulate_test.analysis.attribution import Attribution, attribute
from gpu_simulate_test.analysis.compare import Comparison, compare
from gpu_simulate_test.analysis.gates import check_gates
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.samples import METRICS, Floats, Ints, empirical_cdf, ints
from gpu_simulate_test.analysis.slo import service_levels
from gpu_simulate_test.analysis.verdict import judge, verdict_of
from gpu_simulate_test.config.schema import SloConfig

_MAX_POINTS = 100_000


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
    slo : pandas.DataFrame
        See `gpu_simulate_test.analysis.slo.service_levels`. No part of the verdict.
    """

    comparison: Comparison
    gates: pd.DataFrame
    verdict: str
    tolerance: float
    attribution: Attribution | str
    distances: pd.DataFrame
    positions: pd.DataFrame
    slo: pd.DataFrame


def assess(
    repeats: Sequence[Run],
    sim: Run,
    *,
    tolerance: float = 0.05,
    allow_mismatch: bool = False,
    slo: SloConfig | None = None,
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

    Raises
    ------
    ArtifactError
        The runs cannot be compared.
    """
    comparison = compare(repeats[0], sim, repeats=repeats[1:], allow_mismatch=allow_mismatch)
    table = comparison.percentiles.assign(verdict=judge(comparison.percentiles, tolerance))
    comparison = replace(comparison, percentiles=table)
    gates = check_gates(comparison, repeats, sim)
    return Assessment(
        comparison,
        gates,
        verdict_of(table, gates),
        tolerance,
        attribute(comparison, repeats[0], sim),
        distances(comparison),
        errors_by_position(comparison, repeats[0], sim),
        service_levels(repeats, sim, slo or SloConfig()),
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
        real, sim = (
            empirical_cdf(side[metric], _MAX_POINTS)[0] for side in (comparison.real_values, comparison.sim_values)
        )
        if len(real) and len(sim):
            rows.append((metric, _ks(real, sim), float(stats.wasserstein_distance(real, sim))))
        else:
            rows.append((metric, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["metric", "ks", "wasserstein_ns"])


def _ks(real: Floats, sim: Floats) -> float:
    """Largest distance of two CDFs, of ascending values; SciPy's adds a p-value that takes longer than all the rest."""
    both = np.concatenate([real, sim])
    below = [np.searchsorted(side, both, side="right") / len(side) for side in (real, sim)]
    return float(np.abs(below[0] - below[1]).max())


def errors_by_position(comparison: Comparison, real: Run, sim: Run) -> pd.DataFrame:
    """How the simulation runs ahead or falls behind as a request's tokens come, against the first repeat.

    Returns
    -------
    pandas.DataFrame of shape (longest output, 3)
        ``token_index``, ``median_error_ns`` (over the requests that made that token: simulated - real time since
        arrival), ``n`` (those requests). Empty where a run did not record the time of each token.
    """
    if real.tokens.empty or sim.tokens.empty:
        return pd.DataFrame({"token_index": [], "median_error_ns": [], "n": []})
    index, since_real = _since_arrival(real, comparison.real.latencies)
    _, since_sim = _since_arrival(sim, comparison.sim.latencies)
    error = pd.Series(since_sim - since_real).groupby(index).agg(["median", "size"])
    return pd.DataFrame(
        {"token_index": error.index, "median_error_ns": error["median"].to_numpy(), "n": error["size"].to_numpy()}
    )


def _since_arrival(run: Run, latencies: pd.DataFrame) -> tuple[Ints, Floats]:
    """Index and time since arrival of every compared token, by request and index: the same order for both runs."""
    ids, limit = ints(latencies["request_id"]), ints(latencies["num_tokens"])
    token_ids, index = ints(run.tokens["request_id"]), ints(run.tokens["token_index"])
    position = np.minimum(np.searchsorted(ids, token_ids), len(ids) - 1)
    kept = (ids[position] == token_ids) & (index < limit[position])
    arrival = ints(latencies["arrival_time_ns"])[position[kept]]
    return index[kept], (ints(run.tokens["token_time_ns"])[kept] - arrival).astype(np.float64)
