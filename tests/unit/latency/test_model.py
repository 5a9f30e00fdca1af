"""One protocol: a run of decode steps costs what its batches cost one by one, whatever knows the cost."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.latency.model import LatencyModel, Slowed, decode_run
from gpu_simulate_test.latency.noise import Noise, Noisy
from gpu_simulate_test.profiles.predictors import Predictors
from tests.unit.latency.test_noise import RECORD
from tests.unit.latency.test_predictor import measure, operator_model
from tests.unit.profiles.test_recorded import model_of, write_profile

NAMES = ("iterations", "iterations alone", "operators", "kernels", "kernels, equal contexts", "slowed")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LatencyModel]:
    folder: Path = tmp_path_factory.mktemp("kernels")
    points = measure(range(3))
    iterations = Predictors.fit(operator_model(), points).iterations
    kernels = model_of(write_profile(folder / "skew"))
    every: tuple[LatencyModel, ...] = (
        iterations,
        Predictors.fit(None, points).iterations,
        operator_model(),
        kernels,
        model_of(write_profile(folder / "equal", skew=False)),
        Slowed(kernels, 1.37),
    )
    return dict(zip(NAMES, every, strict=True))


def decoding(contexts: list[int]) -> Composition:
    return Composition.of([ScheduledSeq(number, 1, cached, False) for number, cached in enumerate(contexts)])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(contexts=st.lists(st.integers(1, 6000), min_size=1, max_size=300), count=st.integers(1, 200))
def test_a_run_of_decode_steps_takes_bit_for_bit_what_they_take_one_by_one(
    models: dict[str, LatencyModel], name: str, contexts: list[int], count: int
) -> None:
    batch = decoding(contexts)
    times = models[name].decode_run_ns(batch, count)
    assert times is not None
    assert times.tolist() == [models[name].step_ns(one, 0.0) for one in decode_run(batch, count)]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=9), st.integers(1, 40))
def test_a_run_is_of_sequences_that_each_cache_one_token_more_an_iteration(contexts: list[int], count: int) -> None:
    batches = list(decode_run(decoding(contexts), count))
    assert batches == [decoding([cached + number for cached in contexts]) for number in range(count)]


def test_a_slow_machine_takes_so_many_times_as_long(models: dict[str, LatencyModel]) -> None:
    batch = decoding([10, 20])
    assert Slowed(models["kernels"], 1.5).step_ns(batch, 0.0) == 1.5 * models["kernels"].step_ns(batch, 0.0)


def test_noise_follows_the_record_by_the_time_and_does_not_know_a_run_beforehand(
    models: dict[str, LatencyModel],
) -> None:
    noisy, batch = Noisy(models["operators"], Noise(RECORD), 5), decoding([10, 20])
    certain = models["operators"].step_ns(batch, 0.0)
    ratios = [noisy.step_ns(batch, now) / certain for now in (0.0, 5.0, 14.9, 16.0)]
    assert ratios == pytest.approx([0.8, 1.0, 1.5, 0.8])
    assert noisy.decode_run_ns(batch, 3) is None
