"""Vidur's own predictor on our tables: it stays on this machine, and says what the tables say."""

import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.latency.operators import OperatorModel
from gpu_simulate_test.profiles.bundle import Profile
from gpu_simulate_test.profiles.operators import Reach, operator_points, operator_tables
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.simulation import simulate
from gpu_simulate_test.vidur_ext.stock_predictor import StockPredictor, stand_in, train_stock
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings
from tests.support.configs import typed_config
from tests.support.latency import Costs

MS = 1_000_000
LIMITS = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)
LONGEST = 200
# Vidur's own grid has 27 forests of 250 to 750 trees, each fitted up to ten times.
SMALL_GRID: dict[str, Any] = {
    "num_estimators": [5],
    "max_depth": [8],
    "min_samples_split": [2],
    "k_fold_cv_splits": 2,
    "num_training_job_threads": 1,
}


def limits(scheduler: str = "sarathi", **changed: int) -> SimSettings:
    return SimSettings("gsim/qwen3-tiny", "cpu", "cpu_node", scheduler, LIMITS.model_copy(update=changed))


def truth_ms(op: str, key: Sequence[int]) -> float:
    """20 us an operator and 1 us a token, 10 ns a pair of attention; the KV-cache save, which Vidur omits, is huge."""
    if len(key) == 1:
        return 0.02 + key[0] * 1e-3
    batch, chunk, cached = key
    return {"attn_prefill": chunk * (chunk + cached) * 1e-5, "attn_decode": batch * cached * 1e-5}.get(op, 1e6)


def profile_of(factor: float = 1.0) -> Profile:
    """A bundle with a known truth, times `factor`."""
    config = typed_config("vidur_sim", "experiment=cpu_demo")
    register_model(config.model)
    register_device(config.hardware)
    points = operator_points(Mock(), Reach(64, 4, 256, 4096))  # nothing is timed
    timings = [np.full(2, factor * truth_ms(point.op, point.key)) for point in points]
    mlp, attention = operator_tables(points, timings, config.model, LIMITS.block_size)
    meta = {"num_layers": config.model.num_layers}
    return Profile(Path("nowhere"), meta, mlp, attention, iteration=None, noise=None, kernels=None)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profile_of()


@pytest.fixture(scope="module")
def stock(profile: Profile) -> StockPredictor:
    return train_stock(profile, limits(), LONGEST, **SMALL_GRID)


BATCHES = [
    [ScheduledSeq(0, 40, 0, True)],
    [ScheduledSeq(0, 64, 128, True)],
    [ScheduledSeq(0, 1, 150, False)],
    [ScheduledSeq(0, 20, 30, True), ScheduledSeq(1, 1, 60, False), ScheduledSeq(2, 1, 190, False)],
]


