"""Requests are paired by id and tokens by what both made; anything else is refused or said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.compare import Comparison, compare
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.samples import empirical_cdf, request_latencies
from gpu_simulate_test.errors import ArtifactError
from tests.support.builders import MS, write_run

# Arrivals are 0, 1 s and 2 s. Request 1 makes four tokens, request 2 only one.
REAL = [[20 * MS, 30 * MS, 50 * MS], [1030 * MS, 1040 * MS, 1050 * MS, 1060 * MS], [2040 * MS]]
SIM = [[10 * MS, 20 * MS, 30 * MS], [1010 * MS, 1020 * MS, 1030 * MS, 1040 * MS], [2010 * MS]]

Times = Sequence[Sequence[int]]


def compared(
    folder: Path, real: Times, sim: Times, *, allow: bool = False, asked: list[int] | None = None, **of_sim: Any
) -> Comparison:
    of_sim = {"num_decode_tokens": asked, **of_sim}
    real_run = load_run(write_run(folder / "real_a", "real", real, num_decode_tokens=asked), "real")
    sim_run = load_run(write_run(folder / "vidur_a", "vidur", sim, **of_sim), "vidur")
    return compare(real_run, sim_run, allow_mismatch=allow)


def statistic(comparison: Comparison, metric: str, name: str) -> dict[str, Any]:
    rows = comparison.percentiles
    found = rows[(rows["metric"] == metric) & (rows["statistic"] == name)].to_dict("records")
    assert len(found) == 1
    return {str(key): value for key, value in found[0].items()}


def test_latencies_of_a_request_follow_their_definitions(tmp_path: Path) -> None:
    frame = request_latencies(load_run(write_run(tmp_path / "r", "real", REAL), "real"))
    assert frame["num_tokens"].tolist() == [3, 4, 1]
    assert frame["ttft_ns"].tolist() == [20 * MS, 30 * MS, 40 * MS]
    assert frame["e2e_ns"].tolist() == [50 * MS, 60 * MS, 40 * MS]
    assert frame["tpot_ns"].tolist()[:2] == [15 * MS, 10 * MS]
    assert np.isnan(frame["tpot_ns"][2]), "one token has no time per output token"
    assert frame["e2e_per_token_ns"].tolist() == [50 * MS / 3, 15 * MS, 40 * MS]


def test_the_percentile_table_holds_every_metric_and_statistic(tmp_path: Path) -> None:
    table = compared(tmp_path, REAL, SIM).percentiles
    assert table.columns.tolist() == [
        *("metric", "statistic", "real_ns", "sim_ns", "error_ns", "relative_error", "n_real", "n_sim"),
        *("sim_low_ns", "sim_high_ns", "n_repeats", "floor_ns", "floor", "ci_low", "ci_high"),
    ]
    assert table["metric"].tolist() == [m for m in ("ttft", "tbt", "tpot", "e2e", "e2e_per_token") for _ in range(4)]
    assert table["statistic"].tolist() == ["p50", "p90", "p99", "mean"] * 5


def test_simulations_with_noise_are_averaged_as_real_repeats_are(tmp_path: Path) -> None:
    sim = write_run(tmp_path / "vidur_a", "vidur", SIM)
    for number, later in enumerate((4, 8)):
        write_run(sim / "samples" / str(number), "vidur", [[time + later * MS for time in times] for times in SIM])
    real = load_run(write_run(tmp_path / "real_a", "real", REAL), "real")
    comparison = compare(real, load_run(sim, "vidur"))
    found = statistic(comparison, "ttft", "p50")
    assert found["sim_ns"] == 10 * MS + 6 * MS
    assert (found["sim_low_ns"], found["sim_high_ns"]) == (14.1 * MS, 17.9 * MS)
    assert comparison.per_request["sim_ttft_ns"].tolist() == [10 * MS] * 3, "paired errors are of the run without noise"
    assert len(comparison.sim_values["ttft"]) == 6


def test_percentiles_interpolate_linearly_and_errors_are_sim_minus_real(tmp_path: Path) -> None:
    comparison = compared(tmp_path, REAL, SIM)
    p90 = statistic(comparison, "ttft", "p90")  # of 20, 30, 40 ms: 0.8 of the way from 30 to 40
    assert p90["real_ns"] == pytest.approx(38 * MS)
    assert p90["sim_ns"] == 10 * MS
    assert p90["error_ns"] == pytest.approx(-28 * MS)
    assert p90["relative_error"] == pytest.approx(-28 / 38)
    assert (p90["n_real"], p90["n_sim"]) == (3, 3)
    mean = statistic(comparison, "tbt", "mean")  # real gaps: 10, 20, 10, 10, 10 ms
    assert (mean["real_ns"], mean["sim_ns"], mean["n_real"]) == (12 * MS, 10 * MS, 5)


def test_tpot_leaves_out_requests_of_one_token_and_says_so(tmp_path: Path) -> None:
    comparison = compared(tmp_path, REAL, SIM)
    assert statistic(comparison, "tpot", "p50")["n_real"] == 2
    assert "TPOT is undefined for 1 request with one output token." in comparison.notes


def test_a_metric_without_values_is_missing_not_zero(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [[20 * MS]], [[10 * MS]])
    for metric in ("tbt", "tpot"):
        row = statistic(comparison, metric, "p50")
        assert all(np.isnan(row[name]) for name in ("real_ns", "sim_ns", "error_ns", "relative_error"))
        assert (row["n_real"], row["n_sim"]) == (0, 0)
    assert statistic(comparison, "ttft", "p50")["error_ns"] == -10 * MS


def test_a_relative_error_against_zero_is_missing(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [[20 * MS, 20 * MS]], [[20 * MS, 25 * MS]])
    row = statistic(comparison, "tbt", "p50")
    assert row["error_ns"] == 5 * MS
    assert np.isnan(row["relative_error"])


def test_requests_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    order = [2, 0, 1]
    real = load_run(write_run(tmp_path / "a", "real", REAL), "real")
    shuffled = write_run(
        tmp_path / "b",
        "vidur",
        [SIM[i] for i in order],
        request_ids=order,
        arrival_ns=[i * 1000 * MS for i in order],
    )
    frame = compare(real, load_run(shuffled, "vidur")).per_request
    assert frame["request_id"].tolist() == [0, 1, 2]
    assert frame["error_ttft_ns"].tolist() == [-10 * MS, -20 * MS, -30 * MS]
    assert frame["error_e2e_ns"].tolist() == [-20 * MS, -20 * MS, -30 * MS]


def test_different_output_lengths_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        compared(tmp_path, [REAL[0], REAL[1][:2], REAL[2]], SIM, asked=[3, 4, 1])
    message = str(caught.value)
    assert "output tokens made differ in 1 of 3 requests, the first being request 1 (2 real, 4 simulated)" in message
    assert f"real_run_dir={tmp_path / 'real_a'}" in message
    assert "allow_mismatch=true" in message
    assert "\n" not in message


def test_an_early_stop_is_compared_on_the_tokens_that_both_made(tmp_path: Path) -> None:
    stopped = [REAL[0], REAL[1][:2], REAL[2]]
    comparison = compared(tmp_path / "a", stopped, SIM, allow=True, asked=[3, 4, 1])
    cut = compared(tmp_path / "b", stopped, [SIM[0], SIM[1][:2], SIM[2]])
    pd.testing.assert_frame_equal(comparison.percentiles, cut.percentiles)
    row = comparison.per_request.iloc[1]
    assert row["num_tokens_compared"] == 2
    assert (row["real_num_decode_tokens_actual"], row["sim_num_decode_tokens_actual"]) == (2, 4)
    assert (row["real_e2e_ns"], row["sim_e2e_ns"]) == (40 * MS, 20 * MS)
    assert (row["real_tpot_ns"], row["sim_tpot_ns"]) == (10 * MS, 10 * MS)
    assert any("cut to the tokens that both made" in note and "allow_mismatch" in note for note in comparison.notes)


def test_the_real_run_is_cut_as_well_when_the_simulation_made_fewer(tmp_path: Path) -> None:
    comparison = compared(tmp_path, REAL, [SIM[0], SIM[1][:1], SIM[2]], allow=True, asked=[3, 4, 1])
    row = comparison.per_request.iloc[1]
    assert (row["real_e2e_ns"], row["sim_e2e_ns"]) == (30 * MS, 10 * MS)
    assert np.isnan(row["real_tpot_ns"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_prefill_tokens": [16, 17, 16]}, "prompt lengths differ in 1 of 3 requests, the first being request 1"),
        ({"num_decode_tokens": [3, 9, 8]}, "asked output lengths differ in 2 of 3 requests, the first being request 1"),
        ({"arrival_ns": [0, 990 * MS, 2000 * MS]}, "arrival schedules are up to 10.000 ms apart"),
    ],
)
def test_requests_that_were_not_the_same_are_refused_or_said(
    tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=f"{message}.*allow_mismatch=true"):
        compared(tmp_path / "a", REAL, SIM, **asked)
    comparison = compared(tmp_path / "b", REAL, SIM, allow=True, **asked)
    assert len(comparison.per_request) == 3
    assert any(message[1:] in note for note in comparison.notes)


def test_requests_of_one_run_only_are_refused_or_left_out(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="1 request in only one of the runs, the first being request 2 of the real"):
        compared(tmp_path / "a", REAL, SIM[:2])
    comparison = compared(tmp_path / "b", REAL, SIM[:2], allow=True)
    assert comparison.per_request["request_id"].tolist() == [0, 1]
    assert any(note.startswith("1 request in only one of the runs") for note in comparison.notes)


def test_failed_requests_are_left_out_on_both_sides_and_counted(tmp_path: Path) -> None:
    comparison = compared(tmp_path, REAL, SIM, failed=[1])
    assert comparison.per_request["request_id"].tolist() == [0, 2]
    assert len(comparison.real_values["ttft"]) == len(comparison.sim_values["ttft"]) == 2
    assert any("1 of 3 requests, which failed (0 in the real run, 1 in the simulated" in n for n in comparison.notes)


@pytest.mark.parametrize("allow", [False, True])
def test_a_comparison_of_nothing_is_refused(tmp_path: Path, allow: bool) -> None:
    with pytest.raises(ArtifactError, match="no request completed in both runs"):
        compared(tmp_path, REAL, SIM, allow=allow, failed=[0, 1, 2])


@pytest.mark.parametrize("allow", [False, True])
def test_different_workloads_are_always_refused(tmp_path: Path, allow: bool) -> None:
    with pytest.raises(ArtifactError, match="different workloads: "):
        compared(tmp_path, REAL, SIM, allow=allow, workload_sha256="b" * 64)


def test_an_unknown_workload_is_refused_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"unknown workload: .*vidur_a; set allow_mismatch=true"):
        compared(tmp_path / "a", REAL, SIM, workload_sha256=None)
    comparison = compared(tmp_path / "b", REAL, SIM, allow=True, workload_sha256=None)
    assert comparison.notes[0] == "Nothing proves that both runs served the same workload: no hash (allow_mismatch)."


def test_what_a_foreign_run_lacks_is_noted(tmp_path: Path) -> None:
    notes = compared(tmp_path, REAL, SIM, foreign=True).notes
    assert any(note.startswith("Not known of the simulated run: dispatch lag") for note in notes)


def test_a_cdf_ends_at_one_and_keeps_the_extremes_when_thinned() -> None:
    values = np.arange(10_000, dtype=np.float64)
    x, fraction = empirical_cdf(values, max_points=100)
    assert len(x) == 100
    assert (x[0], x[-1], fraction[-1]) == (0, 9999, 1)
    assert np.array_equal(fraction, (x + 1) / 10_000), "each kept point is exact"


def test_another_model_or_machine_is_refused_until_allowed(tmp_path: Path) -> None:
    real, sim = (
        load_run(write_run(tmp_path / kind, kind, [[5, 9]], params={"hardware": {"name": hardware}}), kind)
        for kind, hardware in (("real", "cpu"), ("vidur", "a100"))
    )
    with pytest.raises(ArtifactError, match="different hardware, cpu and a100"):
        compare(real, sim)
    assert any("different hardware" in note.lower() for note in compare(real, sim, allow_mismatch=True).notes)
