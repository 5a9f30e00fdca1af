"""Our core schedules as vLLM's own scheduler does, whatever is asked; run in the environment of ``make vllm``."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.simulator.engine import run_core
from gpu_simulate_test.timeline import Timeline
from tests.support.latency import Costs
from tests.support.vllm_scheduler import Prompted, serve_theirs

pytest.importorskip("vllm", reason="vLLM is not installed here: make vllm")

MS = 1_000_000


def cost(batch: Composition) -> float:
    """It grows with every quantity of a batch, by no whole nanosecond."""
    weights = (10_007.1, 1e5, 3001.3, 11.0, 101.7, 0.3, 0.7)
    return 1e6 + sum(weight * quantity for weight, quantity in zip(weights, batch, strict=True))


@dataclass(frozen=True)
class Asked:
    limits: EngineLimits
    requests: list[Prompted]
    prefixes: list[list[int]]


@st.composite
def workloads(draw: st.DrawFn) -> Asked:
    """Prompts begin with the same tokens as others: one of a few beginnings, up to some token of it."""
    block_size = draw(st.sampled_from([1, 2, 3, 8, 16]))
    beginnings = draw(st.lists(st.integers(1, 20 * block_size), min_size=1, max_size=4))
    count = draw(st.integers(1, 25))
    longest = draw(st.sampled_from([(1, 5), (20, 40), (150, 60), (30, 120)]))
    gaps = st.sampled_from([0, 0, 1, 10 * MS]) | st.integers(0, 30 * MS)
    arrival, requests, prefixes = 0, [], []
    for number in range(count):
        arrival += draw(gaps)
        beginning = draw(st.integers(0, len(beginnings) - 1))
        shared = draw(st.sampled_from([0, beginnings[beginning]]) | st.integers(0, beginnings[beginning]))
        own = draw(st.integers(0 if shared else 1, longest[0]))
        tokens = [1000 * (beginning + 1) + place for place in range(shared)]
        tokens += [100_000 + 1000 * number + place for place in range(own)]
        requests.append(Prompted(arrival, tokens, draw(st.integers(1, longest[1]))))
        prefixes.append([1000 * (beginning + 1) + place for place in range(shared // block_size)])
    needed = max(-(-(len(one.token_ids) + one.max_new_tokens) // block_size) for one in requests)
    seats = draw(st.integers(1, 20))
    limits = EngineLimits(
        max_num_seqs=seats,
        max_num_batched_tokens=draw(st.integers(seats, seats + 100)),
        block_size=block_size,
        num_blocks=int(needed * draw(st.sampled_from([1.0, 1.2, 2.0, 4.0, 1000.0]))) + draw(st.integers(0, 3)),
        enable_prefix_caching=draw(st.booleans()),
        reserve_whole_prompt=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.01, 0.2])),
    )
    return Asked(limits, requests, prefixes)


def ours(asked: Asked) -> Timeline:
    arrivals, prompts, outputs = np.array(
        [(one.arrival_ns, len(one.token_ids), one.max_new_tokens) for one in asked.requests]
    ).T
    return run_core(
        asked.limits,
        Costs(cost),
        ArrivalProcess.at(arrivals),
        prompts,
        outputs,
        scheduler="vllm_v1",
        prefixes=asked.prefixes,
    )


# GST_EXAMPLES=2000 tries as many workloads.
@settings(max_examples=int(os.environ.get("GST_EXAMPLES", "60")), deadline=None)
@given(workloads())
def test_the_same_batches_as_vllms_scheduler(asked: Asked) -> None:
    theirs, core = serve_theirs(asked.limits, asked.requests, cost), ours(asked)
    event(f"preempting: {sum(theirs.restarts) > 0}, found in the cache: {sum(theirs.cached) > 0}")
    assert core.difference(theirs) is None
    assert core.token_counts().tolist() == [one.max_new_tokens for one in asked.requests]
