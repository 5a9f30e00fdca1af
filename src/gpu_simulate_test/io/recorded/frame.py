"""What every reader of recorded requests gives, and what of it cannot be.

A reader gives a table: columns by name, a value a request. Of times and lengths these names are known, the times with
their unit at the end, ``_s``, ``_ms``, ``_us`` or ``_ns``:

``num_prefill_tokens``, ``num_decode_tokens``
``arrival_time``, ``first_scheduled_time``, ``first_token_time``, ``completion_time``
    Of one clock.
``queue``, ``ttft``, ``e2e``
    The last three, since the arrival.
``token_gaps``, ``token_times``
    A list for each request: between what came after one another, or when it came.
``error``, ``error_type``
    See `gpu_simulate_test.io.recorded.text.failure`.
``status``
    A text, ``ok`` unless the request failed.
``session``, ``delay``
    The conversation that it is a turn of, anything; the time since the answer before it.
``prompt_id``, ``hash_ids``
    What prompts have in common; see `gpu_simulate_test.io.recorded.blocks`.
"""

from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import MAX_TOKENS
from gpu_simulate_test.io.recorded.blocks import blocks
from gpu_simulate_test.io.recorded.numbers import MAX_LATENCY_NS, MAX_SPAN_NS, Ints, Malformed, Mask, Rows, quantity
from gpu_simulate_test.io.recorded.text import failure

LENGTHS = ("num_prefill_tokens", "num_decode_tokens")
# In the order in which they happen.
TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "completion_time_ns")
POINTS = tuple(name.removesuffix("_ns") for name in TIMES)
DURATIONS = {"queue": POINTS[1], "ttft": POINTS[2], "e2e": POINTS[3]}
CHUNKS = ("token_gaps", "token_times")

_LONELY_NS = 3600 * 10**9
_CLOCK_ERROR_NS = 1000  # a float of seconds since 1970 is good to a quarter of a microsecond


def finished(rows: Rows) -> pd.DataFrame:
    """Requests in order of arrival, times in ns since the first; what cannot be is refused.

    Returns
    -------
    pandas.DataFrame of shape (n_requests, n_columns)
        See `gpu_simulate_test.io.recorded.read_recorded`.

    Raises
    ------
    Malformed
        The first such request is named by its number in the file, and the field.
    """
    if not rows.size:
        raise Malformed("no request in it")
    names = _names(rows)
    served = bool({POINTS[3], *CHUNKS} & names.keys())
    types, messages = _errors(rows)
    failed = np.array([one is not None for one in types], dtype=bool)
    prefill, no_prefill = rows.counts(LENGTHS[0], MAX_TOKENS)
    decode, no_decode = rows.counts(LENGTHS[1], MAX_TOKENS)
    if served:
        for index in np.flatnonzero(~failed & (decode == 0)):
            types[index], messages[index] = "error", "no output token"
        failed |= decode == 0
        if failed.all():
            raise Malformed(f"every request failed; the first: {messages[0]}")
        rows.refuse(~failed & ~no_prefill & (prefill == 0), LENGTHS[0], "is 0, and the request has not failed")
        prefill, decode = (np.where(failed, np.maximum(counts, 1), counts) for counts in (prefill, decode))
    for name, missing in ((LENGTHS[0], no_prefill), (LENGTHS[1], no_decode)):
        rows.refuse(missing & ~failed, name, "is missing")
    frame = pd.DataFrame({LENGTHS[0]: prefill, LENGTHS[1]: decode})
    frame = frame.assign(error_type=pd.Series(types, dtype=object), error_msg=pd.Series(messages, dtype=object))
    frame = frame.assign(**blocks(rows, prefill), **_turns(rows))
    if POINTS[0] not in names and not served:
        return frame
    start = _add_arrivals(frame, rows, names, served=served)
    _add_times(frame, rows, names, start, failed)
    return frame.sort_values(TIMES[0], kind="stable", ignore_index=True) if TIMES[0] in frame else frame


