"""Is the simulation right? One word for each figure and one for the run."""

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.floor import COVERAGE
from gpu_simulate_test.analysis.samples import PERCENTILES

WITHIN_FLOOR, WITHIN_TOLERANCE, OFF = "within the floor", "within tolerance", "off"
TOO_NOISY, NOT_JUDGED, VOID = "too noisy to judge", "not judged", "void"
IN_SAMPLE = "in-sample"
_WORSE = (NOT_JUDGED, WITHIN_FLOOR, WITHIN_TOLERANCE, TOO_NOISY, IN_SAMPLE, OFF)
# Of a perfect simulation: from the headline's figure, and from all of them together.
_FALSE_ALARMS_HEADLINE, _FALSE_ALARMS = 0.04, 0.01
_Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
MAX_FLOOR = 0.30  # real runs further apart than this excuse any simulator, and so prove nothing


def judge(percentiles: pd.DataFrame, tolerance: float, *, in_sample: bool = False) -> list[str]:
    """Verdict on each row of the percentile table.

    Parameters
    ----------
    percentiles : pandas.DataFrame of shape (n_rows, n_columns)
        `gpu_simulate_test.analysis.compare.Comparison.percentiles`.
    tolerance : float
        A relative error up to this is good enough.
    in_sample : bool
        The simulation was calibrated on a run that it is compared with.

    Returns
    -------
    list of str of length n_rows
        ``within the floor``: another real run could differ as much. ``within tolerance``: more than that, or no
        floor is known, yet small. ``too noisy to judge``: neither, but another real run could differ as much, for
        the floor is above `MAX_FLOOR`. ``off``. ``not judged``: a figure is missing. ``in-sample``, in such a
        comparison, in place of the first two: that constants fit the run they come from proves nothing.
    """
    error, relative = percentiles["error_ns"].abs(), percentiles["relative_error"].abs()
    below_floor = error <= percentiles["floor_ns"]
    known = [
        below_floor & (percentiles["floor"] <= MAX_FLOOR),
        relative <= tolerance,
        below_floor,
        relative > tolerance,
    ]
    within = [IN_SAMPLE] * 2 if in_sample else [WITHIN_FLOOR, WITHIN_TOLERANCE]
    return [str(word) for word in np.select(known, [*within, TOO_NOISY, OFF], NOT_JUDGED)]


def verdict_of(percentiles: pd.DataFrame, gates: pd.DataFrame, *, in_sample: bool = False) -> str:
    """Verdict on the whole run.

    Of fifteen figures one is easily beyond its own floor by chance. So the run is off only where that is unlikely: the
    figure of the headline, the median E2E latency, is off and significant at 4 %, or any is off and significant by
    Benjamini and Hochberg's procedure (1995) at 1 % (figures depend on each other positively: Benjamini and Yekutieli,
    2001). Together a perfect simulation is called off in at most 5 % of all runs, whatever the number of figures.
    Without the headline's share, a simulation 20 % slow was found half as often. Figures without a floor count as they
    are.

    Parameters
    ----------
    percentiles : pandas.DataFrame
        With its ``verdict`` column. The mean is not counted: it follows from the rest.
    gates : pandas.DataFrame
        `gpu_simulate_test.analysis.gates.check_gates`.
    in_sample : bool
        The simulation was calibrated on a run that it is compared with.

    Returns
    -------
    str
        ``void`` when a gate is void; ``off``; ``in-sample`` of any other such comparison; ``too noisy to judge`` when
        some figure is and the floor of the median E2E latency, the figure of the headline, is above `MAX_FLOOR`,
        however small its error came out; else the worst of the others.
    """
    if (gates["status"] == VOID).any():
        return VOID
    rows = percentiles[percentiles["statistic"].isin(list(PERCENTILES)) & (percentiles["verdict"] != NOT_JUDGED)]
    if rows.empty:
        return IN_SAMPLE if in_sample else NOT_JUDGED
    found = rows["verdict"].to_numpy(dtype=object)
    headline = ((rows["metric"] == "e2e") & (rows["statistic"] == "p50")).to_numpy(dtype=bool)
    found = np.where((found == OFF) & ~_significant(rows, headline), WITHIN_FLOOR, found)
    if (headline & ~(rows["floor"] > MAX_FLOOR)).any():
        found = np.where(found == TOO_NOISY, WITHIN_FLOOR, found)
    return max([*map(str, found), *[IN_SAMPLE] * in_sample], key=_WORSE.index)


def _significant(rows: pd.DataFrame, headline: _Bools) -> _Bools:
    """Which errors are beyond what chance makes of so many figures; all of those without a floor."""
    significant = rows["floor_ns"].isna().to_numpy(dtype=bool, copy=True)
    known = ~significant
    if known.any():
        from scipy import special  # as in `floor_of`

        freedom = rows["n_repeats"].to_numpy(dtype=float)[known] - 1
        spread = rows["floor_ns"].to_numpy(dtype=float)[known] / special.stdtrit(freedom, (1 + COVERAGE) / 2)
        error = rows["error_ns"].abs().to_numpy(dtype=float)[known]
        ratio = np.divide(error, spread, out=np.full(len(error), np.inf), where=spread > 0)
        p = np.where(error == 0, 1.0, 2 * special.stdtr(freedom, -ratio))
        by_itself = headline[known] & (p <= _FALSE_ALARMS_HEADLINE)
        significant[known] = by_itself | (_adjusted(p) <= _FALSE_ALARMS)
    return significant


def _adjusted(p: np.ndarray) -> np.ndarray:
    """P values for control of the false discovery rate (Benjamini and Hochberg, 1995), shape (n,)."""
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(np.minimum(p[order] * len(p) / ranks, 1))
    return adjusted
