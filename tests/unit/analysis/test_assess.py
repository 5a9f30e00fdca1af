"""Distances and errors by token, and compare-runs as a gate."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpu_simulate_test.analysis.assess import assess
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.cli import compare_runs as command
from gpu_simulate_test.config.schema import CompareRunsConfig, HydraRecord
from gpu_simulate_test.errors import GateError
from gpu_simulate_test.io.files import read_json
from tests.support.builders import MS, write_run
from tests.support.configs import typed_config
from tests.unit.analysis.test_floor import times


def test_distances_are_those_of_scipy_and_zero_for_equal_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    real, sim = (
        [[i * 1000 * MS + int(ttft)] for i, ttft in enumerate(rng.integers(MS, 50 * MS, 40))] for _ in range(2)
    )
    runs = [load_run(write_run(tmp_path / kind, kind, made), kind) for kind, made in (("real", real), ("vidur", sim))]
    found = assess(runs[:1], runs[1])
    ttft = [found.comparison.real_values["ttft"], found.comparison.sim_values["ttft"]]
    row = found.distances.set_index("metric").loc["ttft"]
    assert row["ks"] == pytest.approx(stats.ks_2samp(*ttft).statistic)
    assert row["wasserstein_ns"] == pytest.approx(stats.wasserstein_distance(*ttft))
    assert found.distances.set_index("metric").loc["tbt"].isna().all(), "one token each: no gaps"
    same = assess(runs[:1], runs[0]).distances.set_index("metric").loc["ttft"]
    assert (same["ks"], same["wasserstein_ns"]) == (0, 0)


def test_the_error_by_position_grows_by_what_each_token_is_late(tmp_path: Path) -> None:
    real = [[i * 1000 * MS + 10 * MS * (k + 1) for k in range(3 + i % 2)] for i in range(6)]
    sim = [[i * 1000 * MS + 12 * MS * (k + 1) for k in range(3 + i % 2)] for i in range(6)]
    runs = [load_run(write_run(tmp_path / kind, kind, made), kind) for kind, made in (("real", real), ("vidur", sim))]
    positions = assess(runs[:1], runs[1]).positions
    assert positions["token_index"].tolist() == [0, 1, 2, 3]
    assert positions["median_error_ns"].tolist() == [2 * MS, 4 * MS, 6 * MS, 8 * MS]
    assert positions["n"].tolist() == [6, 6, 6, 3]


@pytest.mark.parametrize(
    ("more", "flagged"), [({}, 0), ({"arrivals_recorded": True}, 0), ({"arrivals_recorded": False}, 1)]
)
def test_arrivals_that_were_not_recorded_are_flagged(tmp_path: Path, more: dict[str, bool], flagged: int) -> None:
    real = load_run(write_run(tmp_path / "real", "real", [[MS]], **more), "real")
    gates = assess([real], load_run(write_run(tmp_path / "sim", "vidur", [[MS]]), "vidur")).gates
    assert (gates.loc[gates["gate"] == "arrivals", "status"] == "flagged").sum() == flagged


@pytest.mark.parametrize(
    ("loop", "status", "detail"),
    [
        (
            {"name": "core", "checked": 190, "difference": None},
            "passed",
            "identical to Vidur's on the first 190 requests",
        ),
        ({"name": "vidur", "checked": 0, "difference": None}, "passed", "nothing of ours schedules"),
        ({"name": "vidur", "checked": 0, "difference": "iteration 3: a and b"}, "flagged", "iteration 3: a and b"),
    ],
)
def test_a_gate_says_whether_the_simulation_is_vidurs(
    tmp_path: Path, loop: dict[str, object], status: str, detail: str
) -> None:
    real = load_run(write_run(tmp_path / "real", "real", [[MS]]), "real")
    gates = assess([real], load_run(write_run(tmp_path / "sim", "vidur", [[MS]], loop=loop), "vidur")).gates
    gate = gates.set_index("gate").loc["simulated loop"]
    assert gate["status"] == status and detail in gate["detail"]


@pytest.mark.parametrize(("sim_ms", "tolerance", "refused"), [(20.2, 0.05, False), (20.2, 0.001, True)])
def test_with_gate_a_verdict_of_off_is_an_error_after_the_report_is_written(
    tmp_path: Path, sim_ms: float, tolerance: float, refused: bool
) -> None:
    real = write_run(tmp_path / "real", "real", times(20, 8), model="their/model")
    sim = write_run(tmp_path / "sim", "vidur", times(sim_ms, 8), model="their/model")
    overrides = [f"output.root={tmp_path}", f"real_run_dir={real}", f"sim_run_dir={sim}", f"tolerance={tolerance}"]
    config = typed_config("compare_runs", *overrides, "gate=true")
    assert isinstance(config, CompareRunsConfig)
    record = HydraRecord("compare_runs", "", overrides)
    if refused:
        with pytest.raises(GateError, match=r"the verdict is off \(TTFT P50 \+1\.0 %.*report\.html; ") as caught:
            command.run(config, record)
        assert "\n" not in str(caught.value)
    else:
        command.run(config, record)
    (finished,) = (tmp_path / "comparisons").glob("*/run_meta.json")
    assert read_json(finished)["model"] == "their/model", "of the runs, not of the settings"
    assert f'"verdict": "{"off" if refused else "within tolerance"}"' in finished.read_text(encoding="utf-8")
    assert (finished.parent / "report.html").is_file()
