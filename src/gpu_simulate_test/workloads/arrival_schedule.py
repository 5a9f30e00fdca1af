"""Arrival schedules, in integer nanoseconds and the same on any machine."""

import random
from decimal import Context, Decimal

import numpy as np

from gpu_simulate_test.config.schema import ArrivalConfig

_LN = Context(prec=20)


def inter_arrivals(arrival: ArrivalConfig, num_requests: int, seed: int) -> np.ndarray:
    """Gaps before each request; the first request arrives at 0.

    Parameters
    ----------
    arrival : ArrivalConfig
        ``fixed_interval`` (equal gaps) or ``poisson`` (exponential gaps of mean ``1e9 / rate_per_s``).
    num_requests : int
    seed : int

    Returns
    -------
    numpy.ndarray of shape (num_requests,), int64
        Nanoseconds.
    """
    if arrival.kind == "fixed_interval":
        gaps = np.full(num_requests, arrival.inter_arrival_ns, dtype=np.int64)
    else:
        gaps = _exponential_ns(1e9 / arrival.rate_per_s, num_requests, seed)
    gaps[:1] = 0
    return gaps


def _exponential_ns(mean_ns: float, count: int, seed: int) -> np.ndarray:
    """Inverse-transform sampling, -ln(1 - u) x mean (Devroye 1986, II.2).

    A C library's log may differ in its last bit from another's; Decimal's is exact everywhere, and so
    is ``random.Random(seed).random()``, which Python promises never to change.
    """
    uniform = random.Random(seed).random
    mean = Decimal(mean_ns)
    draws = (int(-_LN.ln(Decimal(1 - uniform())) * mean) for _ in range(count))
    return np.fromiter(draws, dtype=np.int64, count=count)
