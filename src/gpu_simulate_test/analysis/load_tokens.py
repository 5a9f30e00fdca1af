"""Read the tokens of a run into NumPy, and refuse what contradicts itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.analysis.checks import Check, is_ok, is_warmup
from gpu_simulate_test.io.tables import TOKEN_METRICS, read_arrow


def read_tokens(check: Check, requests: pd.DataFrame) -> pd.DataFrame:
    """Read the tokens of the ok requests by ascending request and token; `requests` still holds warm-up.

    Returns
    -------
    pandas.DataFrame of shape (n_tokens, 4)
        See `gpu_simulate_test.analysis.load_metrics.Run`.

    Raises
    ------
    ArtifactError
        The table is missing, malformed, or contradicts itself or the requests.
    """
    ids, index, times, latency = _token_columns(check.path)
    known = requests["request_id"].to_numpy()
    starts, ends = groups(ids)
    position = np.minimum(np.searchsorted(known, ids[starts]), len(known) - 1)
    check.refuse(known[position] != ids[starts], ids[starts], "tokens of an unknown request", TOKEN_METRICS)
    counted = is_ok(requests) & ~is_warmup(requests)
    if not counted[position].all():
        kept = np.repeat(counted[position], ends - starts)
        ids, index, times, latency = (column[kept] for column in (ids, index, times, latency))
    same = ids[1:] == ids[:-1]
    if not ((ids[1:] > ids[:-1]) | (same & (index[1:] > index[:-1]))).all():  # as our own stages made them
        order = np.lexsort((index, ids))
        ids, index, times, latency = (column[order] for column in (ids, index, times, latency))
    starts, _ = groups(ids)

    # In place, and no longer than needed: of millions of tokens every copy counts.
    step = _since_previous(index)
    step[starts] = index[starts] + 1
    check.refuse(step != 1, ids, "token_index has gaps", TOKEN_METRICS)
    del step, same
    gap = _since_previous(times)
    gap[starts] = 0
    check.refuse(gap < 0, ids, "token_time_ns goes back", TOKEN_METRICS)
    apart = latency - gap
    apart[starts] = 0  # the first token has no predecessor: whatever a foreign table says there is not a latency
    # One nanosecond apart is a foreign run that rounded times and latencies on their own.
    check.refuse(
        np.abs(apart, out=apart) > 1, ids, "token_latency_ns is not the time since the previous token", TOKEN_METRICS
    )
    missing = np.flatnonzero(np.isnan(apart))
    del apart
    latency = np.require(latency, requirements="W")
    latency[missing] = gap[missing]
    latency[starts] = np.nan
    columns = {"request_id": ids, "token_index": index, "token_time_ns": times, "token_latency_ns": latency}
    return pd.DataFrame(columns, copy=False)


def _token_columns(path: Path) -> Iterator[npt.NDArray[Any]]:
    """What a token table must have, a column at a time so that none is held twice; a latency is NaN where missing."""
    arrow = read_arrow(path, TOKEN_METRICS, TOKEN_METRICS.required)
    for name in ("request_id", "token_index", "token_time_ns", "token_latency_ns"):
        column = arrow.column(name)
        arrow = arrow.drop_columns([name])
        values = column.to_numpy()
        del column
        if name == "token_latency_ns":
            yield np.asarray(values, dtype=np.float64)
        else:
            yield values if name == "token_time_ns" else _narrow(values)


def _since_previous(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Differences of neighbours; the first value has none, and 0."""
    since = np.zeros_like(values)
    np.subtract(values[1:], values[:-1], out=since[1:])
    return since


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Half the memory, wherever the numbers allow it."""
    small = not len(values) or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32) if small else values


def groups(ids: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each request starts and ends in ordered rows."""
    is_first = np.ones(len(ids), dtype=bool)
    np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    return starts, np.append(starts[1:], len(ids))[: len(starts)]
