"""Conversations: a turn is sent when the one before it is answered, after a while."""

from collections.abc import Sequence

import numpy as np

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.schema import ArrivalConfig
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.workloads.arrival_schedule import arrival_process


def session_process(
    arrival: ArrivalConfig, session: Sequence[str], delay_ns: Ints, recorded_ns: Ints | None, seed: int
) -> ArrivalProcess:
    """When the turns of conversations are sent.

    Parameters
    ----------
    arrival : ArrivalConfig
        Of the first turns; of a closed loop, a user begins another conversation when one is over.
    session : sequence of str of shape (n_requests,)
        The conversation of each, whose turns are in order.
    delay_ns : numpy.ndarray of shape (n_requests,), int64
        Since the answer before it; -1: the think time.
    recorded_ns : numpy.ndarray of shape (n_requests,), int64, or None
        Recorded arrivals, ascending; those of the first turns are taken with ``workload.arrival.kind=trace``.
    seed : int
    """
    last: dict[str, int] = {}
    follows = np.full(len(session), -1, dtype=np.int64)
    for turn, name in enumerate(session):
        follows[turn] = last.get(name, -1)
        last[name] = turn
    first = follows < 0
    if arrival.kind == "trace":
        assert recorded_ns is not None  # a trace without arrivals is refused
        begins = ArrivalProcess.at(recorded_ns[first])
    else:
        begins = arrival_process(arrival, int(first.sum()), seed)
    known = np.full(len(session), -1, dtype=np.int64)
    delay = np.where(delay_ns < 0, round(arrival.think_time_s * 1e9), delay_ns)
    known[first], delay[first] = begins.known_ns, begins.delay_ns
    return ArrivalProcess(known, follows, delay)
