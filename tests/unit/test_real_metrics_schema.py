"""What a real run promises: every request has its row, and times that are in order."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.io.progress import progress
from gpu_simulate_test.io.tables import ITERATION_METRICS, REQUEST_METRICS, TOKEN_METRICS, read_table, write_table
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.reference_bursts import ReferenceBursts
from gpu_simulate_test.real_bench.metrics import Metrics, build_metrics
from gpu_simulate_test.real_bench.replay import replay, warm_up
from gpu_simulate_test.real_bench.stage import _measure
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost, requests_of

LENGTHS = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 12)), min_size=1, max_size=12)


def workload_of(lengths: list[tuple[int, int]], arrivals: list[int]) -> Workload:
    frame = pd.DataFrame(lengths, columns=["num_prefill_tokens", "num_decode_tokens"])
    frame.insert(0, "request_id", np.arange(len(frame)))
    return Workload(
        Path("nowhere"), {"workload_sha256": "x"}, frame, ArrivalProcess.at(np.array(arrivals, dtype=np.int64))
    )


def serve(lengths: list[tuple[int, int]], gap_ns: int, **engine: object) -> Metrics:
    arrivals = [index * gap_ns for index in range(len(lengths))]
    workload = workload_of(lengths, arrivals)
    clock = VirtualClock()
    recording = replay(
        VirtualEngine(clock, **engine),  # type: ignore[arg-type]
        requests_of(lengths),
        workload.arrivals,
        clock,
    )
    return build_metrics(workload, recording, "virtual")


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 20_000_000))
def test_nothing_is_lost_and_every_time_is_in_order(lengths: list[tuple[int, int]], gap_ns: int) -> None:
    metrics = serve(lengths, gap_ns)
    requests = metrics.requests
    assert requests["request_id"].tolist() == list(range(len(lengths)))
    assert (requests["status"] == "ok").all()
    order = [
        "arrival_time_ns",
        "submit_time_ns",
        "first_scheduled_time_ns",
        "first_token_time_ns",
        "completion_time_ns",
    ]
    for earlier, later in itertools.pairwise(order):
        assert (requests[earlier] <= requests[later]).all(), (earlier, later)
    assert requests["num_decode_tokens_actual"].tolist() == [output for _, output in lengths]


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 20_000_000))
def test_tokens_are_contiguous_and_made_by_an_iteration(lengths: list[tuple[int, int]], gap_ns: int) -> None:
    metrics = serve(lengths, gap_ns)
    for request_id, tokens in metrics.tokens.groupby("request_id"):
        assert tokens["token_index"].tolist() == list(range(lengths[int(request_id)][1]))
        assert tokens["token_latency_ns"].isna().tolist() == [True] + [False] * (len(tokens) - 1)
        assert (tokens["token_latency_ns"].dropna() >= 0).all()
    ends = metrics.iterations.set_index("iteration_id")["end_time_ns"]
    assert (ends.loc[metrics.tokens["iteration_id"]].to_numpy() == metrics.tokens["token_time_ns"].to_numpy()).all()


@settings(max_examples=40, deadline=None)
@given(LENGTHS)
def test_every_prompt_token_is_processed_once(lengths: list[tuple[int, int]]) -> None:
    metrics = serve(lengths, 1_000_000)
    assert metrics.iterations["num_prefill_tokens"].sum() == sum(prompt for prompt, _ in lengths)
    assert metrics.iterations["num_decode_seqs"].sum() == sum(output - 1 for _, output in lengths)


def test_ten_milliseconds_more_in_the_first_iteration_are_seen_as_exactly_that() -> None:
    def slower(composition: Composition) -> int:
        return affine_cost(composition) + (10_000_000 if composition.num_prefill_seqs else 0)

    fast, slow = (serve([(20, 5)], 0, cost=cost).requests for cost in (affine_cost, slower))
    assert slow["ttft_ns"][0] - fast["ttft_ns"][0] == 10_000_000
    assert slow["completion_time_ns"][0] - fast["completion_time_ns"][0] == 10_000_000


def test_a_request_that_waits_is_charged_from_its_arrival() -> None:
    metrics = serve([(64, 2), (64, 2)], gap_ns=1)  # the second arrives just after the first step began
    first_step = metrics.iterations["end_time_ns"][0]
    assert metrics.requests["submit_time_ns"][1] == first_step
    assert metrics.requests["ttft_ns"][1] == metrics.requests["first_token_time_ns"][1] - 1


def test_a_failed_request_is_a_row_with_its_error_and_no_times() -> None:
    metrics = serve([(10, 3), (10, 3), (10, 3)], 0, refuse=frozenset({0}), fail=frozenset({2}))
    requests = metrics.requests
    assert requests["status"].tolist() == ["error", "ok", "error"]
    assert requests["error_type"].tolist()[::2] == ["ValueError", "EngineError"]
    assert requests["error_msg"].tolist()[::2] == ["refused by the engine", "lost in the engine"]
    assert requests.loc[requests["status"] == "error", ["ttft_ns", "completion_time_ns"]].isna().all(axis=None)
    assert set(metrics.tokens["request_id"]) == {1}


def test_an_early_stop_is_recorded_as_the_tokens_made() -> None:
    metrics = serve([(10, 8), (10, 8)], 0, stop_early={1: 3})
    assert metrics.requests["num_decode_tokens"].tolist() == [8, 8]
    assert metrics.requests["num_decode_tokens_actual"].tolist() == [8, 3]
    assert metrics.tokens.groupby("request_id").size().tolist() == [8, 3]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_run_begins_with_an_empty_cache_and_nothing_but_itself_is_found_there(keeps: bool) -> None:
    clock = VirtualClock()
    engine = VirtualEngine(clock, enable_prefix_caching=keeps)
    lengths = [(30, 3000), (30, 3)]
    workload = workload_of(lengths, [0, 10**12])  # with time for a reference burst between the two
    with progress("real-bench", len(lengths), "requests") as bar:
        _measure(engine, requests_of(lengths), workload, clock, ReferenceBursts(), bar)
    begin, end = engine.done.index(0), engine.done.index(1)
    assert engine.done[begin - 1] == "forget"
    assert ("forget" in engine.done[begin:end]) == (not keeps)
    assert engine.done[-1] != 1, "bursts afterwards"


def test_warm_up_leaves_no_trace() -> None:
    clock = VirtualClock()
    engine = VirtualEngine(clock)
    warm_up(engine, requests_of([(30, 4)]))
    assert not engine.has_unfinished()
    workload = workload_of([(10, 2)], [0])
    metrics = build_metrics(workload, replay(engine, requests_of([(10, 2)]), workload.arrivals, clock), "v")
    assert metrics.requests["arrival_time_ns"].tolist() == [0]
    assert len(metrics.tokens) == 2


def test_tables_survive_the_round_trip_to_disk(tmp_path: Path) -> None:
    metrics = serve([(10, 3), (100, 5)], 1_000_000, fail=frozenset({0}))
    for table, frame in (
        (REQUEST_METRICS, metrics.requests),
        (TOKEN_METRICS, metrics.tokens),
        (ITERATION_METRICS, metrics.iterations),
    ):
        write_table(tmp_path, table, frame)
        back = read_table(tmp_path, table)
        assert back.columns.tolist() == frame.columns.tolist()
        for name in frame:
            assert [str(v) for v in back[name].fillna(-1)] == [str(v) for v in frame[name].fillna(-1)], name