def _turns(rows: Rows) -> dict[str, Any]:
    """Columns of conversations; none where they are not recorded."""
    if "session" not in rows.table:
        return {}
    names = enumerate(rows.table["session"])
    columns: dict[str, Any] = {"session": [str(one) if one not in (None, "") else f"alone-{row}" for row, one in names]}
    if delay := next((name for name in rows.table if quantity(name)[0] == "delay"), None):
        columns["delay_ns"] = pd.arrays.IntegerArray(*rows.durations(delay))
    return columns


def _names(rows: Rows) -> dict[str, str]:
    """From what a column says to its name."""
    names: dict[str, str] = {}
    for name in rows.table:
        kind = quantity(name)[0]
        other = names.setdefault(DURATIONS.get(kind, kind), name)
        if other != name:
            raise Malformed(f"{rows.field(other)} and {rows.field(name)} are two columns for one quantity")
    return names


def _errors(rows: Rows) -> tuple[list[str | None], list[str | None]]:
    nothing: list[str | None] = [None] * rows.size
    if not {"error", "error_type", "status"} & rows.table.keys():
        return nothing, list(nothing)
    errors, kinds = (rows.table.get(name, nothing) for name in ("error", "error_type"))
    told = [failure(*one) for one in zip(errors, kinds, strict=True)]
    for index, status in enumerate(rows.table.get("status", ())):
        if str(status).strip().lower() == "ok":
            told[index] = None, None
        elif told[index][0] is None:
            told[index] = failure(status, "error")
    return [kind for kind, _ in told], [message for _, message in told]


def _add_arrivals(frame: pd.DataFrame, rows: Rows, names: dict[str, str], *, served: bool) -> tuple[Any, int]:
    """Add ``arrival_time_ns`` where it was recorded; the first, in the column's own unit, and that in ns."""
    name = names.get(POINTS[0])
    if name is None:
        return 0, 1
    values, missing = rows.clock(name)
    rows.refuse(missing, name, "is missing")
    start, unit = values.min().item(), quantity(name)[1]
    far = np.abs(values - np.median(values)) if (values.max().item() - start) * unit > MAX_SPAN_NS else np.zeros(1)
    rows.refuse((far > 0) & (far == far.max()), name, "is more than ten years from others: of another clock?")
    arrival, _ = rows.since(name, start, unit)
    if served and rows.size > 2:  # a request is waited for, so all came within hours
        order = np.argsort(arrival, kind="stable")
        first, second, last_but_one, last = arrival[order[[0, 1, -2, -1]]]
        alone = ((order[0], second - first, last - second), (order[-1], last - last_but_one, last_but_one - first))
        for index, gap, rest in alone:
            lonely = (np.arange(rows.size) == index) & (gap > max(_LONELY_NS, 10 * rest))
            rows.refuse(lonely, name, f"is {gap / 3.6e12:.1f} hours away from all others: of another clock?")
    frame[TIMES[0]] = arrival
    return start, unit


def _add_times(frame: pd.DataFrame, rows: Rows, names: dict[str, str], start: tuple[Any, int], failed: Mask) -> None:
    """Add the other times; without recorded arrivals, those since each request's own."""
    arrival: Ints = frame[TIMES[0]].to_numpy() if TIMES[0] in frame else np.zeros(rows.size, dtype=np.int64)
    times: dict[str, tuple[Ints, Mask]] = {}
    for point in POINTS[1:]:
        if name := names.get(point):
            if quantity(name)[0] in DURATIONS:
                late, missing = rows.durations(name)
                moment = arrival + late
            else:
                moment, missing = rows.since(name, *start)
            times[point] = moment, missing | failed
    if chunks := next((names[kind] for kind in CHUNKS if kind in names), None):
        lists = _Chunks(rows, chunks, start, failed)
        times[POINTS[2]] = lists.first or times.get(POINTS[2], (arrival, np.ones(rows.size, dtype=bool)))
    if first := times.get(POINTS[2]):  # nothing is served in no time: it was not measured
        times[POINTS[2]] = first[0], first[1] | (first[0] == arrival)
    if chunks:
        frame["token_times_ns"] = _add_chunks(times, lists, frame[LENGTHS[1]].to_numpy(), failed)
    before, last = arrival, names.get(POINTS[0], "")
    for point in (one for one in POINTS if one in times):
        moment, missing = times[point]
        name = names.get(point) or chunks or point
        rows.refuse(~missing & (moment < before - _CLOCK_ERROR_NS), name, f"is before {rows.field(last)}")
        rows.refuse(~missing & (moment - arrival > MAX_LATENCY_NS), name, "is more than a day after the arrival")
        if point == POINTS[3]:
            rows.refuse(missing & ~failed, name, "is missing, and the request has not failed")
        moment = np.where(missing, before, np.maximum(moment, before))
        frame[f"{point}_ns"] = pd.arrays.IntegerArray(moment, missing)
        before, last = moment, last if missing.all() else name


