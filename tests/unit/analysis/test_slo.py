"""Objectives count the requests that meet them, failed ones included in what they are a share of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.analysis.floor import floor_of
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.analysis.slo import service_levels
from gpu_simulate_test.config.base import validated
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.errors import ConfigError
from tests.support.builders import MS, write_run
from tests.unit.analysis.test_report import written

# Arrivals are 1 s apart. TTFT 20, 60, 20, 20 ms; mean time between tokens 10, 10, 30, none; E2E 40, 80, 80, 20 ms.
TIMES = [
    [20 * MS, 25 * MS, 40 * MS],
    [1060 * MS, 1070 * MS, 1080 * MS],
    [2020 * MS, 2050 * MS, 2080 * MS],
    [3020 * MS],
]


def run(folder: Path, kind: str, times: list[list[int]] = TIMES, failed: tuple[int, ...] = ()) -> Run:
    return load_run(write_run(folder, kind, times, failed=failed), kind)


def row(levels: pd.DataFrame, objective: str, statistic: str) -> "pd.Series[float]":
    found = levels[(levels["objective"] == objective) & (levels["statistic"] == statistic)]
    assert len(found) == 1
    return found.iloc[0]


def test_a_request_meets_an_objective_up_to_its_limit(tmp_path: Path) -> None:
    real, sim = run(tmp_path / "r", "real"), run(tmp_path / "v", "vidur")
    levels = service_levels([real], sim, SloConfig(ttft_ms=20, tbt_ms=10, e2e_ms=79.9))
    for objective, met in (("ttft", 3), ("tbt", 3), ("e2e", 2), ("all", 2)):
        assert row(levels, objective, "attainment")[["real", "sim"]].tolist() == [met / 4, met / 4]
        # From the first arrival to the last completion: 3.02 s.
        assert row(levels, objective, "goodput_per_s")["real"] == pytest.approx(met / 3.02)
    assert levels["limit_ms"].tolist()[::2] == pytest.approx([20, 10, 79.9, np.nan], nan_ok=True)
    assert (levels["error"] == 0).all()


def test_the_time_between_tokens_is_judged_by_its_mean_and_not_by_its_longest_gap(tmp_path: Path) -> None:
    times = [[20 * MS, 21 * MS, 41 * MS]]  # gaps of 1 and 20 ms, 10.5 on average
    real, sim = run(tmp_path / "r", "real", times), run(tmp_path / "v", "vidur", times)
    assert row(service_levels([real], sim, SloConfig(tbt_ms=10.5)), "tbt", "attainment")["real"] == 1
    assert row(service_levels([real], sim, SloConfig(tbt_ms=10.4)), "tbt", "attainment")["real"] == 0


def test_a_failed_request_meets_nothing_and_counts(tmp_path: Path) -> None:
    real, sim = run(tmp_path / "r", "real", failed=(0,)), run(tmp_path / "v", "vidur")
    levels = service_levels([real], sim, SloConfig(e2e_ms=1e9))
    attainment = row(levels, "e2e", "attainment")
    assert attainment[["real", "sim", "n_real", "n_sim"]].tolist() == [0.75, 1.0, 4, 4]
    assert row(levels, "all", "goodput_per_s")["real"] == pytest.approx(3 / 3.02)


def shifted(by_ms: float) -> list[list[int]]:
    return [[time + round(by_ms * MS) for time in times] for times in TIMES]


def test_repeats_and_simulations_with_noise_are_averaged_with_their_spread(tmp_path: Path) -> None:
    repeats = [run(tmp_path / f"r{i}", "real", shifted(ms)) for i, ms in enumerate((0, 1, 1))]
    sim = run(tmp_path / "v", "vidur")
    sim = replace(sim, samples=[run(tmp_path / f"s{i}", "vidur", shifted(ms)) for i, ms in enumerate((0, 45))])
    attainment = row(service_levels(repeats, sim, SloConfig(ttft_ms=20)), "ttft", "attainment")
    assert attainment["real"] == pytest.approx(0.75 / 3)
    assert attainment["sim"] == pytest.approx(0.75 / 2)
    assert attainment[["sim_low", "sim_high"]].tolist() == pytest.approx([0.025 * 0.75, 0.975 * 0.75])
    assert attainment["n_repeats"] == 3
    assert attainment["floor"] == pytest.approx(floor_of(np.array([[0.75], [0.0], [0.0]]))[0])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("slo")
    return run(folder / "r", "real"), run(folder / "v", "vidur")


LIMITS = ("ttft_ms", "tbt_ms", "e2e_ms")


@settings(max_examples=100, deadline=None)
@given(limits=st.tuples(*[st.floats(1, 100)] * 3), more=st.floats(0, 50))
def test_a_looser_objective_is_met_at_least_as_often_and_all_at_most_as_often_as_each(
    pair: tuple[Run, Run], limits: tuple[float, float, float], more: float
) -> None:
    real, sim = pair
    tight, loose = (
        service_levels(
            [real],
            sim,
            SloConfig(**dict(zip(LIMITS, (limit + extra for limit in limits), strict=True))),
        )["real"]
        for extra in (0, more)
    )
    assert (loose >= tight).all()
    assert (tight.iloc[-2:].to_numpy() <= tight.to_numpy().reshape(-1, 2)).all()


def test_without_an_objective_nothing_is_written_and_with_one_both_reports_have_it(tmp_path: Path) -> None:
    real, sim = write_run(tmp_path / "r", "real", TIMES), write_run(tmp_path / "v", "vidur", shifted(5))
    written(real, sim, tmp_path / "without")
    assert not (tmp_path / "without" / "slo.csv").exists()
    found = written(real, sim, tmp_path / "with", slo=SloConfig(ttft_ms=20, e2e_ms=100))
    read = pd.read_csv(tmp_path / "with" / "slo.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(read, found.slo, check_dtype=False, check_exact=True)
    without, summary = ((tmp_path / name / "summary.md").read_text(encoding="utf-8") for name in ("without", "with"))
    assert without.splitlines()[:5] == summary.splitlines()[:5], "headline and verdict are untouched"
    assert "Service-level" not in without + (tmp_path / "without" / "report.html").read_text(encoding="utf-8")
    assert "| TTFT at most 20 ms | attainment | 75.0 % | 0.0 % |  | -75.0 points | -100.0 % |  |" in summary
    assert "| E2E at most 100 ms | goodput, requests/s | 1.325 | 1.322 |" in summary
    assert "| All of them | attainment | 75.0 % |" in summary
    page = (tmp_path / "with" / "report.html").read_text(encoding="utf-8")
    for text in ("TTFT at most 20 ms", "All of them", "-75.0 points", "1.325"):
        assert f">{text}</t" in page


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_limit_is_above_zero(limit: float) -> None:
    with pytest.raises(ConfigError, match=r"tbt_ms=.* is out of range"):
        validated(SloConfig, {"tbt_ms": limit})
