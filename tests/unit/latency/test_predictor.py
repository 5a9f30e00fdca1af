"""The predictor finds a known truth, never goes down when a batch grows, and says what it has not seen."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.latency.operators import COMPUTE_OPS, OperatorModel
from gpu_simulate_test.profiles.bursts import (
    Measured,
    fair_share,
    first_of,
    iteration_table,
    plan_episodes,
    random_episode,
    run_episode,
    schedule,
)
from gpu_simulate_test.profiles.bursts import cost as cost_of
from gpu_simulate_test.profiles.operators import Reach, powers_of_two
from gpu_simulate_test.profiles.predictors import Predictors
from tests.support.virtual_engine import VirtualClock, VirtualEngine

REACH = Reach(max_tokens=64, max_seqs=8, max_context=256, max_cached=4096)
LAYERS = 4


def cost(composition: Composition) -> int:
    """An engine's truth: overhead, dense attention, a bend where 16 tokens fill the machine."""
    tokens = composition.num_prefill_tokens + composition.num_decode_seqs
    seqs = composition.num_prefill_seqs + composition.num_decode_seqs
    cached = composition.kv_tokens_prefill + composition.kv_tokens_decode
    return round(
        2_000_000 + 60_000 * tokens + 40_000 * max(0, tokens - 16) + 50_000 * seqs + 30 * tokens * (tokens + cached)
    )


def operator_model() -> OperatorModel:
    """Operators that know nothing of the overhead: 1 us a token and operator, attention by pairs."""
    mlp = pd.DataFrame({"num_tokens": [1, 64]} | {f"time_stats.{op}.median": [0.001, 0.064] for op in COMPUTE_OPS})
    rows = []
    for kv in (0, 64, 256):
        rows += [
            {"batch_size": 1, "prefill_chunk_size": n, "kv_cache_size": kv, "prefill": n * (n + kv) * 1e-6}
            for n in (1, 64)
        ]
        rows += [
            {"batch_size": n, "prefill_chunk_size": 0, "kv_cache_size": kv, "decode": n * kv * 1e-6} for n in (1, 8)
        ]
    attention = pd.DataFrame(rows).fillna(0.0)
    attention = attention.rename(
        columns={"prefill": "time_stats.attn_prefill.median", "decode": "time_stats.attn_decode.median"}
    )
    return OperatorModel(mlp, attention, LAYERS)


def measure(seeds: range) -> pd.DataFrame:
    clock = VirtualClock()
    engine = VirtualEngine(clock, cost, max_num_seqs=8)
    measured = Measured()
    for episode in [*plan_episodes(REACH), *(random_episode(REACH, seed) for seed in seeds)]:
        measured.speed.watch(engine, clock)
        measured.add(run_episode(engine, episode, vocab_size=100, clock=clock))
    return iteration_table(measured.table(), measured.speed)


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return Predictors.fit(operator_model(), measure(range(3)))


def test_a_known_engine_is_predicted_within_a_few_percent_where_it_was_not_measured(predictors: Predictors) -> None:
    unseen = measure(range(100, 103))
    error = predictors.predict_table(unseen) / unseen["median_ns"] - 1
    assert error.abs().median() < 0.01
    assert error.abs().quantile(0.99) < 0.03


def test_operators_alone_leave_the_overhead_out(predictors: Predictors) -> None:
    batch = Composition.of([ScheduledSeq(0, 1, 10, False)])
    assert predictors.operators.step_ns(batch, 0.0) < 0.1 * cost(batch)


SEQS = st.tuples(st.integers(1, 64), st.integers(0, 200), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.lists(SEQS, min_size=1, max_size=8), SEQS)
def test_a_batch_with_one_more_sequence_never_takes_less(
    predictors: Predictors, seqs: list[tuple[int, int, bool]], more: tuple[int, int, bool]
) -> None:
    def batch(items: list[tuple[int, int, bool]]) -> Composition:
        return Composition.of(
            [ScheduledSeq(i, n if prefill else 1, kv, prefill) for i, (n, kv, prefill) in enumerate(items)]
        )

    before, after = (predictors.iterations.step_ns(batch(items), 0.0) for items in (seqs, [*seqs, more]))
    assert 0 < before <= after * 1.0000001


def test_one_batch_and_a_table_of_it_are_predicted_alike(predictors: Predictors) -> None:
    seqs = [ScheduledSeq(0, 30, 5, True), ScheduledSeq(1, 1, 77, False), ScheduledSeq(2, 1, 13, False)]
    batch = Composition.of(seqs)
    table = pd.DataFrame([batch._asdict()])
    assert predictors.iterations.step_ns(batch, 0.0) == pytest.approx(predictors.predict_table(table)[0])


def test_what_lies_beyond_the_profile_is_said_to(predictors: Predictors) -> None:
    batches = [ScheduledSeq(0, 30, 0, True), ScheduledSeq(0, 65, 0, True), ScheduledSeq(0, 1, 5000, False)]
    covered = predictors.cover(pd.DataFrame([Composition.of([one]) for one in batches]))
    assert covered.tolist() == [True, False, False]


def test_beyond_the_profile_time_still_grows(predictors: Predictors) -> None:
    batches = [Composition.of([ScheduledSeq(0, 1, cached, False)]) for cached in (200, 2_000, 20_000)]
    times = [predictors.iterations.step_ns(batch, 0.0) for batch in batches]
    assert times == sorted(times)
    assert times[2] > times[0]