class _Chunks:
    """What a client saw come, request by request.

    Attributes
    ----------
    counts : numpy.ndarray of shape (n_requests,), int64
        Chunks, but for one where they are known by the gaps between them.
    gaps : numpy.ndarray of shape (sum of counts,), int64
        Nanoseconds since the chunk before.
    first : tuple of numpy.ndarray of shape (n_requests,), or None
        When the first came, and where that is unknown.
    """

    def __init__(self, rows: Rows, name: str, start: tuple[Any, int], failed: Mask) -> None:
        lists = [[] if gone or one is None else one for one, gone in zip(rows.table[name], failed, strict=True)]
        for number, one in enumerate(lists, start=1):
            if not isinstance(one, list):
                raise Malformed(f"request {number}: {rows.field(name)} is no list: {ascii(one)[:40]}")
        self.counts = np.array([len(one) for one in lists], dtype=np.int64)
        self.ends = np.cumsum(self.counts)
        flat = Rows({name: list(chain.from_iterable(lists))}, rows.fields, np.repeat(np.arange(rows.size), self.counts))
        self.first: tuple[Ints, Mask] | None = None
        if name.startswith("token_times"):
            moments, missing = flat.since(name, *start)
            some = self.counts > 0
            heads = (self.ends - self.counts)[some]
            first = np.zeros(rows.size, dtype=np.int64)
            first[some] = moments[heads]
            self.first = first, ~some
            self.gaps = np.diff(moments, prepend=0)
            self.gaps[heads] = 0
            flat.refuse(self.gaps < 0, name, "decreases")
        else:
            self.gaps, missing = flat.durations(name)
        flat.refuse(missing, name, "holds a null")

    def spans(self) -> Ints:
        """From the first to the last."""
        total = np.concatenate([[0], np.cumsum(self.gaps)])
        return np.asarray(total[self.ends] - total[self.ends - self.counts], dtype=np.int64)


def _add_chunks(times: dict[str, tuple[Ints, Mask]], chunks: _Chunks, decode: Ints, failed: Mask) -> pd.Series:
    """Complete the times by those of chunks; the times of tokens.

    A client sees chunks of text, not tokens. Where a request has as many chunks as output tokens, they are its tokens.
    """
    first, unknown = times[POINTS[2]]
    came = chunks.counts if chunks.first else chunks.counts + 1
    last = first + chunks.spans()
    end, no_end = times.get(POINTS[3], (last, unknown))
    early = ~failed & ~unknown & ~no_end & (end < first - _CLOCK_ERROR_NS)
    whole = ~failed & ~unknown & ~early & (came == decode)
    times[POINTS[3]] = np.where(whole, last, end), no_end & ~whole
    several = ~failed & (decode > 1)
    if several.any() and (came[several] <= 1).all():  # each answer came in one piece: it was not streamed
        times[POINTS[2]] = first, np.ones_like(unknown)
        whole = np.zeros_like(whole)
    tokens = pd.Series([None] * len(decode), dtype=object)
    for index in map(int, np.flatnonzero(whole)):
        gaps = chunks.gaps[chunks.ends[index] - chunks.counts[index] : chunks.ends[index]]
        tokens[index] = first[index] + np.cumsum(gaps if chunks.first else np.concatenate([[0], gaps]))
    return tokens
