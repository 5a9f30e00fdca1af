"""A trace of both runs for chrome://tracing or ui.perfetto.dev.

Trace Event Format (Google, 2016): complete events (``ph`` X) with times in microseconds.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.samples import ints

MAX_REQUESTS = 200
_ENDS = {"queue": "first_scheduled_time_ns", "prefill": "first_token_time_ns", "decode": "completion_time_ns"}
_ITERATION_ARGUMENTS = ("num_prefill_tokens", "num_prefill_seqs", "num_decode_seqs", "kv_tokens_decode")


def trace_json(real: Run, sim: Run) -> str:
    """Trace of the first `MAX_REQUESTS` requests to arrive, and of the iterations that ran meanwhile.

    Parameters
    ----------
    real, sim : Run
        Processes 1 and 2 of the trace; both start at their first arrival. Thread 0 is the engine, every other
        thread one request; those above `MAX_REQUESTS` are the engine as well, where its iterations overlap.

    Returns
    -------
    str
        JSON, one event a line.
    """
    events = [*_events(real, 1, "real"), *_events(sim, 2, "sim")]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return '{"displayTimeUnit":"ms","traceEvents":[\n' + lines + "\n]}\n"


def _events(run: Run, pid: int, name: str) -> list[dict[str, Any]]:
    done = run.requests[is_ok(run.requests)].sort_values("arrival_time_ns", kind="stable").head(MAX_REQUESTS)
    zero = int(done["arrival_time_ns"].min()) if len(done) else 0
    events = [_named(pid, 0, "process_name", name), _named(pid, 0, "thread_name", "engine iterations")]
    if run.iterations is not None and len(done):
        events += _iterations(run.iterations, pid, zero, int(done["completion_time_ns"].max()))
    for tid, request in enumerate(done.to_dict("records"), start=1):
        events.append(_named(pid, tid, "thread_name", f"request {request['request_id']}"))
        arguments = {
            "request": request["request_id"],
            "prompt tokens": request["num_prefill_tokens"],
            "output tokens": request["num_decode_tokens_actual"],
        }
        for phase, begin, end in phases(request):
            if end > begin:
                events.append(_event(phase, pid, tid, begin - zero, end - begin, arguments))
    return events


def phases(request: Mapping[Any, Any]) -> list[tuple[str, int, int]]:
    """What a request that completed did from when to when, ns.

    Parameters
    ----------
    request : mapping
        A row of `Run.requests`.

    Returns
    -------
    list of (str, int, int)
        ``queue``, ``prefill``, ``decode``; neighbours as one where the time between them was not recorded, such as
        ``queue and prefill``.
    """
    spans, names, since = [], [], int(request["arrival_time_ns"])
    for phase, column in _ENDS.items():
        names.append(phase)
        until = request.get(column)
        if until is not None and not pd.isna(until):
            spans.append((" and ".join(names), since, int(until)))
            names, since = [], int(until)
    return spans


def _iterations(frame: pd.DataFrame, pid: int, zero: int, until: int) -> list[dict[str, Any]]:
    shown = frame[(frame["start_time_ns"] < until) & (frame["end_time_ns"] > zero)].sort_values(
        "start_time_ns", kind="stable"
    )
    start, end, ids = (ints(shown[name]) for name in ("start_time_ns", "end_time_ns", "iteration_id"))
    arguments = shown[list(_ITERATION_ARGUMENTS)].to_dict("records")
    threads = [lane and MAX_REQUESTS + lane for lane in _lanes(start.tolist(), end.tolist())]
    named = [_named(pid, thread, "thread_name", "engine iterations") for thread in sorted(set(threads) - {0})]
    return named + [
        _event(f"iteration {ids[i]}", pid, threads[i], int(start[i]) - zero, int(end[i] - start[i]), arguments[i])
        for i in range(len(shown))
    ]


def _lanes(start: Sequence[int], end: Sequence[int]) -> list[int]:
    """Places of iterations that overlap, side by side: of a pipeline, several are under way."""
    free: list[int] = []  # when each lane is
    lanes = []
    for begins, ends in zip(start, end, strict=True):
        lane = next((number for number, since in enumerate(free) if since <= begins), len(free))
        free[lane : lane + 1] = [ends]
        lanes.append(lane)
    return lanes


def _event(name: str, pid: int, tid: int, start_ns: int, duration_ns: int, args: Any) -> dict[str, Any]:
    times = {"ts": start_ns / 1000, "dur": duration_ns / 1000}
    return {"name": name, "ph": "X", "pid": pid, "tid": tid, **times, "args": args}


def _named(pid: int, tid: int, kind: str, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
