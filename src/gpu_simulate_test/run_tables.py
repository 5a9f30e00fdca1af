"""The tables of a run, real, simulated or recorded elsewhere: one builder for all."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from gpu_simulate_test.io.summary import LEVELS
from gpu_simulate_test.io.tables import REQUEST_COLUMNS
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.spans import Floats, Gaps, Ints, Spans
from gpu_simulate_test.timeline import ITERATION_COLUMNS, Timeline

_PIECE = 1 << 19  # tokens, or iterations, that are in memory together


def request_table(workload: Workload, line: Timeline, backend: str) -> pd.DataFrame:
    """``request_metrics.csv``: a row for every request, whatever became of it.

    Raises
    ------
    AssertionError
        A request neither failed nor made a token.
    """
    size, spans = len(workload), line.spans()
    start_ns, out_ns = np.append(line.start_ns, 0), line.out_ns  # the 0 is for those that no iteration took up
    ok = np.ones(size, dtype=bool)
    ok[list(line.failures)] = False
    begin, end = (np.searchsorted(spans.request, np.arange(size), side=side) for side in ("left", "right"))
    if len(missing := np.flatnonzero(ok & (begin == end))):
        raise AssertionError(f"requests neither served nor failed: {missing.tolist()}")
    first, last = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    first[ok] = out_ns[spans.first[begin[ok]]]
    last[ok] = out_ns[(spans.first + spans.count - 1)[end[ok] - 1]]
    counts = spans.counts(size)
    last[ok & (counts > 1)] += line.later_ns
    scheduled, submitted = (np.array(values, dtype=np.int64) for values in (line.first_scheduled, line.submit_ns))
    columns = {
        "request_id": workload.lengths["request_id"],
        "arrival_time_ns": np.array(line.arrival_ns, dtype=np.int64),
        "submit_time_ns": pd.arrays.IntegerArray(submitted, ~ok),
        "first_scheduled_time_ns": pd.arrays.IntegerArray(start_ns[scheduled], ~ok | (scheduled < 0)),
        "first_token_time_ns": pd.arrays.IntegerArray(first, ~ok),
        "completion_time_ns": pd.arrays.IntegerArray(last, ~ok),
        "num_prefill_tokens": workload.lengths["num_prefill_tokens"],
        "num_decode_tokens": workload.lengths["num_decode_tokens"],
        "num_decode_tokens_actual": counts,
        "num_preemptions": np.array(line.restarts, dtype=np.int64),
        "num_cached_tokens": np.array(line.cached, dtype=np.int64),
    }
    if line.replica is not None:
        columns["replica"] = np.array(line.replica, dtype=np.int64)
    if line.failures:
        errors = [line.failures.get(request) for request in range(size)]
        columns["error_type"] = [error and error.error_type for error in errors]
        columns["error_msg"] = [error and error.message for error in errors]
    return with_status(pd.DataFrame(columns), backend)


def first_and_last_tokens(line: Timeline) -> tuple[Ints, Ints]:
    """The iterations of the first and the last token of each request, all of which made one, shape (n_requests,)."""
    spans, requests = line.spans(), np.arange(line.num_requests)
    begin = np.searchsorted(spans.request, requests)
    end = np.searchsorted(spans.request, requests, side="right") - 1
    return spans.first[begin], (spans.first + spans.count - 1)[end]


def with_status(times: pd.DataFrame, backend: str) -> pd.DataFrame:
    """``request_metrics.csv`` from times.

    Parameters
    ----------
    times : pandas.DataFrame of shape (n_requests, n_columns)
        The columns of `REQUEST_COLUMNS` that do not follow from the others: ``error_type`` and ``error_msg`` where a
        request failed, ``submit_time_ns`` where an engine did not get every request on its arrival.
    """
    if "error_type" not in times:
        times = times.assign(error_type=None, error_msg=None)
    if "num_cached_tokens" not in times:
        times = times.assign(num_cached_tokens=pd.array([pd.NA] * len(times), dtype="Int64"))
    ok = times["error_type"].isna()
    if "submit_time_ns" not in times:
        times = times.assign(submit_time_ns=times["arrival_time_ns"].astype("Int64").where(ok))
    return times.assign(
        ttft_ns=times["first_token_time_ns"] - times["arrival_time_ns"],
        status=ok.map({True: "ok", False: "error"}),
        is_warmup=False,
        backend=backend,
    )[[*REQUEST_COLUMNS, *times.columns.intersection(["replica"])]]


def token_tables(line: Timeline) -> Iterator[pd.DataFrame]:
    """``token_metrics.csv``, some requests at a time; one piece at least. A failed request has no tokens there."""
    spans, out_ns = line.spans().without(list(line.failures)), line.out_ns
    made = np.cumsum(spans.counts(line.num_requests))
    begin = 0
    while begin < line.num_requests or not begin:
        before = made[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(made, before + _PIECE, side="right")))
        yield _tokens(spans.of_requests(begin, end), out_ns, line.later_ns)
        begin = end


def _tokens(spans: Spans, out_ns: Ints, later_ns: int) -> pd.DataFrame:
    iterations, requests = spans.iterations(), np.repeat(spans.request, spans.count)
    begins = np.diff(requests, prepend=-1) != 0
    times = out_ns[iterations] + later_ns * ~begins
    first = np.flatnonzero(begins)
    columns = {
        "request_id": requests,
        "token_index": np.arange(len(times)) - np.repeat(first, np.diff(first, append=len(times))),
        "token_time_ns": times,
        "token_latency_ns": pd.arrays.IntegerArray(np.diff(times, prepend=0), begins),
    }
    if spans.token_ids is not None:
        columns["token_id"] = spans.token_ids
    return pd.DataFrame(columns | {"iteration_id": iterations})


def iteration_tables(line: Timeline) -> Iterator[pd.DataFrame]:
    """``iteration_metrics.csv``, some iterations at a time; one piece at least."""
    rows = line.iterations
    for begin in range(0, max(1, len(rows)), _PIECE):
        some = rows[begin : begin + _PIECE]
        frame = pd.DataFrame(dict(zip(ITERATION_COLUMNS, some.T, strict=True)))
        frame.insert(0, "iteration_id", np.arange(begin, begin + len(some)))
        if line.replica is not None:
            frame["replica"] = line.replica_of(begin, begin + len(some))
        yield frame


def token_gaps(line: Timeline) -> Gaps:
    """Times between the tokens of the requests that completed."""
    return line.spans().without(list(line.failures)).gaps(line.out_ns, line.later_ns)


def latency_percentiles(requests: pd.DataFrame, gaps: Gaps) -> Floats:
    """P50, P90 and P99 of TTFT and TBT, ms, shape (2, 3); NaN for a metric without values."""
    ttft = requests["ttft_ns"].dropna().to_numpy(dtype=np.int64)
    levels = np.array(LEVELS)
    return (
        np.array(
            [np.percentile(ttft, levels) if len(ttft) else np.full(len(LEVELS), np.nan), gaps.quantiles(levels / 100)]
        )
        / 1e6
    )
