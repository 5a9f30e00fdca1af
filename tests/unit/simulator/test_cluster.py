"""Several replicas behind a router are Vidur's own cluster, to the nanosecond."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.run_tables import iteration_tables, request_table, token_tables
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.simulator.engine import run_core
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext.simulation import Loop, simulate
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings
from tests.support.latency import Costs
from tests.unit.simulator.test_sarathi_core import Asked, cost, few_blocks, workloads

pytestmark = pytest.mark.usefixtures("demo_in_vidur")

MS = 1_000_000
ROUTERS = ("round_robin", "least_outstanding")


def with_replicas(asked: SimSettings, count: int, router: str) -> SimSettings:
    return replace(asked, limits=asked.limits.model_copy(update={"data_parallel": count}), router=router)


def asked_of(asked: Asked, replica: int = 0, replicas: int = 1) -> tuple[ArrivalProcess, np.ndarray, np.ndarray]:
    prompts, outputs = np.array(asked.lengths[replica::replicas]).T.copy()
    return ArrivalProcess.at(np.array(asked.arrivals[replica::replicas], dtype=np.int64)), prompts, outputs


def core_of(asked: Asked) -> Timeline:
    return Core(asked.settings.limits, asked_of(asked), router=asked.settings.router).run(Costs(cost))


def both(asked: Asked) -> tuple[Timeline, Timeline]:
    return core_of(asked), simulate(asked.settings, Costs(cost), *asked_of(asked))


# GST_EXAMPLES=2000 tries as many workloads.
@settings(max_examples=int(os.environ.get("GST_EXAMPLES", "60")), deadline=None)
@given(workloads(), st.integers(2, 5), st.sampled_from(ROUTERS))
def test_the_same_batches_and_times_as_vidurs_cluster(asked: Asked, replicas: int, router: str) -> None:
    core, vidur = both(replace(asked, settings=with_replicas(asked.settings, replicas, router)))
    event(f"preempting: {sum(vidur.restarts) > 0}, router: {router}")
    assert core.difference(vidur) is None
    assert core.token_counts().tolist() == [output for _, output in asked.lengths]


@settings(max_examples=20, deadline=None)
@given(workloads(), st.integers(2, 4))
def test_in_turn_each_replica_serves_its_share_as_if_alone(asked: Asked, replicas: int) -> None:
    together = core_of(replace(asked, settings=with_replicas(asked.settings, replicas, "round_robin")))
    times = together.token_times_ns()
    for number in range(min(replicas, len(asked.lengths))):
        share = asked_of(asked, number, replicas)
        assert run_core(asked.settings.limits, Costs(cost), *share).token_times_ns() == times[number::replicas]


@pytest.mark.parametrize("ahead", [False, True])
def test_replicas_of_vllms_engine_are_each_as_if_alone(ahead: bool) -> None:
    asked = Asked([(20 + 7 * number % 50, 5 + number % 9) for number in range(30)], list(range(30)), few_blocks(14))
    limits = asked.settings.limits.model_copy(update={"async_scheduling": ahead})
    two = Core(limits.model_copy(update={"data_parallel": 2}), asked_of(asked), "vllm_v1").run(Costs(cost))
    for number in (0, 1):
        alone = asked_of(asked, number, 2)
        times = run_core(limits, Costs(cost), *alone, scheduler="vllm_v1").token_times_ns()
        assert two.token_times_ns()[number::2] == times


def test_a_request_goes_where_fewest_wait() -> None:
    asked = Asked([(2000, 2), (10, 2), (10, 2), (10, 2)], [0, 1, 2, 3], few_blocks(4096))
    one_at_a_time = replace(asked.settings, limits=asked.settings.limits.model_copy(update={"max_num_seqs": 1}))
    line = core_of(replace(asked, settings=with_replicas(one_at_a_time, 2, "least_outstanding")))
    # The first is served, so none waits anywhere for the second; which waits behind it, so the third goes beside it.
    assert line.replica is not None and line.replica.tolist() == [0, 0, 1, 1]


def test_replicas_serve_more_and_the_tables_say_which_did() -> None:
    asked = Asked([(60, 30)] * 40, [0] * 40, few_blocks(4096))
    lines = {
        count: core_of(replace(asked, settings=with_replicas(asked.settings, count, ROUTERS[0]))) for count in (1, 4)
    }
    assert 3 < max(lines[1].end_ns) / max(lines[4].end_ns) < 5
    frame = pd.DataFrame(asked.lengths, columns=["num_prefill_tokens", "num_decode_tokens"])
    frame.insert(0, "request_id", range(40))
    workload = Workload(Path("nowhere"), {"workload_sha256": "5a" * 32}, frame, asked_of(asked)[0])
    requests = request_table(workload, lines[4], "vidur")
    iterations, tokens = pd.concat(iteration_tables(lines[4])), pd.concat(token_tables(lines[4]))
    assert requests["replica"].tolist() == [0, 1, 2, 3] * 10
    of_token = tokens.merge(iterations, on="iteration_id").merge(
        requests, on="request_id", suffixes=("", "_of_request")
    )
    assert len(of_token) == 40 * 30
    assert (of_token["replica"] == of_token["replica_of_request"]).all()
    assert (of_token["token_time_ns"] == of_token["end_time_ns"]).all()
    for _, own in iterations.groupby("replica"):
        assert (own["start_time_ns"].to_numpy()[1:] >= own["end_time_ns"].to_numpy()[:-1]).all()
    for table in (request_table(workload, lines[1], "vidur"), *iteration_tables(lines[1])):
        assert "replica" not in table


@pytest.mark.parametrize("router", ROUTERS)
def test_a_run_holds_the_cluster_to_vidurs(router: str) -> None:
    requests = ArrivalProcess.at(np.arange(8) * MS), np.full(8, 50), np.full(8, 6)
    loop = Loop("core", with_replicas(few_blocks(4096), 3, router), requests, Costs(cost))
    assert (loop.name, loop.checked, loop.difference) == ("core", 8, None)
