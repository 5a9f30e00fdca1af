"""A run says of itself whether a longer one would say the same."""

import numpy as np
import pytest

from gpu_simulate_test.studies.capacity import MET, MISSED, SHORT
from gpu_simulate_test.studies.trials import lasting, throughput

S = 10**9


def queue(num_requests: int, rate: float, serves: float, takes_s: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Requests at `rate` to something that completes `serves` a second at most, each after `takes_s`."""
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(1 / rate, num_requests))
    starts = np.maximum.accumulate(arrival - np.arange(num_requests) / serves) + np.arange(num_requests) / serves
    return (arrival * S).astype(np.int64), ((starts + takes_s) * S).astype(np.int64)


@pytest.mark.parametrize("rate", [0.1, 5.0, 9.0])
def test_a_queue_that_keeps_up_is_steady(rate: float) -> None:
    assert lasting(*queue(2000, rate, 10.0)) == MET


@pytest.mark.parametrize("rate", [11.5, 15.0])
def test_a_queue_that_falls_behind_grows(rate: float) -> None:
    assert lasting(*queue(20_000, rate, 10.0, takes_s=0.01)) in (MISSED, SHORT)
    assert lasting(*queue(2000, 11.5, 10.0)) == MISSED


def test_a_run_of_few_times_a_requests_time_says_nothing() -> None:
    assert lasting(*queue(50, 10.0, 1000.0)) == SHORT
    assert lasting(np.zeros(5, dtype=np.int64), np.full(5, S)) == SHORT, "all at once"
    assert lasting(*queue(2000, 10.0, 1000.0)) == MET


def test_a_few_requests_more_at_the_end_are_chance() -> None:
    arrival = np.arange(0, 100 * S, S)
    completion = arrival + S // 2
    completion[-6:] = 200 * S
    assert lasting(arrival, np.sort(completion)) == MET


def test_the_throughput_is_of_the_middle_of_a_run() -> None:
    assert throughput(queue(2000, 100.0, 10.0)[1]) == pytest.approx(10, rel=0.01)
    assert throughput(queue(2000, 5.0, 10.0)[1]) == pytest.approx(5, rel=0.05)
    assert throughput(np.zeros(4, dtype=np.int64)) > 1e6