def test_nothing_is_fetched_and_nothing_is_left_behind(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts: list[object] = []
    hub = "vidur.execution_time_predictor.sklearn_execution_time_predictor.snapshot_download"
    monkeypatch.setattr(hub, lambda **arguments: attempts.append(arguments))
    monkeypatch.setattr(socket.socket, "connect", lambda _socket, address: attempts.append(address))
    working, scratch = tmp_path / "working", tmp_path / "scratch"
    working.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    train_stock(profile, limits(), LONGEST, **SMALL_GRID)
    assert attempts == []
    assert list(working.iterdir()) == list(scratch.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_tables_of_twice_the_times_give_twice_the_prediction(stock: StockPredictor) -> None:
    twice = train_stock(profile_of(2.0), limits(), LONGEST, **SMALL_GRID)
    for seqs in BATCHES:
        batch = Composition.of(seqs)
        assert twice.step_ns(batch, 0.0) == pytest.approx(2 * stock.step_ns(batch, 0.0))


def test_it_says_roughly_what_the_tables_say(profile: Profile, stock: StockPredictor) -> None:
    operators = OperatorModel(profile.mlp, profile.attention, profile.meta["num_layers"])
    for seqs in BATCHES:
        batch = Composition.of(seqs)
        assert 0.5 < stock.step_ns(batch, 0.0) / operators.step_ns(batch, 0.0) < 2
    grown = [stock.step_ns(Composition.of([ScheduledSeq(0, tokens, 0, True)]), 0.0) for tokens in (8, 16, 32, 64)]
    assert grown == sorted(grown)


@pytest.mark.parametrize(("scheduler", "num_blocks"), [("sarathi", 4096), ("sarathi", 9), ("vllm", 4096)])
def test_a_simulation_runs_on_it(stock: StockPredictor, scheduler: str, num_blocks: int) -> None:
    lengths = np.array([(60, 40), (40, 60), (64, 1)])
    predicted: list[float] = []

    def look_at(vidur_batch: Any) -> None:
        predicted.append(stock.get_execution_time(vidur_batch, 0).total_time * 1e9)
        stock.look_at(vidur_batch)

    arrivals = ArrivalProcess.at(np.array([0, MS, 2 * MS]))
    result = simulate(limits(scheduler, num_blocks=num_blocks), stock, arrivals, *lengths.T, look_at=look_at)
    assert result.token_counts().tolist() == [output for _, output in lengths]
    assert (sum(result.restarts) > 0) == (num_blocks < 10)
    taken = [end - start for start, end in zip(result.start_ns, result.end_ns, strict=True)]
    assert taken == pytest.approx(predicted, abs=2)


def test_under_orca_whole_prompts_together_are_in_the_table(profile: Profile) -> None:
    stock = train_stock(profile, limits("orca"), LONGEST, **SMALL_GRID)
    arrivals, ones = ArrivalProcess.at(np.zeros(4, dtype=np.int64)), np.ones(4, dtype=np.int64)
    result = simulate(limits("orca"), stock, arrivals, 199 * ones, ones, look_at=stock.look_at)
    assert result.batches[0].num_prefill_tokens == 4 * 199


def test_of_one_request_the_stand_in_is_vidurs_own_batch() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def look_at(vidur_batch: Any) -> None:
        seen.append((list(vidur_batch.num_q_tokens), list(vidur_batch.num_kv_tokens)))

    one = ArrivalProcess.at(np.array([0])), np.array([150]), np.array([5])
    result = simulate(limits(), Costs(lambda _batch: MS), *one, look_at=look_at)
    assert len(seen) == 7  # three chunks, four decode steps
    assert seen == [(alike.num_q_tokens, alike.num_kv_tokens) for alike in map(stand_in, result.batches)]


def test_of_unequal_prompts_vidurs_own_batch_is_predicted_not_the_mean(stock: StockPredictor) -> None:
    requests = ArrivalProcess.at(np.array([0, 0])), np.array([8, 56]), np.array([1, 1])
    own, mean = (simulate(limits(), stock, *requests, look_at=look_at) for look_at in (stock.look_at, None))
    assert own.batches == mean.batches
    assert len(own.batches) == 1
    assert own.end_ns[0] != pytest.approx(mean.end_ns[0], rel=1e-3)


SEQS = st.tuples(st.integers(1, 64), st.integers(0, LONGEST - 2), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.lists(SEQS, min_size=1, max_size=LIMITS.max_num_seqs))
def test_every_batch_within_the_limits_is_in_the_table(
    stock: StockPredictor, drawn: list[tuple[int, int, bool]]
) -> None:
    seqs: list[ScheduledSeq] = []
    budget = LIMITS.max_num_batched_tokens
    for index, (tokens, cached, prefill) in enumerate(drawn):
        tokens = min(tokens, LONGEST - cached, budget) if prefill else 1
        if tokens > 0:
            seqs.append(ScheduledSeq(index, tokens, cached, prefill))
            budget -= tokens
    batch = Composition.of(seqs)
    alike = stand_in(batch)
    assert sum(alike.num_q_tokens) == batch.num_prefill_tokens + batch.num_decode_seqs
    assert alike.size == len(seqs)
    assert stock.step_ns(batch, 0.0) > 0


def test_tables_recorded_elsewhere_need_no_columns_of_vidurs(profile: Profile, stock: StockPredictor) -> None:
    """Not those it selects by, nor the KV-cache save."""
    keys = ["num_tokens", "batch_size", "prefill_chunk_size", "kv_cache_size"]
    bare = {
        name: table[[column for column in table if column in keys or str(column).endswith("median")]]
        for name, table in (("mlp", profile.mlp), ("attention", profile.attention))
    }
    bare["attention"] = bare["attention"].drop(columns="time_stats.attn_kv_cache_save.median")
    again = train_stock(replace(profile, **bare), limits(), LONGEST, **SMALL_GRID)
    for seqs in BATCHES:
        batch = Composition.of(seqs)
        assert again.step_ns(batch, 0.0) == pytest.approx(stock.step_ns(batch, 0.0))
