"""What every reader of recorded requests gives, and its checks."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.errors import ArtifactError

LENGTHS = ("num_prefill_tokens", "num_decode_tokens")
# In the order in which they happen.
TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "completion_time_ns")


def since(values: pd.Series, start: float, ns_per_unit: float) -> pd.Series:
    """Times as Int64 nanoseconds since `start`; missing where they are, and where they are no time.

    The difference of two floats of a clock is exact where their absolute nanoseconds are not.
    """
    times = (values - start) * ns_per_unit
    return times.where(times.abs() < 2.0**62).round().astype("Int64")


def finished(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Requests in order of arrival, times since the first, failed ones without any; what cannot be is refused.

    Raises
    ------
    ArtifactError
        No request, an arrival or a length missing or impossible, or times out of order; the first such request is named
        by its number in the file.
    """
    if frame.empty:
        raise ArtifactError(f"no recorded requests: {path}")
    frame = frame.reset_index(drop=True)
    if "error_type" not in frame:
        frame = frame.assign(error_type=None, error_msg=None)
    failed = frame["error_type"].notna().to_numpy(dtype=bool)
    served = "completion_time_ns" in frame
    _refuse(frame["arrival_time_ns"].isna(), "an arrival that is missing or no number", path)
    for name in LENGTHS:
        numbers = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        numbers = np.where(failed & ~(numbers >= 1), 1, numbers)
        bad = ~(numbers == np.rint(numbers)) | (numbers < (1 if served else 0))
        _refuse(bad, f"{name} is missing, below 1 or no whole number", path)
        frame[name] = numbers.astype(np.int64)
    start = int(frame["arrival_time_ns"].min())
    before = frame["arrival_time_ns"]
    for name in TIMES:
        if name in frame:
            times = frame[name] if name == TIMES[0] else frame[name].mask(failed)
            _refuse(times.isna() & ~failed, f"{name} is missing, and the request has not failed", path)
            _refuse((times < before).fillna(False), f"{name} is before what comes first", path)
            before = times.fillna(before)
            frame[name] = times - start
    frame["arrival_time_ns"] = frame["arrival_time_ns"].astype("int64")
    if "token_times_ns" in frame:
        gone = failed | frame["token_times_ns"].isna().to_numpy(dtype=bool)
        frame["token_times_ns"] = pd.Series(
            [None if none else one - start for one, none in zip(frame["token_times_ns"], gone, strict=True)],
            dtype=object,
        )
    return frame.sort_values("arrival_time_ns", kind="stable", ignore_index=True)


def _refuse(bad: Any, what: str, path: Path) -> None:
    mask: npt.NDArray[np.bool_] = np.asarray(bad, dtype=bool)
    if mask.any():
        raise ArtifactError(f"malformed recorded requests: {path}: request {int(np.flatnonzero(mask)[0]) + 1}: {what}")


def times_of_tokens(first_ns: int, gaps_ns: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64] | None:
    """Times of the output tokens of a request, in ns; None unless the source has one time for each of them.

    Parameters
    ----------
    first_ns : int
        When the first came.
    gaps_ns : numpy.ndarray of shape (n_chunks - 1,)
        Time between what came; a server that is ahead of its client sends several tokens at once.
    count : int
        Output tokens.
    """
    if len(gaps_ns) + 1 != count:
        return None
    steps = np.concatenate([[0], np.rint(gaps_ns).astype(np.int64)])
    return first_ns + np.cumsum(steps)
