"""Arrival schedules, in integer nanoseconds and the same on any machine."""

from decimal import Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.schema import MAX_ARRIVAL_NS, ArrivalConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.workloads.draws import Floats, gammas, ln, uniforms

_LN = Context(prec=20)
_DOUBT = 1e-14  # relative; the error of a draw is a few times 1e-16


def arrival_process(arrival: ArrivalConfig, num_requests: int, seed: int) -> ArrivalProcess:
    """When requests are sent; see `inter_arrivals`, and of a closed loop `ArrivalProcess.closed_loop`."""
    if arrival.kind == "closed_loop":
        assert arrival.concurrency is not None  # the config's own check
        times_ns = (round(seconds * 1e9) for seconds in (arrival.think_time_s, arrival.ramp_s))
        return ArrivalProcess.closed_loop(num_requests, arrival.concurrency, *times_ns)
    return ArrivalProcess.at(np.cumsum(inter_arrivals(arrival, num_requests, seed)))


def inter_arrivals(arrival: ArrivalConfig, num_requests: int, seed: int) -> Ints:
    """Gaps before each request; the first request arrives at 0.

    Parameters
    ----------
    arrival : ArrivalConfig
        ``fixed_interval``: equal gaps. ``poisson``: exponential gaps of mean ``1e9 / rate_per_s``. ``ramp``: the same
        at a rate that goes in equal steps from ``rate_per_s`` at the first request to ``end_rate_per_s`` at the last.
        ``gamma``: gaps of that mean whose standard deviation is ``cv`` times it.
    num_requests : int
    seed : int

    Returns
    -------
    numpy.ndarray of shape (num_requests,), int64
        Nanoseconds.

    Raises
    ------
    ConfigError
        They are longer than a hundred years together.
    """
    if arrival.kind == "fixed_interval":
        gaps = _whole(np.full(num_requests, arrival.inter_arrival_ns, dtype=np.int64))
    elif arrival.kind == "gamma":
        shape = 1 / (arrival.cv * arrival.cv)
        scale = 1e9 / arrival.rate_per_s / shape
        gaps = _whole(np.floor(gammas(shape, f"gamma-{seed}", num_requests) * scale))
    else:
        rates = np.full(num_requests, arrival.rate_per_s)
        if arrival.end_rate_per_s is not None and arrival.kind == "ramp":
            step = (arrival.end_rate_per_s - arrival.rate_per_s) / max(num_requests - 1, 1)
            rates = arrival.rate_per_s + step * np.arange(num_requests)
        gaps = _exponential_ns(1e9 / rates, seed)
    gaps[:1] = 0
    return gaps


def _whole(gaps: npt.NDArray[Any]) -> Ints:
    """Gaps as integers, which their sum must not pass.

    Raises
    ------
    ConfigError
        They are longer than a hundred years together.
    """
    years = gaps[1:].sum(dtype=np.float64) / 1e9 / 86_400 / 365
    if not years * 365 * 86_400 * 1e9 <= MAX_ARRIVAL_NS:
        raise ConfigError(
            f"the requests would arrive over {years:.3g} years: raise workload.arrival.rate_per_s, or ask for fewer"
        )
    return gaps.astype(np.int64)


def _exponential_ns(mean_ns: Floats, seed: int) -> Ints:
    """Inverse-transform sampling, -ln(1 - u) x mean (Devroye 1986, II.2), rounded down.

    What is rounded is the exact value: a draw so close to a whole nanosecond that its error could decide is drawn with
    Decimal's logarithm.
    """
    uniform = uniforms(seed, len(mean_ns))
    draws = -ln(1.0 - uniform) * mean_ns
    gaps = _whole(np.floor(draws))
    for index in np.flatnonzero(np.abs(draws - np.rint(draws)) <= draws * _DOUBT):
        gaps[index] = int(-_LN.ln(Decimal(1 - float(uniform[index]))) * Decimal(float(mean_ns[index])))
    return gaps
