"""How sure an error is: the spread of the real runs, and a confidence interval over requests."""

from collections.abc import Sequence

import numpy as np

from gpu_simulate_test.analysis.samples import PERCENTILES, Floats, Ints, Sample

COVERAGE = 0.95
_SEED = 20_240_607
_MIN_REQUESTS = 5  # fewer say nothing about requests that did not come
# One value a request is kept whatever its size; more than this many values of a metric are thinned.
_MAX_VALUES = 50_000
_MAX_REPLICATIONS, _MIN_REPLICATIONS = 500, 200
_WORK = 50_000_000  # values drawn in all: about a second, unless the fewest replications need more
_CHUNK = 1_000_000  # values at a time: enough that NumPy's work outweighs Python's, little beside the tables


def floor_of(per_repeat: Floats) -> Floats:
    """Half-width of the 95 % prediction interval for one further real run.

    The simulator is deterministic: an error no larger than this is one that another real run could have as well.

    Parameters
    ----------
    per_repeat : ndarray of shape (n_repeats, n_statistics)
        A statistic of each real run, ns.

    Returns
    -------
    ndarray of shape (n_statistics,)
        ``t(0.975, R - 1) * s * sqrt(1 + 1 / R)``, s being the standard deviation over the R repeats (Hahn and Meeker,
        Statistical Intervals, 1991: normal distribution, one future observation); NaN for one repeat.
    """
    repeats = len(per_repeat)
    if repeats < 2:
        return np.full(per_repeat.shape[1], np.nan)
    from scipy import special  # a fifth of a second, for nothing where there is one run

    quantile = float(special.stdtrit(repeats - 1, (1 + COVERAGE) / 2))
    half_width: Floats = quantile * per_repeat.std(axis=0, ddof=1) * np.sqrt(1 + 1 / repeats)
    return half_width


def side_by_side(per_repeat: Floats, per_sample: Floats) -> dict[str, Floats | float]:
    """Columns of figures that each run has one of.

    Parameters
    ----------
    per_repeat : ndarray of shape (n_repeats, n_figures)
        Of the real runs.
    per_sample : ndarray of shape (n_samples, n_figures)
        Of the simulations with noise, or of the only simulation.

    Returns
    -------
    dict of str to ndarray of shape (n_figures,), or float
        ``real``, ``sim`` (means), ``error``, ``relative_error``, ``sim_low``, ``sim_high`` (95 % of several
        simulations lie between), ``n_repeats``, ``floor``; NaN where there is none.
    """
    real, sim = per_repeat.mean(axis=0), per_sample.mean(axis=0)
    several = len(per_sample) > 1
    return {
        "real": real,
        "sim": sim,
        "error": sim - real,
        "relative_error": np.divide(sim - real, real, out=np.full(real.shape, np.nan), where=real != 0),
        "sim_low": np.quantile(per_sample, 0.025, axis=0) if several else np.nan,
        "sim_high": np.quantile(per_sample, 0.975, axis=0) if several else np.nan,
        "n_repeats": len(per_repeat),
        "floor": floor_of(per_repeat),
    }


