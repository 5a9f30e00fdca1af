"""What a table of many runs says of one: the same definitions as a comparison's, and NaN for what is not known."""

from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from gpu_simulate_test.analysis.compare import compare
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.analysis.run_figures import LATENCIES, RANGED, figures_of, num_gpus_of, run_figures
from gpu_simulate_test.analysis.slo import service_levels
from gpu_simulate_test.config.schema import SloConfig
from tests.support.builders import MS, write_run

# Arrivals are 1 s apart, the last completion is at 3.02 s. TTFT 20, 60, 20, 20 ms; TPOT 10, 10, 30 ms, none.
TIMES = [
    [20 * MS, 25 * MS, 40 * MS],
    [1060 * MS, 1070 * MS, 1080 * MS],
    [2020 * MS, 2050 * MS, 2080 * MS],
    [3020 * MS],
]
NO_SLO = SloConfig()


def run(folder: Path, kind: str = "vidur", *, later_ms: float = 0, **said: Any) -> Run:
    times = [[time + round(later_ms * MS) for time in request] for request in TIMES]
    return load_run(write_run(folder, kind, times, **said), kind)


def with_noise(folder: Path) -> Run:
    samples = [run(folder / f"s{number}", later_ms=number) for number in range(5)]
    return replace(run(folder / "v"), samples=samples)


def test_figures_of_a_run_that_is_reckoned_by_hand(tmp_path: Path) -> None:
    found = run_figures(run(tmp_path / "v"), SloConfig(ttft_ms=20, tbt_ms=10), 3.6, 2)
    assert (found["num_requests"], found["num_failed"]) == (4, 0)
    assert found["duration_s"] == pytest.approx(3.02)
    assert found["request_rate_per_s"] == pytest.approx(1)
    assert found["requests_per_s"] == pytest.approx(4 / 3.02)
    assert found["output_tokens_per_s"] == pytest.approx(10 / 3.02)
    assert found["output_tokens_per_s_per_gpu"] == pytest.approx(5 / 3.02)
    assert found["interactivity_tokens_per_s"] == pytest.approx(100)
    assert found["ttft_mean_ms"] == pytest.approx(30)
    assert found["tpot_p50_ms"] == pytest.approx(10)
    assert found["tbt_mean_ms"] == pytest.approx(100 / 6)
    assert found["e2e_p50_ms"] == pytest.approx(60)
    assert found["slo_attainment"] == pytest.approx(2 / 4)
    assert found["goodput_per_s"] == pytest.approx(2 / 3.02)
    # Two GPUs for 3.02 s at a tenth of a cent a second, ten tokens.
    assert found["cost_per_million_output_tokens"] == pytest.approx(2 * 3.02 * 0.001 / 10 * 1e6)


def test_the_columns_of_a_table_are_in_one_order(tmp_path: Path) -> None:
    latencies = [f"{metric}_{name}_ms" for metric in LATENCIES for name in ("mean", "p50", "p90", "p99")]
    columns = [
        *("num_requests", "num_failed", "duration_s", "request_rate_per_s", "requests_per_s", "output_tokens_per_s"),
        *("output_tokens_per_s_per_gpu", "interactivity_tokens_per_s"),
        *latencies,
        *("slo_attainment", "goodput_per_s", "cost_per_million_output_tokens"),
    ]
    assert list(run_figures(run(tmp_path / "v"), NO_SLO, None, 1)) == columns
    ranges = [f"{name}_{end}" for name in RANGED for end in ("low", "high")]
    assert list(run_figures(with_noise(tmp_path), SloConfig(ttft_ms=1), 1.0, 1)) == columns + ranges


def test_they_are_what_a_comparison_says_of_the_simulation(tmp_path: Path) -> None:
    slo = SloConfig(ttft_ms=22, e2e_ms=81)
    sim, real = with_noise(tmp_path), run(tmp_path / "r", "real")
    found = run_figures(sim, slo, None, 1)
    comparison, together = compare(real, sim), service_levels([real], sim, slo).iloc[-2:]
    for metric in LATENCIES:
        for name in ("mean", "p50", "p90", "p99"):
            assert found[f"{metric}_{name}_ms"] == pytest.approx(comparison.figure(metric, name, "sim_ns") / 1e6)
    for end in ("low", "high"):
        assert found[f"ttft_p99_ms_{end}"] == pytest.approx(comparison.figure("ttft", "p99", f"sim_{end}_ns") / 1e6)
        assert found[f"slo_attainment_{end}"] == pytest.approx(together[f"sim_{end}"].iloc[0])
    assert [found["slo_attainment"], found["goodput_per_s"]] == pytest.approx(together["sim"].tolist())


def test_failed_requests_are_told_and_made_no_tokens_that_count(tmp_path: Path) -> None:
    found = run_figures(run(tmp_path / "r", "real", failed=(2,)), SloConfig(e2e_ms=1e6), None, 1)
    assert (found["num_requests"], found["num_failed"], found["slo_attainment"]) == (4, 1, 0.75)
    assert found["output_tokens_per_s"] == pytest.approx(7 / 3.02)


def test_what_is_not_known_is_nan_and_not_zero(tmp_path: Path) -> None:
    found = run_figures(run(tmp_path / "r", "real", failed=(0, 1, 2, 3)), NO_SLO, 1.0, 1)
    assert {name for name, value in found.items() if not isnan(value)} == {
        "num_requests",
        "num_failed",
        "request_rate_per_s",
    }
    at_once = run_figures(run(tmp_path / "v", arrival_ns=[0, 0, 0, 0]), NO_SLO, None, 1)
    assert isnan(at_once["request_rate_per_s"]), "requests that all come at once have no rate"
    assert isnan(at_once["slo_attainment"]) and isnan(at_once["cost_per_million_output_tokens"])


def test_the_rate_of_a_closed_loop_is_what_it_completes(tmp_path: Path) -> None:
    found = run_figures(run(tmp_path / "v", closed_loop=True), NO_SLO, None, 1)
    assert found["request_rate_per_s"] == found["requests_per_s"] == pytest.approx(4 / 3.02)


def test_gpus_are_those_of_every_replica_and_a_cpu_counts_once(tmp_path: Path) -> None:
    limits = {"tensor_parallel": 4, "pipeline_parallel": 2, "data_parallel": 3, "expert_parallel": 4}
    assert num_gpus_of(run(tmp_path / "v", settings={"limits": limits})) == 24
    assert num_gpus_of(run(tmp_path / "r", "real", engine={"limits": {"max_num_seqs": 8}})) == 1
    on_cpu = {"hardware": {"device": "cpu"}, "limits": limits}
    assert num_gpus_of(run(tmp_path / "c", params=on_cpu)) == 1
    assert num_gpus_of(run(tmp_path / "foreign")) == 1


def test_a_finished_run_is_read_by_its_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "v", "vidur", TIMES, settings={"limits": {"tensor_parallel": 2}})
    found = figures_of(folder, "vidur", SloConfig(ttft_ms=20), 3.6)
    assert found == run_figures(load_run(folder, "vidur"), SloConfig(ttft_ms=20), 3.6, 2)
