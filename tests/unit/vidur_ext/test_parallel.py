"""A model on several groups of GPUs: batches in a pipeline, under way at the same time."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.kernels import Kernels
from gpu_simulate_test.latency.model import Pipelined
from gpu_simulate_test.run_tables import request_table, token_tables
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext.simulation import Loop, simulate
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings, check_limits, replica_config
from gpu_simulate_test.vidur_ext.vidur_predictor import GsimExecutionTimePredictor, GsimExecutionTimePredictorConfig
from tests.support.latency import Costs
from tests.support.virtual_engine import affine_cost

MS = 1_000_000
pytestmark = pytest.mark.usefixtures("demo_in_vidur")


def constant(*stages_ms: float) -> Pipelined:
    return Pipelined([Costs(lambda _batch, took=took: took * MS) for took in stages_ms])


def settings_of(stages: int, scheduler: str = "sarathi", **limits: int) -> SimSettings:
    values = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "block_size": 16, "num_blocks": 4096} | limits
    of_stages = EngineLimits(pipeline_parallel=stages, **values)
    return SimSettings("gsim/qwen3-tiny", "cpu", "cpu_node", scheduler, of_stages)


def sim(
    latency: Pipelined,
    lengths: Sequence[tuple[int, int]],
    arrivals: Sequence[int] | None = None,
    scheduler: str = "sarathi",
    **limits: int,
) -> Timeline:
    times = np.zeros(len(lengths), dtype=np.int64) if arrivals is None else np.array(arrivals, dtype=np.int64)
    asked = settings_of(len(latency.stages), scheduler, **limits)
    return simulate(asked, latency, ArrivalProcess.at(times), *np.array(lengths).T)


def test_two_batches_are_in_a_pipeline_and_a_token_is_there_when_its_batch_leaves_the_last_stage() -> None:
    result = sim(constant(3, 5), [(10, 3), (10, 3)], max_num_seqs=2)
    # The first request: stages at 0 to 3 and 3 to 8; the second enters at 3, and waits from 6 to 8 for the last stage.
    assert result.token_times_ns() == [[8 * MS, 18 * MS, 28 * MS], [13 * MS, 23 * MS, 33 * MS]]
    assert result.start_ns.tolist() == [start * MS for start in (0, 3, 8, 13, 18, 23)]
    assert result.end_ns.tolist() == [end * MS for end in (8, 13, 18, 23, 28, 33)]
    assert [batch.num_decode_seqs for batch in result.batches] == [0, 0, 1, 1, 1, 1]


def test_the_tables_of_a_pipeline_say_the_same() -> None:
    lengths, arrivals = [(100, 4), (10, 3), (20, 1)], [0, 0, 2 * MS]
    result = sim(constant(3, 5), lengths, arrivals)
    frame = pd.DataFrame(lengths, columns=["num_prefill_tokens", "num_decode_tokens"])
    frame.insert(0, "request_id", range(3))
    workload = Workload(Path("nowhere"), {"workload_sha256": "5a" * 32}, frame, ArrivalProcess.at(np.array(arrivals)))
    requests, tokens = request_table(workload, result, "vidur"), pd.concat(token_tables(result))
    assert tokens["token_time_ns"].tolist() == list(chain(*result.token_times_ns()))
    assert tokens.groupby("request_id")["token_time_ns"].max().tolist() == requests["completion_time_ns"].tolist()
    assert tokens["token_time_ns"].tolist() == result.end_ns[tokens["iteration_id"]].tolist()
    assert (requests["first_scheduled_time_ns"] >= requests["arrival_time_ns"]).all()


@given(st.integers(1, 200), st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_a_request_alone_takes_the_sum_of_the_stages(prompt: int, output: int) -> None:
    (times,) = sim(constant(2, 4, 3, 1), [(prompt, output)]).token_times_ns()
    iterations = -(-prompt // 64) + output - 1
    assert times[-1] == pytest.approx(iterations * 10 * MS)


@pytest.mark.parametrize("scheduler", ["sarathi", "vllm", "orca"])
def test_two_stages_serve_more_and_none_sooner(scheduler: str) -> None:
    half = Costs(lambda batch: affine_cost(batch) / 2)
    lengths = [(40, 20)] * 40
    results = [sim(Pipelined([half] * stages), lengths, scheduler=scheduler, max_num_seqs=8) for stages in (1, 2)]
    whole = sim(Pipelined([Costs(affine_cost)]), lengths, scheduler=scheduler, max_num_seqs=8)
    assert 1.2 < whole.end_ns[-1] / results[1].end_ns[-1] < 2
    assert results[1].token_counts().tolist() == [20] * 40
    alone = [
        sim(latency, [(40, 20)], scheduler=scheduler).end_ns[-1]
        for latency in (Pipelined([half, half]), Pipelined([Costs(affine_cost)]))
    ]
    assert alone[0] >= alone[1] * (1 - 1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 60)), min_size=2, max_size=8),
    st.integers(10, 14),
    st.sampled_from([2, 4]),
    st.booleans(),
)
def test_however_often_a_request_is_preempted_it_makes_what_was_asked(
    lengths: list[tuple[int, int]], num_blocks: int, stages: int, caching: bool
) -> None:
    limits = {"num_blocks": num_blocks, "enable_prefix_caching": caching}
    result = sim(constant(*range(1, stages + 1)), lengths, list(range(len(lengths))), **limits)
    assert result.token_counts().tolist() == [output for _, output in lengths]
    assert all(times == sorted(set(times)) for times in result.token_times_ns())
    in_order = np.sort(result.start_ns)
    assert (result.end_ns[:-stages] <= in_order[stages:]).all(), "no more batches under way than stages"


@pytest.mark.parametrize("router", ["round_robin", "least_outstanding"])
def test_replicas_of_a_pipeline_serve_twice_as_many(router: str) -> None:
    lengths = np.array([(40, 20)] * 40).T
    asked = [settings_of(2), settings_of(2, data_parallel=2)]
    at_once = ArrivalProcess.at(np.zeros(40, dtype=np.int64))
    lines = [simulate(replace(one, router=router), constant(3, 5), at_once, *lengths) for one in asked]
    assert 1.9 < max(lines[0].end_ns) / max(lines[1].end_ns) < 2.1
    assert lines[1].token_counts().tolist() == [20] * 40
    assert lines[1].replica is not None and sorted(lines[1].replica) == [0] * 20 + [1] * 20


def test_vidurs_loop_serves_a_pipeline_and_is_named() -> None:
    requests = np.array([0, MS]), np.array([50, 20]), np.array([4, 3])
    loop = Loop("core", settings_of(2), requests, constant(3, 5))
    assert (loop.name, loop.checked, loop.difference) == ("vidur", 0, None)
    assert loop.described() == "Vidur's own; our core has no pipeline"


@pytest.mark.parametrize(
    ("stages", "scheduler", "said"),
    [
        (4, "sarathi", r"limits\.pipeline_parallel=4 stages share limits\.max_num_seqs=2"),
        (2, "vllm_v1", r"limits\.pipeline_parallel=2 runs in Vidur's own loop, which has no vllm_v1"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused(stages: int, scheduler: str, said: str) -> None:
    frame = pd.DataFrame({"request_id": [0], "num_prefill_tokens": [10], "num_decode_tokens": [3]})
    workload = Workload(
        Path("nowhere"), {"workload_sha256": "5a" * 32}, frame, ArrivalProcess.at(np.zeros(1, dtype=np.int64))
    )
    with pytest.raises(ConfigError, match=said):
        check_limits(workload, settings_of(stages, scheduler, max_num_seqs=2))


def test_vidurs_own_command_line_takes_a_profile_for_the_split_that_it_is_of() -> None:
    root = Path(__file__).parents[2] / "data" / "cpu-qwen3-tiny" / "profile"
    asked = GsimExecutionTimePredictorConfig(profiling_root=str(root))
    one, two = (replica_config(settings_of(stages)) for stages in (1, 2))
    GsimExecutionTimePredictor(asked, one, None)
    with pytest.raises(ConfigError, match="num_pipeline_stages=2: the profile is of 1: "):
        GsimExecutionTimePredictor(asked, two, None)


def test_layers_that_are_not_alike_are_not_shared_out() -> None:
    per_token = pd.DataFrame({"op": ["moe"], "num_tokens": [1], "median_ms": [1.0], "calls": [58]})
    kernels = Kernels(per_token, pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    with pytest.raises(ConfigError, match="moe runs 58 times in 60 layers"):
        kernels.stage(0, 2, 60)
