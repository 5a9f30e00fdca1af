"""The one record of a run, and its tables, are the same whoever served."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test import run_tables
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.calibration import Constants
from gpu_simulate_test.real_bench.replay import replay
from gpu_simulate_test.run_tables import iteration_tables, latency_percentiles, request_table, token_gaps, token_tables
from gpu_simulate_test.simulator.engine import run_core
from gpu_simulate_test.spans import Gaps
from gpu_simulate_test.timeline import Timeline
from tests.support.latency import Costs
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost, requests_of

MS = 1_000_000
LENGTHS = st.lists(st.tuples(st.integers(1, 150), st.integers(1, 12)), min_size=1, max_size=10)
FULL = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)
AHEAD = FULL.model_copy(update={"async_scheduling": True})


def workload_of(lengths: list[tuple[int, int]], arrivals: np.ndarray) -> Workload:
    frame = pd.DataFrame(lengths, columns=["num_prefill_tokens", "num_decode_tokens"])
    frame.insert(0, "request_id", np.arange(len(frame)))
    return Workload(Path("nowhere"), {"workload_sha256": "x"}, frame, ArrivalProcess.at(arrivals))


def simulated(lengths: list[tuple[int, int]], arrivals: np.ndarray, limits: EngineLimits = FULL) -> Timeline:
    return run_core(limits, Costs(affine_cost), ArrivalProcess.at(arrivals), *np.array(lengths).T)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 9 * MS))
def test_a_simulation_and_an_engine_of_its_scheduler_have_the_same_tables(
    lengths: list[tuple[int, int]], gap: int
) -> None:
    arrivals = np.arange(len(lengths)) * (gap + 1)
    workload, clock = workload_of(lengths, arrivals), VirtualClock()
    real = replay(VirtualEngine(clock), requests_of(lengths), ArrivalProcess.at(arrivals), clock)
    core = simulated(lengths, arrivals)
    for table in (token_tables, iteration_tables):
        ours, theirs = (pd.concat(table(line)) for line in (core, real))
        shared = [name for name in ours if name in theirs]
        assert (ours[shared] - theirs[shared]).abs().max().max() <= core.num_iterations  # a nanosecond an iteration
    ours, theirs = (request_table(workload, line, "engine") for line in (core, real))
    assert list(ours) == list(theirs)
    assert ours.dtypes.tolist() == theirs.dtypes.tolist()
    waited = theirs["submit_time_ns"] - ours["submit_time_ns"]  # a simulated engine has its requests on arrival
    assert (waited >= 0).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 60)), min_size=1, max_size=8),
    st.integers(10, 14),
)
def test_times_between_tokens_are_counted_without_a_row_a_token(
    lengths: list[tuple[int, int]], num_blocks: int
) -> None:
    limits = FULL.model_copy(update={"num_blocks": num_blocks})
    line = simulated(lengths, np.arange(len(lengths)), limits)
    tokens = pd.concat(token_tables(line))
    each = tokens["token_latency_ns"].dropna().to_numpy(dtype=np.int64)
    levels = np.array([0.0, 0.013, 0.5, 0.9, 0.99, 1.0])
    found = token_gaps(line).quantiles(levels)
    if len(each):
        assert found == pytest.approx(np.quantile(each, levels), rel=1e-12)
    else:
        assert np.isnan(found).all()


def test_quantiles_of_single_values_are_numpys() -> None:
    values = np.array([5, 1, 9, 9, 2])
    assert Gaps.of(values).quantiles([0.1, 0.5, 0.99]) == pytest.approx(np.quantile(values, [0.1, 0.5, 0.99]))


def test_tables_in_pieces_are_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [(30, 40), (30, 1), (30, 40), (5, 70)]
    line = simulated(lengths, np.arange(4), FULL.model_copy(update={"num_blocks": 8}))
    assert sum(line.restarts) > 0
    whole = [pd.concat(table(line), ignore_index=True) for table in (token_tables, iteration_tables)]
    monkeypatch.setattr(run_tables, "_PIECE", 41)
    for table, expected in zip((token_tables, iteration_tables), whole, strict=True):
        pieces = list(table(line))
        assert len(pieces) > 2
        pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), expected)


def test_a_failed_request_has_no_part_in_the_latencies() -> None:
    lengths, arrivals, clock = [(10, 3)] * 3, np.zeros(3, dtype=np.int64), VirtualClock()
    engine = VirtualEngine(clock, refuse=frozenset({0}), fail=frozenset({1}))
    line = replay(engine, requests_of(lengths), ArrivalProcess.at(arrivals), clock)
    requests = request_table(workload_of(lengths, arrivals), line, "engine")
    assert requests["status"].tolist() == ["error", "error", "ok"]
    tokens = pd.concat(token_tables(line))
    assert set(tokens["request_id"]) == {2}
    ttft, tbt = latency_percentiles(requests, token_gaps(line))
    assert ttft[0] == requests["ttft_ns"][2] / 1e6
    assert tbt[0] == pytest.approx(tokens["token_latency_ns"].dropna().mean() / 1e6, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 3 * MS), st.integers(0, 300_000))
def test_tokens_that_come_out_late_are_late_in_every_table(
    lengths: list[tuple[int, int]], later_ns: int, sequence_ns: int
) -> None:
    arrivals = np.arange(len(lengths)) * MS
    workload, plain, line = workload_of(lengths, arrivals), simulated(lengths, arrivals), simulated(lengths, arrivals)
    Constants(sequence_ns=sequence_ns, after_first_token_ns=later_ns).deliver(line, AHEAD)
    before, after = (pd.concat(token_tables(one)) for one in (plain, line))
    seqs = line.num_seqs[after["iteration_id"]]
    late = (after["token_time_ns"] - before["token_time_ns"]).to_numpy()
    assert (late >= sequence_ns * seqs + later_ns * (after["token_index"] > 0)).all()
    by_request = after.groupby("request_id")["token_time_ns"]
    requests = request_table(workload, line, "engine")
    assert requests["first_token_time_ns"].tolist() == by_request.first().tolist()
    assert requests["completion_time_ns"].tolist() == by_request.last().tolist()
    gaps, theirs = token_gaps(line), Gaps.of(after["token_latency_ns"].dropna().to_numpy(dtype=np.int64))
    levels = np.linspace(0, 1, 21)
    assert np.array_equal(gaps.quantiles(levels), theirs.quantiles(levels), equal_nan=True)
