"""What a calibration finds is there, and its intervals say how sure it is; where there is nothing, it finds nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchmarks.calibration import PLANTED, Source, estimated, is_right, planted_run
from gpu_simulate_test.calibration.estimate import Estimate, Observations, Problem, estimate
from gpu_simulate_test.latency.calibration import NAMES, NOTHING, Constants

SOURCES: tuple[Source, ...] = ("iterations", "requests")


@cache
def trial(source: Source) -> Estimate:
    return estimated(1, PLANTED, source)


@pytest.mark.parametrize("source", SOURCES)
def test_planted_constants_lie_in_the_intervals(source: Source) -> None:
    found = trial(source)
    assert is_right(PLANTED, found)
    assert {"step_ns", "sequence_ns", "front_end_ns"} <= set(found.found)
    assert "after_first_token_ns" not in found.found
    assert found.constants.after_first_token_ns == 0


@pytest.mark.parametrize("source", SOURCES)
def test_where_nothing_is_planted_nothing_is_found(source: Source) -> None:
    found = estimated(1, NOTHING, source)
    assert found.found == ()
    assert found.constants == NOTHING


def test_iteration_records_tell_the_kernels_from_the_host_more_exactly_than_request_times() -> None:
    records, times = map(trial, SOURCES)
    kernels = NAMES.index("kernel_factor")
    assert records.high[kernels] - records.low[kernels] < 0.5 * (times.high[kernels] - times.low[kernels])
    assert "kernel_factor" in records.found


def test_predictions_with_the_constants_are_those_of_the_engine_that_has_them() -> None:
    """However the constants share the time among them."""
    found = trial("requests")
    other = planted_run(99, PLANTED, "requests")
    for constants, most in ((found.constants, 0.03), (NOTHING, np.inf)):
        ttft_ns, e2e_ns = other.latencies(constants)
        for sim, real in ((ttft_ns, other.ttft_ns), (e2e_ns, other.e2e_ns)):
            error = abs(np.median(sim) / np.median(real) - 1)
            assert error < most
            assert constants != NOTHING or error > 0.3


LINEAR = Constants(step_ns=2e6, sequence_ns=0.1e6, kernel_factor=1.3, front_end_ns=5e6, after_first_token_ns=2e6)


def linear(truth: Constants, scatter: float, count: int = 400, columns: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Problem:
    """Observations that are linear in the constants; of `columns` alone there is anything to see."""
    rng = np.random.default_rng(0)
    slopes = np.zeros((count, 5))
    scale = np.array([1.0, 10.0, 10e6, 1.0, 1.0])
    slopes[:, columns] = (rng.uniform(0.5, 1.5, (count, 5)) * scale)[:, columns]

    def made(constants: Constants) -> np.ndarray:
        return 20e6 + slopes @ np.array([getattr(constants, name) for name in NAMES])

    observed = made(truth) * (1 + scatter * rng.normal(size=count))

    def problem(constants: Constants) -> list[Observations]:
        predicted = made(constants)
        return [Observations(predicted, observed, predicted, slopes, slopes, 0)]

    return problem


def test_without_scatter_the_constants_are_exact() -> None:
    found = estimate(linear(LINEAR, scatter=0.0))
    for name in NAMES:
        assert getattr(found.constants, name) == pytest.approx(getattr(LINEAR, name), rel=1e-3), name


def test_a_constant_that_nothing_speaks_of_is_neutral_and_its_interval_wide() -> None:
    truth = replace(NOTHING, kernel_factor=1.3, front_end_ns=5e6)
    found = estimate(linear(truth, scatter=0.01, columns=(2, 3)))
    assert set(found.found) == {"kernel_factor", "front_end_ns"}
    assert found.constants.step_ns == 0
    assert found.low[0] < -10e6
    assert found.high[0] > 10e6


def test_constants_stay_within_what_is_physical() -> None:
    """An engine that is faster than its kernels has no negative host time."""
    truth = replace(NOTHING, step_ns=-4e6, kernel_factor=0.8)
    found = estimate(linear(truth, scatter=0.01))
    assert found.constants.step_ns == 0
    assert 0.5 <= found.constants.kernel_factor < 0.85


def test_the_interval_grows_with_the_scatter() -> None:
    widths = []
    for scatter in (0.01, 0.04):
        found = estimate(linear(LINEAR, scatter))
        widths.append(found.high - found.low)
    assert (widths[1] > 2 * widths[0]).all()
