"""Capacity is found, and by as few simulations as it can be."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.studies.capacity import MET, MISSED, SHORT, Search, Trial

Simulate = Callable[[float], Trial]
ENOUGH = 20
N = 2000


def served(capacity: float, *, most: float = math.inf, e2e_s: float = 10.0, width: float = 0.05) -> Simulate:
    """A deployment whose attainment falls through 99 % at `capacity`, and that completes `most` at most."""

    def simulate(value: float) -> Trial:
        logit = math.log(99) - math.log(value / capacity) / width
        share = 1 / (1 + math.exp(-min(max(logit, -700), 700)))
        return Trial(value, 0, round(share * N) / N, None, None, N, min(value, most), e2e_s * max(1.0, value / most))

    return simulate


def ranged(middle: Simulate, low: Simulate, high: Simulate) -> Simulate:
    def simulate(value: float) -> Trial:
        shares = {"low": low(value).attainment, "high": high(value).attainment}
        return Trial(**(vars(middle(value)) | shares))

    return simulate


def searched(search: Search, simulate: Simulate) -> Search:
    while (value := search.next()) is not None:
        assert value not in [trial.value for trial in search.trials]
        assert len(search.trials) < ENOUGH, search.trials
        search.trials.append(simulate(value))
    return search


def ends(search: Search, side: str = "") -> tuple[float | None, float | None]:
    found = search.bracket(side)
    return found.met and found.met.value, found.above and found.above.value


@given(st.floats(-2, 5), st.floats(0.002, 0.3), st.floats(1.02, 3), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_capacity_lies_between_two_simulations_that_are_as_close_as_asked(
    log_capacity: float, width: float, room: float, tolerance: float
) -> None:
    capacity = 10**log_capacity
    simulate = served(capacity, most=room * capacity, e2e_s=2 / capacity, width=width)
    met, missed = ends(searched(Search(0.99, 4.0, tolerance), simulate))
    assert met is not None
    assert missed is not None
    # A share is a whole number of requests.
    assert met / 1.02 <= capacity <= missed * 1.02
    assert missed / met <= (1 + tolerance) * 1.001


@pytest.mark.parametrize(("factor", "most"), [(0.3, 9), (0.9, 7), (1.1, 7), (2, 7), (10, 8), (100, 8)])
def test_a_guess_that_is_near_saves_simulations(factor: float, most: int) -> None:
    for room in (1.05, 1.2, 2):
        for width in (0.01, 0.05, 0.2):
            search = searched(Search(0.99, 5 * factor), served(5, most=5 * room, width=width))
            assert len(search.trials) <= most, search.trials


def test_from_a_guess_that_is_far_off_it_takes_no_more_than_from_one_that_is_near() -> None:
    taken = [
        len(searched(Search(0.99, 4.0), served(capacity, most=1.3 * capacity)).trials)
        for capacity in (0.05, 0.1, 0.5, 1, 2, 3, 5, 7, 9, 15, 30, 100)
    ]
    assert sum(taken) / len(taken) <= 6.5
    assert max(taken) <= 10


def test_a_concurrency_is_found_exactly_where_it_is_small_and_within_the_tolerance_where_it_is_not() -> None:
    for capacity in range(1, 12):
        search = searched(Search(0.99, 16, whole=True), served(capacity + 0.5, width=0.01))
        assert ends(search) == (capacity, capacity + 1)
    met, missed = ends(searched(Search(0.99, 16, whole=True), served(300.5, width=0.01)))
    assert met is not None
    assert missed is not None
    assert met <= 300 < missed <= met * 1.051


def test_what_misses_without_load_is_known_after_few() -> None:
    def simulate(value: float) -> Trial:
        return Trial(value, 0, 0.5, None, None, N, min(value, 3.0), 2.0)

    search = searched(Search(0.99, 4.0), simulate)
    assert ends(search)[0] is None
    assert len(search.trials) <= 4
    assert min(trial.value for trial in search.trials) * 2.0 <= 0.051

    search = searched(Search(0.99, 64, whole=True), simulate)
    assert [trial.value for trial in search.trials][-1] == 1
    assert len(search.trials) <= 4


def test_limits_end_the_search() -> None:
    assert ends(searched(Search(0.99, 4.0, high=10), served(100))) == (10, None)
    assert ends(searched(Search(0.99, 4.0, low=2), served(0.1))) == (None, 2)
    assert ends(searched(Search(0.99, 4.0, low=5, high=5), served(100))) == (5, None)


def test_a_run_too_short_to_tell_is_no_capacity() -> None:
    def simulate(value: float) -> Trial:
        return Trial(value, 0, 1.0, None, None, N, value, 1.0, SHORT if value > 37 else MET)

    met, above = ends(searched(Search(0.99, 4.0), simulate))
    assert met is not None
    assert above is not None
    assert met <= 37 < above <= 1.051 * met


def test_a_queue_that_grows_is_a_miss_however_many_met() -> None:
    def simulate(value: float) -> Trial:
        return Trial(value, 0, 1.0, None, None, N, min(value, 20.0), 1.0, MISSED if value > 20 else MET)

    met, missed = ends(searched(Search(0.99, 4.0), simulate))
    assert met is not None
    assert missed is not None
    assert met <= 20 < missed <= 1.051 * met


def test_the_ends_of_the_interval_are_decided_as_well() -> None:
    search = searched(Search(0.99, 4.0), ranged(served(5), served(4), served(6)))
    for side, capacity in (("low", 4), ("", 5), ("high", 6)):
        met, missed = ends(search, side)
        assert met is not None
        assert missed is not None
        assert met / 1.01 <= capacity <= missed * 1.01
        assert missed / met <= 1.051
    alike = searched(Search(0.99, 4.0), ranged(served(5), served(5), served(5)))
    assert len(alike.trials) == len(searched(Search(0.99, 4.0), served(5)).trials), "an interval of nothing is free"


@given(st.integers(0, 2**32))
def test_noise_does_not_keep_it_from_an_end(seed: int) -> None:
    rng = random.Random(seed)
    simulate = served(5, most=6)

    def noisy(value: float) -> Trial:
        trial = simulate(value)
        return Trial(**(vars(trial) | {"attainment": min(1.0, max(0.0, trial.attainment + rng.gauss(0, 0.01)))}))

    search = searched(Search(0.99, 4.0), noisy)
    met, missed = ends(search)
    assert missed is not None
    assert met is None or met < missed <= 1.051 * met
    assert all(trial.verdict(0.99) == MET for trial in search.trials if met and trial.value <= met)


def test_the_same_answers_ask_the_same_questions() -> None:
    first, second = (searched(Search(0.99, 4.0), served(7, most=8)) for _ in range(2))
    assert first.trials == second.trials
