"""Simulations with noise scatter as the profiled iterations did, and say how sure each figure is."""

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.model import batches_of
from gpu_simulate_test.latency.noise import Noise
from gpu_simulate_test.profiles.bursts import Measured, noise_record, random_episode, run_episode
from gpu_simulate_test.profiles.operators import Reach
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost

RECORD = pd.DataFrame({"time_ns": [0, 10, 20], "ratio": [0.8, 1.0, 1.5]})


def test_a_ratio_holds_until_the_next_iteration_began_and_the_record_goes_round() -> None:
    noise = Noise(RECORD)
    assert [noise.ratio(time) for time in (0, 9, 10, 19, 20, 21, 30, 31)] == [0.8, 0.8, 1.0, 1.0, 1.5, 0.8, 0.8, 1.0]


def test_offsets_lie_within_the_record_and_follow_the_seed() -> None:
    noise = Noise(RECORD)
    offsets = [noise.draw_offset(np.random.default_rng(seed)) for seed in range(50)]
    assert offsets == [noise.draw_offset(np.random.default_rng(seed)) for seed in range(50)]
    assert 0 <= min(offsets) < max(offsets) < 21


def test_the_record_of_an_engine_holds_its_excess_over_the_prediction_in_order_of_time() -> None:
    clock = VirtualClock()
    start = clock.now_ns()

    def cost(batch: Composition) -> int:  # half as slow again from 100 ms on
        return round(affine_cost(batch) * (1.5 if clock.now_ns() - start > 100_000_000 else 1.0))

    engine = VirtualEngine(clock, cost, max_num_seqs=8)
    reach = Reach(max_tokens=64, max_seqs=8, max_context=256, max_cached=4096)
    measured = Measured()
    for seed in range(9):
        measured.add(run_episode(engine, random_episode(reach, seed), vocab_size=100, clock=clock))
    assert clock.now_ns() - start > 200_000_000
    table = measured.table()
    record = noise_record(table, np.array([affine_cost(batch) for batch in batches_of(table)]))
    assert record["time_ns"].is_monotonic_increasing
    late = record["time_ns"] > 100_000_000
    assert record.loc[~late, "ratio"].to_numpy() == pytest.approx(1.0)
    assert record.loc[late, "ratio"].to_numpy() == pytest.approx(1.5)
