"""A simulation that was calibrated on a run can prove nothing by it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.attribution import HOST
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.report import comparison_table, headline, verdict_line, write_report
from gpu_simulate_test.analysis.verdict import judge, verdict_of
from gpu_simulate_test.cli import compare_runs as command
from gpu_simulate_test.config.schema import CompareRunsConfig, HydraRecord
from gpu_simulate_test.errors import ArtifactError, GateError
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.io.run_dir import RunDir
from tests.support.builders import MS, WORKLOAD_SHA256, calibration_on, write_run
from tests.support.configs import typed_config
from tests.support.virtual_engine import VirtualClock, VirtualEngine
from tests.unit.analysis.test_attribution import (
    BURST,
    LENGTHS,
    serve,
    slower,
    write_at_real_speed,
    write_predictions,
)
from tests.unit.analysis.test_floor import times

GOOD = {"within the floor", "within tolerance"}
HELD_OUT = {"requests": 3000, "errors": {"e2e": {"p50": -0.012, "p90": 0.02, "p99": 0.05}}}
OTHERS = [
    {"run_id": name, "errors": {"e2e": {"p50": error}}} for name, error in (("a", -0.04), ("b", 0.01), ("c", 0.02))
]


def real_runs(folder: Path, *ttft_ms: float) -> list[Path]:
    return [write_run(folder / f"real_{ms:g}", "real", times(ms, 30)) for ms in ttft_ms]


def assessed(folder: Path, repeats: list[Path], calibration: dict[str, Any] | None, ttft_ms: float = 20) -> Assessment:
    settings = {"scheduler": "vllm_v1", "limits": {"async_scheduling": False}}
    sim = write_run(folder / "vidur", "vidur", times(ttft_ms, 30), settings=settings, calibration=calibration)
    return assess([load_run(path, "real") for path in repeats], load_run(sim, "vidur"))


def gate(found: Assessment) -> dict[str, str]:
    return dict(found.gates.set_index("gate").loc["calibration"])


@pytest.mark.parametrize("repeats", [(20,), (20, 20.1, 20.2)])
def test_the_run_it_was_calibrated_on_never_says_that_it_is_right_however_exact_it_is(
    tmp_path: Path, repeats: tuple[float, ...]
) -> None:
    runs = real_runs(tmp_path, *repeats)
    found = assessed(tmp_path, runs, calibration_on(runs[0]))
    assert found.verdict == "in-sample"
    assert not GOOD & set(found.comparison.percentiles["verdict"])
    assert not any(word in comparison_table(found.comparison) for word in GOOD)
    assert gate(found)["status"] == "flagged"
    assert gate(found)["value"] == "in-sample"
    assert "the constants come from real_20, compared here" in gate(found)["detail"]
    assert assessed(tmp_path, runs, None).verdict in GOOD


def test_a_repeat_that_it_was_calibrated_on_makes_a_comparison_in_sample(tmp_path: Path) -> None:
    runs = real_runs(tmp_path, 20, 20.1, 20.2)
    found = assessed(tmp_path, runs, calibration_on(runs[2]))
    assert (found.verdict, gate(found)["value"]) == ("in-sample", "in-sample")
    assert "against 3 real runs, of which real_20.2 gave its constants" in headline(found)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (old,) = real_runs(tmp_path / "old", 25)
    same_name = write_run(tmp_path / old.name, "real", times(20, 30))
    found = assessed(tmp_path, [same_name], calibration_on(old))
    assert found.verdict == "within tolerance"
    assert gate(found)["status"] == "passed"
    copy = Path(shutil.copytree(same_name, tmp_path / "copy"))
    for calibrated in ((old, same_name), (same_name, old)):
        assert assessed(tmp_path, [copy], calibration_on(*calibrated)).verdict == "in-sample"


def test_on_another_run_the_gate_names_the_constants_and_where_they_are_from(tmp_path: Path) -> None:
    other, run = real_runs(tmp_path, 25, 20)
    constants = {"step_ns": 500_000.0, "front_end_ns": 2_000_000.0, "kernel_factor": 1.05}
    assert gate(assessed(tmp_path, [run], calibration_on(other, **constants))) == {
        "status": "passed",
        "value": "other runs",
        "detail": "an iteration 500.0 µs (450.0 to 550.0), kernels x 1.050 (0.945 to 1.155), front end 2.000 ms "
        "(1.800 to 2.200); not told from noise: a sequence 0, tokens after the first 0; from real_25",
    }
    same = gate(assessed(tmp_path, [run], calibration_on(other, workload_sha256=WORKLOAD_SHA256)))
    assert same["detail"].endswith("; from real_25; real_25 served the same workload")
    nothing = gate(assessed(tmp_path, [run], calibration_on(other)))["detail"]
    assert nothing.startswith("not told from noise: an iteration 0, a sequence 0, kernels x 1, front end 0,")
    assert "calibration" not in assessed(tmp_path, [run], None).gates["gate"].tolist()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scheduler": "sarathi"}, "calibrated with the scheduler sarathi, simulated with vllm_v1"),
        ({"async_scheduling": True}, "calibrated with asynchronous scheduling, simulated without it"),
    ],
)
def test_constants_of_an_engine_that_schedules_otherwise_are_flagged(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    other, run = real_runs(tmp_path, 25, 20)
    found = assessed(tmp_path, [run], calibration_on(other) | change)
    assert (gate(found)["status"], gate(found)["value"]) == ("flagged", "another engine")
    assert gate(found)["detail"].startswith(told)
    assert found.verdict == "within tolerance"
    both = gate(assessed(tmp_path, [run], calibration_on(run) | change))
    assert both["value"] == "in-sample"
    assert told in both["detail"]


@pytest.mark.parametrize(
    ("known", "start", "proof"),
    [
        (
            {"held_out": HELD_OUT},
            "On 3,000 requests held back from its calibration, the simulator predicts the median end-to-end latency "
            "1.2 % too low; against real_20, the very run that its constants come from, it predicts that latency "
            "to within 0.1 % (sim ",
            "E2E P50 -1.2 % on 3,000 requests held back",
        ),
        (
            {"leave_one_out": OTHERS},
            "On runs left out of its calibration in turn (median of 3), the simulator is 2.0 % off on the median ",
            "E2E P50 2.0 % off on runs left out in turn (median of 3)",
        ),
        (
            {},
            "How far the simulator is off on the median end-to-end latency is not known, for nothing was held back ",
            "nothing was held back",
        ),
    ],
)
def test_the_headline_leads_with_what_the_constants_do_not_come_from(
    tmp_path: Path, known: dict[str, Any], start: str, proof: str
) -> None:
    runs = real_runs(tmp_path, 20)
    found = assessed(tmp_path, runs, calibration_on(*runs) | known)
    assert headline(found).startswith(start)
    assert headline(found).endswith(", which proves nothing.")
    assert gate(found)["detail"].endswith(proof)
    assert verdict_line(found) == f"in-sample (the constants come from real_20, compared here; {proof})"


def test_a_simulation_that_is_off_even_there_stays_off(tmp_path: Path) -> None:
    runs = real_runs(tmp_path, 20)
    found = assessed(tmp_path, runs, calibration_on(*runs) | {"held_out": HELD_OUT}, ttft_ms=40)
    assert found.verdict == "off"
    assert headline(found).endswith("beyond the tolerance of 5.0 % even there.")
    assert verdict_line(found).startswith("off (")
    assert verdict_line(found).endswith("; the constants come from real_20, compared here")


def test_only_void_and_off_are_stronger_than_in_sample(tmp_path: Path) -> None:
    runs = real_runs(tmp_path, 20, 22, 27)
    noisy = assessed(tmp_path, runs, calibration_on(runs[0]), ttft_ms=25)
    assert "too noisy to judge" in set(noisy.comparison.percentiles["verdict"]), "a figure stays what it is"
    assert noisy.verdict == "in-sample"
    table = noisy.comparison.percentiles.assign(floor_ns=np.nan, floor=np.nan, error_ns=np.nan, relative_error=np.nan)
    table["verdict"] = judge(table, 0.05, in_sample=True)
    assert set(table["verdict"]) == {"not judged"}
    assert verdict_of(table, noisy.gates, in_sample=True) == "in-sample"
    assert verdict_of(table, noisy.gates.assign(status="void"), in_sample=True) == "void"


def test_both_reports_say_so_at_first_sight(tmp_path: Path) -> None:
    found, page, summary = calibrated_pair(tmp_path)
    assert found.verdict == "in-sample"
    assert '<p class="verdict fair">Verdict: in-sample (' in page
    for text in (page, summary):
        assert "calibrated, on real" in text
        assert headline(found) in text
        assert HOST in text
        assert "That an error here is small proves nothing" in text
        assert "Calibrated host time: " in text


def calibrated_pair(folder: Path) -> tuple[Assessment, str, str]:
    """A run of a virtual engine against its calibrated simulation, with attribution, and both reports."""
    engine = VirtualEngine(VirtualClock(), slower)
    real = serve(folder / "real", "real", engine, BURST, LENGTHS)
    sim = serve(folder / "sim", "vidur", VirtualEngine(VirtualClock(), slower), BURST, LENGTHS)
    write_predictions(sim.path, real, slower, 2 * MS)
    write_at_real_speed(sim.path, engine, VirtualEngine(VirtualClock(), slower), BURST, LENGTHS)
    sim.meta.update(predictor="calibrated", calibration=calibration_on(real.path, step_ns=2 * MS))
    sim.meta["calibration"]["held_out"] = HELD_OUT
    found = assess([real], sim)
    (folder / "out").mkdir()
    write_report(found, real, sim, RunDir(folder / "out"), [])
    page, summary = ((folder / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "summary.md"))
    return found, page, summary


def test_gate_true_exits_5_and_stays_so_when_asked_again(tmp_path: Path) -> None:
    (run,) = real_runs(tmp_path, 20)
    meta = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-02T00:00:00+00:00"}
    sim = write_run(tmp_path / "vidur", "vidur", times(20, 30), calibration=calibration_on(run), **meta)
    overrides = [f"output.root={tmp_path}", f"real_run_dir={run}", f"sim_run_dir={sim}", "gate=true"]
    config = typed_config("compare_runs", *overrides)
    assert isinstance(config, CompareRunsConfig)
    for _ in range(2):
        with pytest.raises(GateError, match=r"^the verdict is in-sample.*, which proves nothing: .*report.html; "):
            command.run(config, HydraRecord("compare_runs", "", overrides))
    (written,) = tmp_path.glob("comparisons/*/run_meta.json")
    assert read_json(written)["verdict"] == "in-sample"
    assert not any(word in (written.parent / "percentiles.csv").read_text() for word in GOOD)


@pytest.mark.parametrize(
    "damage", [{"constants": {}}, {"runs": [{}]}, {"runs": None}, {"held_out": {"requests": 3}}, {"leave_one_out": [1]}]
)
def test_a_record_that_is_damaged_is_one_line(tmp_path: Path, damage: dict[str, Any]) -> None:
    (run,) = real_runs(tmp_path, 20)
    with pytest.raises(ArtifactError, match=r"^malformed calibration: .*run_meta\.json: .*; run vidur-sim again$"):
        assessed(tmp_path, [run], calibration_on(run) | damage)
