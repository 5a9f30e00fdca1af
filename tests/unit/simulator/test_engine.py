"""A simulated engine is an engine: driven by the same loop, in work that grows with what changes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.real_bench.replay import warm_up
from gpu_simulate_test.serving import serve
from gpu_simulate_test.simulator.clock import VirtualClock
from gpu_simulate_test.simulator.engine import make_engine, run_core
from gpu_simulate_test.timeline import Timeline
from tests.support.latency import Costs
from tests.support.virtual_engine import requests_of

MS = 1_000_000
LIMITS = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)


def cost(batch: Composition) -> float:
    """It grows with every quantity of a batch, by no whole nanosecond."""
    weights = (10_007.1, 1e5, 3001.3, 11.0, 101.7, 0.3, 0.7)
    return 1e6 + sum(weight * quantity for weight, quantity in zip(weights, batch, strict=True))


class OneByOne(Costs):
    """Knows no run of iterations beforehand."""

    def decode_run_ns(self, batch: Composition, count: int) -> None:
        return None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 400)), min_size=1, max_size=12),
    st.lists(st.integers(0, 400 * MS), min_size=12, max_size=12),
    st.integers(1, 20),
    st.floats(1.0, 4.0),
    st.sampled_from([("sarathi", False), ("vllm_v1", False), ("vllm_v1", True)]),
    st.booleans(),
)
def test_iterations_priced_together_are_those_priced_one_by_one(
    lengths: list[tuple[int, int]],
    gaps: list[int],
    block_size: int,
    spare: float,
    scheduler: tuple[str, bool],
    prefix_caching: bool,
) -> None:
    needed = max(-(-sum(one) // block_size) for one in lengths)
    name, ahead = scheduler
    limits = LIMITS.model_copy(
        update={
            "block_size": block_size,
            "num_blocks": int(needed * spare),
            "enable_prefix_caching": prefix_caching,
            "async_scheduling": ahead,
        }
    )
    asked = ArrivalProcess.at(np.cumsum(gaps)[: len(lengths)]), *np.array(lengths).T
    together, single = (run_core(limits, model(cost), *asked, scheduler=name) for model in (Costs, OneByOne))
    assert together.difference(single) is None
    assert together.token_counts().tolist() == [output for _, output in lengths]


@pytest.mark.parametrize(("scheduler", "ahead"), [("sarathi", False), ("vllm_v1", False), ("vllm_v1", True)])
def test_a_step_goes_on_until_something_changes(scheduler: str, ahead: bool) -> None:
    clock, line = VirtualClock(), Timeline(2)
    engine = make_engine(scheduler, LIMITS.model_copy(update={"async_scheduling": ahead}), Costs(cost), clock)
    lengths, arrivals = [(30, 5000), (30, 2000)], ArrivalProcess.at(np.array([0, 1500 * MS]))
    steps = list(
        serve(engine, requests_of(lengths), arrivals, clock, line, lambda _step: [], before_step=engine.look_ahead)
    )
    for step in steps:
        step.record(line)
    assert line.token_counts().tolist() == [5000, 2000]
    assert line.num_iterations >= 5000
    assert len(steps) < 20  # prompts, the second arrival, two ends


def test_it_is_warmed_up_and_served_as_any_engine() -> None:
    clock = VirtualClock()
    engine = make_engine("sarathi", LIMITS, Costs(cost), clock)
    warm_up(engine, [EngineRequest(-1, range(10), 3)])
    assert not engine.has_unfinished()
    assert clock.now_s > 3e-3


@given(st.floats(0, 1e6), st.integers(0, 10**15))
def test_its_clock_reads_the_last_nanosecond_that_has_begun(now_s: float, deadline_ns: int) -> None:
    clock = VirtualClock()
    clock.now_s = now_s
    assert clock.now_ns() / 1e9 <= now_s < (clock.now_ns() + 1) / 1e9
    clock.sleep_until_ns(deadline_ns)
    assert clock.now_ns() >= deadline_ns
    assert clock.now_s == max(now_s, deadline_ns / 1e9)
    assert math.isfinite(clock.now_s)
