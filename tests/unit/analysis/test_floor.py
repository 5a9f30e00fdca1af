"""An error is held against what real runs differ by, and carries an interval of its own."""

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.compare import compare
from gpu_simulate_test.analysis.floor import (
    _by_request,
    block_weights,
    confidence_intervals,
    floor_of,
    weighted_percentiles,
)
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.samples import Sample
from gpu_simulate_test.analysis.stage import load_repeats
from gpu_simulate_test.errors import ArtifactError
from tests.support.builders import MS, write_run


def runs(folder: Path, ttft_ms: list[float], sim_ms: float, n: int = 8) -> Assessment:
    """Real repeats and a simulation, of requests that make two tokens 10 ms apart."""
    names = [f"real-r{i}" for i in range(len(ttft_ms))]
    for i, (name, ttft) in enumerate(zip(names, ttft_ms, strict=True)):
        extra = {"repeat_of": names[0]} if i else {"repeat_run_dirs": names}
        write_run(folder / name, "real", times(ttft, n), **extra)
    sim = load_run(write_run(folder / "sim", "vidur", times(sim_ms, n)), "vidur")
    return assess(load_repeats(folder / names[0]), sim)


def times(ttft_ms: float, n: int) -> list[list[int]]:
    first = round(ttft_ms * MS)
    return [[i * 1000 * MS + first, i * 1000 * MS + first + 10 * MS] for i in range(n)]


def row(assessment: Assessment, metric: str, statistic: str = "p50") -> "pd.Series[float]":
    table = assessment.comparison.percentiles.set_index(["metric", "statistic"])
    return table.loc[(metric, statistic)]


def test_the_floor_is_the_prediction_interval_of_one_more_run() -> None:
    # Three runs: t(0.975, 2) = 4.3027, s = 1, sqrt(1 + 1/3) = 1.1547.
    assert floor_of(np.array([[9.0], [10.0], [11.0]])) == pytest.approx([4.9683], abs=1e-4)


def test_another_run_falls_within_the_floor_95_times_in_100() -> None:
    draws = np.random.default_rng(0).normal(100, 5, size=(4, 20_000))
    inside = np.abs(draws[3] - draws[:3].mean(axis=0)) <= floor_of(draws[:3])
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


def test_a_real_figure_is_the_mean_of_the_repeats_and_values_are_pooled(tmp_path: Path) -> None:
    found = runs(tmp_path, [20, 22, 27], 25)
    ttft = row(found, "ttft")
    assert (ttft["real_ns"], ttft["sim_ns"], ttft["error_ns"]) == (23 * MS, 25 * MS, 2 * MS)
    assert (ttft["n_real"], ttft["n_repeats"]) == (8, 3)
    assert ttft["floor"] == pytest.approx(ttft["floor_ns"] / (23 * MS))
    assert len(found.comparison.real_values["ttft"]) == 3 * 8
    assert (found.comparison.per_request["real_ttft_ns"] == 23 * MS).all()
    assert (found.comparison.per_request["error_e2e_ns"] == 2 * MS).all()


def test_repeats_whose_tokens_are_not_held_give_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = runs(tmp_path, [20, 22, 27], 25).comparison
    monkeypatch.setattr("gpu_simulate_test.analysis.load_metrics._HELD_TOKENS", 0)
    repeats = load_repeats(tmp_path / "real-r0")
    assert [len(run.tokens) for run in repeats] == [16, 0, 0]
    found = compare(repeats[0], load_run(tmp_path / "sim", "vidur"), repeats=repeats[1:])
    pd.testing.assert_frame_equal(found.percentiles, held.percentiles[found.percentiles.columns])
    assert np.array_equal(found.real_values["tbt"], held.real_values["tbt"])


def test_one_real_run_has_no_floor(tmp_path: Path) -> None:
    assert np.isnan(row(runs(tmp_path, [20], 25), "ttft")["floor_ns"])


def test_a_request_that_failed_in_any_repeat_is_left_out_everywhere(tmp_path: Path) -> None:
    first, sim = write_run(tmp_path / "a", "real", times(20, 4)), write_run(tmp_path / "s", "vidur", times(21, 4))
    second = write_run(tmp_path / "b", "real", times(20, 4), failed=[2])
    found = compare(load_run(first, "real"), load_run(sim, "vidur"), repeats=[load_run(second, "real")])
    assert found.per_request["request_id"].tolist() == [0, 1, 3]
    assert any("1 of 4 requests, which failed" in note for note in found.notes)


def test_a_repeat_that_is_gone_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "real", times(20, 2), repeat_run_dirs=["a", "a-r2"])
    with pytest.raises(ArtifactError, match=r"no such run directory: .*a-r2"):
        load_repeats(tmp_path / "a")


def test_an_error_equal_for_every_request_has_an_interval_of_no_width(tmp_path: Path) -> None:
    ttft = row(runs(tmp_path, [20], 25), "ttft")
    assert ttft[["ci_low", "relative_error", "ci_high"]].tolist() == pytest.approx([0.25, 0.25, 0.25])


def test_the_interval_covers_the_true_error_about_as_often_as_it_says() -> None:
    rng, n, covered = np.random.default_rng(1), 150, 0
    for _ in range(60):
        real = rng.gamma(4, 10, n)
        sim = real * 1.1 + rng.normal(0, 5, n)
        samples = [{"e2e": Sample(values, np.arange(n))} for values in (real, sim)]
        error = samples[1]["e2e"].statistics() / samples[0]["e2e"].statistics() - 1
        low, high = confidence_intervals(samples[:1], samples[1], np.arange(n), {"e2e": error})["e2e"]
        covered += bool(low[3] <= 0.1 <= high[3])
    assert 52 <= covered <= 60


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 4)), min_size=1, max_size=30))
def test_weighting_is_repeating(weighted: list[tuple[float, int]]) -> None:
    values, weights = (np.array(column) for column in zip(*sorted(weighted), strict=True))
    found = weighted_percentiles(values, np.stack([weights, np.ones_like(weights)]).astype(np.int32))
    assert found[1] == pytest.approx(np.percentile(values, [50, 90, 99]))
    if weights.any():
        assert found[0] == pytest.approx(np.percentile(np.repeat(values, weights), [50, 90, 99]))
    else:
        assert np.isnan(found[0]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 5))
def test_every_resample_has_as_many_requests_as_the_run(n: int, replications: int) -> None:
    weights = block_weights(n, replications, np.random.default_rng(0))
    assert weights.shape == (replications, n)
    assert (weights.sum(axis=1) == n).all()


@given(st.integers(1, 3), st.lists(st.integers(0, 6), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_values_are_picked_as_if_all_had_been_put_in_order(num_runs: int, sizes: list[int], random: Random) -> None:
    rank = np.array(random.sample(range(len(sizes)), len(sizes)))
    runs = []
    for _ in range(num_runs):
        owner = np.repeat(np.arange(len(sizes)), [random.randint(0, size) for size in sizes])
        runs.append(Sample(np.array([random.random() for _ in owner]), owner))
    values, owner = (np.concatenate([getattr(one, name) for one in runs]) for name in ("values", "owner"))
    order = np.argsort(rank[owner], kind="stable")
    picked = np.array(random.choices(range(len(values)), k=5) if len(values) else [], dtype=np.int64)
    found = _by_request(runs, rank, picked)
    assert np.array_equal(found[0], values[order][picked])
    assert np.array_equal(found[1], rank[owner][order][picked])
