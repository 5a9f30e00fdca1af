"""What vLLM's scheduler does, on examples small enough to follow by hand; `test_vllm_core` holds ours to theirs."""

from collections.abc import Sequence

import numpy as np
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.simulator.engine import run_core
from gpu_simulate_test.timeline import ITERATION_COLUMNS, Timeline
from tests.support.latency import Costs

MS = 1_000_000
BLOCK = 16


def served(
    requests: Sequence[tuple[float, int, int]], prefixes: Sequence[Sequence[int]] | None = None, **limits: int
) -> Timeline:
    """Requests of an arrival in ms, prompt and output tokens, where an iteration takes 1 ms."""
    values = {"max_num_seqs": 8, "max_num_batched_tokens": 64, "block_size": BLOCK, "num_blocks": 100} | limits
    arrivals, prompts, outputs = np.array(requests).T
    asked = ArrivalProcess.at((arrivals * MS).astype(np.int64)), prompts.astype(np.int64), outputs.astype(np.int64)
    latency = Costs(lambda _batch: float(MS))
    return run_core(EngineLimits(**values), latency, *asked, scheduler="vllm_v1", prefixes=prefixes)


def column(line: Timeline, name: str) -> list[int]:
    return line.iterations[:, ITERATION_COLUMNS.index(name)].tolist()


def test_a_prompt_computes_what_is_not_in_the_cache() -> None:
    asked = [(0, 40, 2), (0, 45, 2), (5, 32, 2)]
    line = served(asked, [(1, 2), (1, 2), (1, 2)], enable_prefix_caching=True)
    # The second finds what the first has computed in the same iteration; the third, all of which is there, computes
    # its last block again.
    assert list(line.cached) == [0, 32, 16]
    assert column(line, "num_prefill_tokens") == [40 + 13, 0, 16, 0]
    assert column(line, "kv_tokens_prefill") == [32, 0, 16, 0]
    assert sum(served(asked).cached) == 0


def test_shared_blocks_are_held_once() -> None:
    asked = [(0, 33, 20)] * 4
    keys = [(1, 2)] * 4
    shared = served(asked, keys, enable_prefix_caching=True, num_blocks=2 + 4 * 2)
    assert sum(shared.restarts) == 0
    assert sum(served(asked, num_blocks=2 + 4 * 2).restarts) > 0


@pytest.mark.parametrize(("keys", "found"), [((1, 2), 16), ((3, 4), 32)])
def test_what_was_used_least_recently_is_given_away_first(keys: tuple[int, int], found: int) -> None:
    """The first two leave two blocks each; the third needs the other four and one of these: the end of the first."""
    asked = [(0, 32, 1), (5, 32, 1), (10, 5 * BLOCK, 1), (15, 33, 1)]
    line = served(
        asked, [(1, 2), (3, 4), (), keys], enable_prefix_caching=True, num_blocks=8, max_num_batched_tokens=128
    )
    assert list(line.cached) == [0, 0, 0, found]


def test_a_preempted_request_finds_what_it_had() -> None:
    asked = [(0, 30, 40), (0, 30, 40)]
    again, found = (served(asked, num_blocks=6, enable_prefix_caching=caching) for caching in (False, True))
    assert list(again.restarts) == list(found.restarts) == [0, 1]
    computed, less = (sum(column(line, "num_prefill_tokens")) for line in (again, found))
    assert less < computed
    assert sum(column(found, "num_preempted")) == 1


def test_nobody_is_admitted_where_somebody_is_preempted() -> None:
    line = served([(0, 30, 40), (0, 30, 40), (10.5, 1, 1)], num_blocks=6)
    preempting = column(line, "num_preempted").index(1)
    assert column(line, "num_prefill_seqs")[preempting] == 0


def test_scheduled_ahead_a_request_waits_for_one_iteration_more() -> None:
    asked = [(0, 10, 20), (4.5, 10, 2)]
    assert served(asked).first_scheduled[1] == 5
    ahead = served(asked, async_scheduling=True)
    assert ahead.first_scheduled[1] == 6
    assert ahead.num_iterations == 20  # no iteration for a request that is done
    alone = served([(0, 10, 3), (9, 10, 3)], async_scheduling=True)
    assert alone.start_ns.tolist() == [0, MS, 2 * MS, 9 * MS, 10 * MS, 11 * MS]


def test_scheduled_ahead_a_request_that_is_done_keeps_its_seat_for_one_iteration() -> None:
    asked = [(0, 10, 3), (0, 10, 9), (0, 10, 2)]
    assert served(asked, max_num_seqs=2).first_scheduled[2] == 3
    assert served(asked, max_num_seqs=2, async_scheduling=True).first_scheduled[2] == 4


def test_a_prompt_is_admitted_as_a_whole_or_by_its_first_part() -> None:
    asked = [(0, 17, 8), (0, 60, 1)]
    limits = {"num_blocks": 5, "max_num_batched_tokens": 32}
    assert served(asked, **limits).first_scheduled[1] > 0
    assert served(asked, **limits, reserve_whole_prompt=False).first_scheduled[1] == 0