def confidence_intervals(
    real: Sequence[dict[str, Sample]], sim: dict[str, Sample], arrival_ns: Ints, relative_error: dict[str, Floats]
) -> dict[str, Floats]:
    """95 % confidence intervals of the relative errors, had other requests of the same traffic been drawn.

    Circular block bootstrap (Politis and Romano, 1992): blocks of about n^(1/3) requests that arrived one after the
    other, since neighbours share batches; the same requests for the real runs, pooled, and for the simulated one.

    Parameters
    ----------
    real : sequence of dict of str to Sample
        One a repeat.
    sim : dict of str to Sample
    arrival_ns : ndarray of shape (n_requests,)
    relative_error : dict of str to ndarray of shape (n_statistics,)
        The errors as reported; the intervals are centred on them.

    Returns
    -------
    dict of str to ndarray of shape (2, n_statistics)
        Low and high ends, by metric; NaN where there is nothing to resample, or fewer than five requests.
    """
    n = len(arrival_ns)
    if n < _MIN_REQUESTS:
        return {metric: np.full((2, len(errors)), np.nan) for metric, errors in relative_error.items()}
    rank = np.argsort(np.argsort(arrival_ns, kind="stable"), kind="stable")
    rng = np.random.default_rng(_SEED)
    draws = {}
    for metric, sample in sim.items():
        draws[metric] = [_Resampled(runs, rank, rng) for runs in ([one[metric] for one in real], [sample])]
    size = sum(len(one.ordered) for pair in draws.values() for one in pair)
    replications = int(np.clip(_WORK // max(size, 1), _MIN_REPLICATIONS, _MAX_REPLICATIONS))
    found: dict[str, list[Floats]] = {metric: [] for metric in sim}
    rows = max(1, min(replications, _CHUNK // max(n, max(len(one.ordered) for pair in draws.values() for one in pair))))
    for start in range(0, replications, rows):
        weights = block_weights(n, min(rows, replications - start), rng)
        for metric, pair in draws.items():
            found[metric].append(_relative(*(one.statistics(weights) for one in pair)))
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    once = np.ones((1, n), dtype=np.int64)
    intervals = {}
    for metric, pair in draws.items():
        # Pooling and thinning move the centre a little; the interval belongs around the error as reported.
        shift = relative_error[metric] - _relative(*(one.statistics(once) for one in pair))[0]
        intervals[metric] = _quantiles(np.concatenate(found[metric]), ends) + shift
    return intervals


def block_weights(n: int, replications: int, rng: np.random.Generator) -> Ints:
    """How often each of `n` requests, in order of arrival, is drawn.

    Returns
    -------
    ndarray of shape (replications, n)
        Every row sums to n.
    """
    length = max(1, round(n ** (1 / 3)))
    starts = rng.integers(n, size=(replications, -(-n // length), 1))
    drawn = ((starts + np.arange(length)) % n).reshape(replications, -1)[:, :n]
    flat = drawn + n * np.arange(replications)[:, None]
    counts = np.bincount(flat.ravel(), minlength=replications * n)
    return counts.reshape(replications, n).astype(np.int32)


class _Resampled:
    """Samples pooled and sorted once: any weighting of their requests gives the statistics without sorting again."""

    def __init__(self, runs: Sequence[Sample], rank: Ints, rng: np.random.Generator) -> None:
        size, limit = sum(len(one.values) for one in runs), max(len(rank), _MAX_VALUES)
        if size > limit:
            # One value from each of `limit` equal parts: every request keeps its share.
            picked = ((np.arange(limit) + rng.random(limit)) * (size / limit)).astype(np.int64)
            values, owner = _by_request(runs, rank, picked)
        else:
            values, owner = (np.concatenate([getattr(one, name) for one in runs]) for name in ("values", "owner"))
            owner = rank[owner]
        order = np.argsort(values, kind="stable")
        self.ordered, self.owner = values[order], owner[order]
        self.sums = np.bincount(owner, weights=values, minlength=len(rank))
        self.counts = np.bincount(owner, minlength=len(rank)).astype(np.float64)

    def statistics(self, weights: Ints) -> Floats:
        """Statistics of shape (n_replications, n_statistics), each value counted as often as its request."""
        of_requests = weights.astype(np.float64)
        number = of_requests @ self.counts
        mean = np.divide(of_requests @ self.sums, number, out=np.full(len(weights), np.nan), where=number > 0)
        return np.column_stack([weighted_percentiles(self.ordered, np.take(weights, self.owner, axis=1)), mean])


def _by_request(runs: Sequence[Sample], rank: Ints, picked: Ints) -> tuple[Floats, Ints]:
    """Values, and the rank of the request of each, at places of all values in order of rank, then of run.

    Without putting them into that order: in each run those of a request follow one another, by ascending id.
    """
    sizes = np.array([np.bincount(one.owner, minlength=len(rank)) for one in runs])
    requests = np.argsort(rank)
    ends = np.cumsum(sizes.sum(axis=0)[requests])
    owner = np.searchsorted(ends, picked, side="right")
    request = requests[owner]
    place = picked - ends[owner] + sizes[:, request].sum(axis=0)  # among all of its request, then of its run
    values = np.empty(len(picked))
    for one, size in zip(runs, sizes, strict=True):
        mine = (place >= 0) & (place < size[request])
        start = np.cumsum(size) - size
        values[mine] = one.values[(start[request] + place)[mine]]
        place = place - size[request]
    return values, owner


def weighted_percentiles(ordered: Floats, weights: Ints) -> Floats:
    """P50, P90 and P99 of ascending values, each repeated `weights` times.

    Parameters
    ----------
    ordered : ndarray of shape (n_values,)
    weights : ndarray of shape (n_replications, n_values), int32

    Returns
    -------
    ndarray of shape (n_replications, 3)
        Interpolated linearly; NaN where every weight is 0.
    """
    out = np.full((len(weights), len(PERCENTILES)), np.nan)
    if not len(ordered):
        return out
    counts = np.cumsum(weights, axis=1, dtype=np.int32)
    total = counts[:, -1].astype(np.int64)
    # Rows are told apart by an offset above any count: one search serves them all.
    offset = np.arange(len(weights)) * (total.max() + 1)
    counts += offset[:, None].astype(np.int32)
    flat = counts.ravel()
    row_start = np.arange(len(weights)) * len(ordered)
    used = total > 0
    for column, level in enumerate(PERCENTILES.values()):
        place = level / 100 * np.maximum(total - 1, 0)
        low = np.floor(place).astype(np.int64)
        picked = []
        for position in (low, np.minimum(low + 1, np.maximum(total - 1, 0))):
            found = np.searchsorted(flat, (position + offset).astype(np.int32), side="right") - row_start
            picked.append(ordered[np.clip(found, 0, len(ordered) - 1)])
        out[used, column] = (picked[0] + (picked[1] - picked[0]) * (place - low))[used]
    return out


def _relative(real: Floats, sim: Floats) -> Floats:
    relative: Floats = np.divide(sim - real, real, out=np.full(real.shape, np.nan), where=real != 0)
    return relative


def _quantiles(draws: Floats, levels: list[float]) -> Floats:
    """Quantiles of each column of shape (len(levels), n_columns); a draw that is undefined does not count."""
    out = np.full((len(levels), draws.shape[1]), np.nan)
    for column in range(draws.shape[1]):
        known = draws[~np.isnan(draws[:, column]), column]
        if len(known):
            out[:, column] = np.quantile(known, levels)
    return out
