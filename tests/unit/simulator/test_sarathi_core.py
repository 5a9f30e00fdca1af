"""Our core makes Vidur's batches at Vidur's times: the same to the nanosecond, whatever is asked."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.simulator import cluster
from gpu_simulate_test.simulator.engine import run_core
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext import simulation
from gpu_simulate_test.vidur_ext.simulation import simulate
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings
from tests.support.latency import Costs

MS = 1_000_000
pytestmark = pytest.mark.usefixtures("demo_in_vidur")


def cost(batch: Composition) -> float:
    """It grows with every quantity of a batch, by no whole nanosecond."""
    weights = (10_007.1, 1e5, 3001.3, 11.0, 101.7, 0.3, 0.7)
    return 1e6 + sum(weight * quantity for weight, quantity in zip(weights, batch, strict=True))


@dataclass(frozen=True)
class Asked:
    lengths: list[tuple[int, int]]
    arrivals: list[int]
    settings: SimSettings


def sim_settings(scheduler: str, limits: EngineLimits) -> SimSettings:
    return SimSettings("gsim/qwen3-tiny", "cpu", "cpu_node", scheduler, limits)


def few_blocks(num_blocks: int) -> SimSettings:
    limits = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=num_blocks)
    return sim_settings("sarathi", limits)


@st.composite
def workloads(draw: st.DrawFn) -> Asked:
    longest = draw(st.sampled_from([(5, 5), (40, 40), (150, 60), (300, 20)]))
    lengths = draw(st.lists(st.tuples(*(st.integers(1, most) for most in longest)), min_size=1, max_size=30))
    gaps = st.sampled_from([0, 0, 1, 10 * MS]) | st.integers(0, 30 * MS)
    arrivals = np.cumsum(draw(st.lists(gaps, min_size=len(lengths), max_size=len(lengths)))).tolist()
    block_size = draw(st.integers(1, 64))
    watermark = draw(st.sampled_from([0.0, 0.01, 0.1]))
    needed = max(-(-sum(one) // block_size) for one in lengths)
    blocks = int(needed * draw(st.sampled_from([1.0, 1.2, 2.0, 4.0, 1000.0]))) + draw(st.integers(0, 3))
    while blocks - int(watermark * blocks) < needed:
        blocks += 1
    limits = EngineLimits(
        max_num_seqs=draw(st.integers(1, 256)),
        max_num_batched_tokens=draw(st.integers(1, 512)),
        block_size=block_size,
        num_blocks=blocks,
        enable_prefix_caching=draw(st.booleans()),
        watermark=watermark,
    )
    return Asked(lengths, arrivals, sim_settings("sarathi", limits))


def both(asked: Asked) -> tuple[Timeline, Timeline]:
    arrivals, prompts, outputs = (
        ArrivalProcess.at(np.array(asked.arrivals)),
        *(np.array(of_all) for of_all in zip(*asked.lengths, strict=True)),
    )
    core = run_core(asked.settings.limits, Costs(cost), arrivals, prompts, outputs)
    return core, simulate(asked.settings, Costs(cost), arrivals, prompts, outputs)


# GST_EXAMPLES=2000 tries as many workloads.
@settings(max_examples=int(os.environ.get("GST_EXAMPLES", "60")), deadline=None)
@given(workloads())
def test_the_same_batches_and_times_as_vidurs_loop(asked: Asked) -> None:
    core, vidur = both(asked)
    event(f"preempting: {sum(vidur.restarts) > 0}")
    assert core.difference(vidur) is None
    assert core.token_counts().tolist() == [output for _, output in asked.lengths]


def test_a_difference_is_named_by_the_first_iteration_that_shows_it() -> None:
    few = Asked([(30, 40)] * 3, [0, 1, 2], few_blocks(8))
    core, vidur = both(few)
    assert sum(core.restarts) > 0
    core.iterations[7, 1] += 1
    assert str(core.difference(vidur)).startswith("iteration 7: ")


def test_where_the_core_is_not_vidurs_loop_that_loop_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = few_blocks(4096)
    requests = ArrivalProcess.at(np.array([0, MS])), np.array([50, 20]), np.array([4, 3])

    def made(
        settings: SimSettings, *, name: str = "core", look_at: Callable[[Any], object] | None = None
    ) -> simulation.Loop:
        return simulation.Loop(name, settings, requests, Costs(cost), look_at)

    used = made(limits)
    assert (used.name, used.checked, used.difference) == ("core", 2, None)
    assert "identical to Vidur's loop on the first 2 requests" in used.described()
    assert made(limits, name="vidur").name == "vidur"
    assert made(limits, look_at=lambda _batch: None).name == "vidur"
    assert made(replace(limits, scheduler="orca")).name == "vidur"

    def wrong_core(*args: Any) -> Timeline:
        line = run_core(*args)
        line.iterations[-1, 1] += 1
        return line

    monkeypatch.setattr(cluster, "run_core", wrong_core)
    wrong = made(limits)
    assert (wrong.name, wrong.checked) == ("vidur", 0)
    assert "our core differs: iteration " in wrong.described()
    done: list[int] = []
    wrong.run(Costs(cost), done.append)
    assert sum(done) == 2
