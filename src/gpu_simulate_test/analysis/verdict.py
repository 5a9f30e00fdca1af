"""Is the simulation right? One word for each figure and one for the run."""

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.samples import PERCENTILES

WITHIN_FLOOR, WITHIN_TOLERANCE, OFF = "within the floor", "within tolerance", "off"
TOO_NOISY, NOT_JUDGED, VOID = "too noisy to judge", "not judged", "void"
_WORSE = (NOT_JUDGED, WITHIN_FLOOR, WITHIN_TOLERANCE, TOO_NOISY, OFF)
MAX_FLOOR = 0.20  # real runs further apart than this excuse any simulator, and so prove nothing


def judge(percentiles: pd.DataFrame, tolerance: float) -> list[str]:
    """Verdict on each row of the percentile table.

    Parameters
    ----------
    percentiles : pandas.DataFrame of shape (n_rows, n_columns)
        `gpu_simulate_test.analysis.compare.Comparison.percentiles`.
    tolerance : float
        A relative error up to this is good enough.

    Returns
    -------
    list of str of length n_rows
        ``within the floor``: another real run could differ as much. ``within tolerance``: more than that, or no
        floor is known, yet small. ``too noisy to judge``: neither, but another real run could differ as much, for
        the floor is above `MAX_FLOOR`. ``off``. ``not judged``: a figure is missing.
    """
    error, relative = percentiles["error_ns"].abs(), percentiles["relative_error"].abs()
    below_floor = error <= percentiles["floor_ns"]
    known = [
        below_floor & (percentiles["floor"] <= MAX_FLOOR),
        relative <= tolerance,
        below_floor,
        relative > tolerance,
    ]
    words = [WITHIN_FLOOR, WITHIN_TOLERANCE, TOO_NOISY, OFF]
    return [str(word) for word in np.select(known, words, NOT_JUDGED)]


def verdict_of(percentiles: pd.DataFrame, gates: pd.DataFrame) -> str:
    """Verdict on the whole run.

    Parameters
    ----------
    percentiles : pandas.DataFrame
        With its ``verdict`` column. The mean is not counted: it follows from the rest.
    gates : pandas.DataFrame
        `gpu_simulate_test.analysis.gates.check_gates`.

    Returns
    -------
    str
        ``void`` when a gate is void, else the worst of the judged percentiles; ``not judged`` when there is none.
    """
    if (gates["status"] == VOID).any():
        return VOID
    found = percentiles.loc[percentiles["statistic"].isin(list(PERCENTILES)), "verdict"].tolist()
    return max(map(str, found), key=_WORSE.index)