def test_the_plan_reaches_every_corner_it_was_given() -> None:
    table = measure(range(3))
    assert table["num_prefill_tokens"].max() == REACH.max_tokens
    assert table["num_decode_seqs"].max() == REACH.max_seqs
    assert (table["kv_tokens_decode"] / table["num_decode_seqs"].clip(lower=1)).max() > 0.9 * REACH.max_context
    mixed = (table["num_prefill_seqs"] > 0) & (table["num_decode_seqs"] > 0)
    assert mixed.sum() > 20
    assert (table["repeats"] >= 1).all()
    assert np.isfinite(table["median_ns"]).all()


def test_a_machine_that_turns_slow_half_way_gives_the_same_profile() -> None:
    """Half of the rounds at 1.5 times the cost: the table is that of one speed, up to a factor for all."""

    def rounds(slow_from: int) -> pd.DataFrame:
        clock = VirtualClock()
        factor = [1.0]
        engine = VirtualEngine(clock, lambda batch: round(cost(batch) * factor[0]), max_num_seqs=8)
        measured = Measured()
        for number in range(100):
            factor[0] = 1.5 if number >= slow_from else 1.0
            measured.speed.watch(engine, clock)
            measured.add(run_episode(engine, random_episode(REACH, number), vocab_size=100, clock=clock))
        return iteration_table(measured.table(), measured.speed)

    ratio = rounds(slow_from=60)["median_ns"] / rounds(slow_from=1000)["median_ns"]
    assert (ratio / ratio.median()).between(0.98, 1.02).mean() > 0.9


@given(st.integers(1, 5000), st.integers(1, 64))
def test_powers_of_two_end_at_the_limit(high: int, low: int) -> None:
    values = powers_of_two(high, low)
    assert values[-1] == high
    assert values == sorted(set(values))


def test_no_iterations_are_an_empty_table() -> None:
    clock = VirtualClock()
    measured = Measured()
    measured.speed.watch(VirtualEngine(clock), clock)
    assert iteration_table(measured.table(), measured.speed).empty


def test_a_profile_cut_short_has_seen_cheap_and_dear_bursts_and_one_held_out() -> None:
    planned = plan_episodes(REACH)
    held_out = [random_episode(REACH, 1000 + seed) for seed in range(4)]
    order = schedule([planned, planned], held_out)
    costs = np.array([cost_of(episode) for episode, _ in order[: len(order) // 3]])
    every = np.array([cost_of(episode) for episode in planned])
    assert costs.min() < np.quantile(every, 0.1)
    assert costs.max() > np.quantile(every, 0.9)
    assert any(is_held_out for _, is_held_out in order[: len(order) // 3])
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    assert sorted(map(str, first)) == sorted(map(str, second)), "every round runs every burst once"
    assert first != second


def test_one_filling_of_the_cache_shows_decoding_at_every_batch_size() -> None:
    for reach in (REACH, Reach(max_tokens=512, max_seqs=32, max_context=1024, max_cached=32768)):
        limits = {"max_num_seqs": reach.max_seqs, "max_num_batched_tokens": reach.max_tokens}
        engine = VirtualEngine(VirtualClock(), cost, **limits)
        sizes: set[int] = set()
        most_cached = 0
        for episode in plan_episodes(reach):
            for step in run_episode(engine, episode, vocab_size=100, clock=VirtualClock()):
                batch = Composition.of(step.batch)
                assert all(seq.num_cached + seq.num_tokens <= reach.max_context for seq in step.batch)
                if not batch.num_prefill_seqs:
                    sizes.add(batch.num_decode_seqs)
                    most_cached = max(most_cached, batch.kv_tokens_decode)
        assert sizes == set(range(1, reach.max_seqs + 1))
        assert most_cached > min(reach.max_cached, reach.max_seqs * reach.max_context) / 3


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 5000))
def test_a_fair_share_cuts_the_dearest_to_the_same_cost_and_spends_all(costs: list[int], total: int) -> None:
    share = fair_share(costs, total)
    assert sum(min(share, one) for one in costs) == pytest.approx(min(total, sum(costs)))


def test_a_burst_too_dear_runs_with_its_first_requests() -> None:
    dear = plan_episodes(REACH)[-3]
    for most in (0, cost_of(dear[:1]), cost_of(dear) // 2, cost_of(dear)):
        part = first_of(dear, most)
        assert part == dear[: len(part)]
        assert cost_of(part) <= most
        assert part == dear or cost_of(dear[: len(part) + 1]) > most


def test_what_another_process_measured_is_put_just_before_the_present() -> None:
    clock = VirtualClock()
    measured = Measured()
    engine = VirtualEngine(clock, cost, max_num_seqs=8)
    measured.speed.watch(engine, clock)
    measured.add(run_episode(engine, random_episode(REACH, 1), vocab_size=100, clock=clock))
    moved = measured.later(7_000)
    assert max(moved.table()["start_ns"] + moved.table()["ns"]) == 7_000
    before, after = (iteration_table(one.table(), one.speed) for one in (measured, moved))
    pd.testing.assert_frame_equal(before, after)
