"""The simulation against a hand-made truth and against our own scheduler."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.real_bench.replay import replay
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext.simulation import simulate
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings
from tests.support.latency import Costs
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost, requests_of

MS = 1_000_000
FEW = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)
pytestmark = pytest.mark.usefixtures("demo_in_vidur")


def sim(
    lengths: Sequence[tuple[int, int]], arrivals: Sequence[int], scheduler: str = "sarathi", **limits: int
) -> Timeline:
    values = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "block_size": 16, "num_blocks": 4096} | limits
    return simulate(
        SimSettings("gsim/qwen3-tiny", "cpu", "cpu_node", scheduler, EngineLimits(**values)),
        Costs(affine_cost),
        ArrivalProcess.at(np.array(arrivals, dtype=np.int64)),
        *np.array(lengths).T,
    )


def test_one_request_takes_what_its_iterations_take() -> None:
    result = sim([(100, 3)], [7 * MS])
    # chunks of 64 and 36, then two decode steps over 100 and 101 cached tokens
    first = 7 * MS + (1 * MS + 64 * 10_000) + (1 * MS + 36 * 10_000 + 64 * 1_000)
    second = first + 1 * MS + 10_000 + 100 * 1_000
    third = second + 1 * MS + 10_000 + 101 * 1_000
    assert result.token_times_ns() == [[first, second, third]]
    assert [result.start_ns[index] for index in result.first_scheduled] == [7 * MS]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 150), st.integers(1, 10)), min_size=1, max_size=10),
    st.integers(0, 9 * MS),
)
def test_an_engine_of_the_same_scheduler_and_cost_is_simulated_to_the_nanosecond(
    lengths: list[tuple[int, int]], gap: int
) -> None:
    arrivals = [index * (gap + 1) for index in range(len(lengths))]
    clock = VirtualClock()
    line = replay(VirtualEngine(clock), requests_of(lengths), ArrivalProcess.at(np.array(arrivals)), clock)
    real = line.token_times_ns()
    simulated = sim(lengths, arrivals).token_times_ns()
    assert [len(times) for times in simulated] == [len(times) for times in real]
    # Vidur keeps seconds in floating point: a nanosecond of rounding an iteration.
    for ours, theirs in zip(simulated, real, strict=True):
        assert np.abs(np.array(ours) - np.array(theirs)).max() <= line.num_iterations


def test_two_simulations_in_one_process_are_the_same() -> None:
    lengths, arrivals = [(50, 4), (80, 6), (10, 2)], [0, MS, 2 * MS]
    assert sim(lengths, arrivals).difference(sim(lengths, arrivals)) is None


def test_two_simulations_in_two_threads_are_the_same_as_alone() -> None:
    workloads = ([(50, 40), (80, 60), (10, 20)], [0, MS, 2 * MS]), ([(7, 90), (120, 30)], [0, 3 * MS])
    alone = [sim(*one) for one in workloads]
    with ThreadPoolExecutor(2) as threads:
        together = [one for _ in range(5) for one in threads.map(sim, *zip(*workloads, strict=True))]
    assert [one.difference(other) for one, other in zip(together, alone * 5, strict=True)] == [None] * 10


def test_a_full_cache_preempts_and_every_token_is_still_made_once() -> None:
    lengths = [(30, 40), (30, 40), (30, 40)]
    result = sim(lengths, [0, 1, 2], num_blocks=8)
    assert sum(result.restarts) > 0
    assert result.token_counts().tolist() == [40, 40, 40]
    assert all(times == sorted(times) for times in result.token_times_ns())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 60)), min_size=2, max_size=8),
    st.integers(10, 14),
    st.sampled_from([9, 64]),
    st.booleans(),
)
def test_however_often_a_request_is_preempted_it_makes_what_was_asked(
    lengths: list[tuple[int, int]], num_blocks: int, budget: int, caching: bool
) -> None:
    limits = {"num_blocks": num_blocks, "max_num_batched_tokens": budget, "enable_prefix_caching": caching}
    result = sim(lengths, list(range(len(lengths))), **limits)
    assert result.token_counts().tolist() == [output for _, output in lengths]


def test_with_prefix_caching_a_preempted_request_computes_less_again() -> None:
    lengths, arrivals = [(60, 90), (60, 90), (60, 90)], [0, 1, 2]

    def prefilled(result: Timeline) -> int:
        return sum(batch.num_prefill_tokens for batch in result.batches)

    again, kept = (sim(lengths, arrivals, num_blocks=20, enable_prefix_caching=caching) for caching in (False, True))
    assert min(sum(kept.restarts), sum(again.restarts)) > 0
    assert 180 < prefilled(kept) < prefilled(again)
    assert kept.token_counts().tolist() == [90, 90, 90]


@pytest.mark.parametrize("scheduler", ["sarathi", "vllm", "orca"])
def test_every_scheduler_serves_every_request(scheduler: str) -> None:
    result = sim([(60, 5), (20, 9), (40, 1)], [0, MS, 2 * MS], scheduler)
    assert result.token_counts().tolist() == [5, 9, 1]


def test_the_batch_is_seen_as_an_engine_reports_it() -> None:
    result = sim([(70, 3)], [0])
    real = [[ScheduledSeq(0, 64, 0, True)], [ScheduledSeq(0, 6, 64, True)]]
    real += [[ScheduledSeq(0, 1, cached, False)] for cached in (70, 71)]
    assert result.batches == [Composition.of(batch) for batch in real]
