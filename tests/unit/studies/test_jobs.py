"""The outcomes of a sweep's jobs come back as they were written, in order."""

import json
from pathlib import Path

import pytest

from gpu_simulate_test.errors import ArtifactError, MachineError
from gpu_simulate_test.studies.jobs import Outcome, outcome_path, read_outcomes, write_outcome


def outcome(job: int, **fields: object) -> Outcome:
    known = {"stage": "vidur_sim", "overrides": [f"workload.seed={job}"], "status": "ok", "exit_code": 0}
    return Outcome.model_validate({"job": job} | known | fields)


def test_outcomes_come_back_in_order_of_the_jobs(tmp_path: Path) -> None:
    written = [
        outcome(10, run_dir="vidur_runs/vidur_1", figures={"ttft_p50_ms": 1.5}),
        outcome(2, status="killed", exit_code=137, error="killed by SIGKILL, perhaps for want of memory"),
        outcome(0, status="error", exit_code=2, error="model=x: no such choice"),
    ]
    for one in written:
        write_outcome(tmp_path, one)
    assert read_outcomes(tmp_path) == written[::-1]


def test_the_last_outcome_of_a_job_is_the_one(tmp_path: Path) -> None:
    write_outcome(tmp_path, outcome(0, status="error", exit_code=4, error="no GPU"))
    write_outcome(tmp_path, outcome(0))
    assert read_outcomes(tmp_path) == [outcome(0)]


def test_what_is_no_number_is_not_known(tmp_path: Path) -> None:
    write_outcome(tmp_path, outcome(0, figures={"a": float("nan"), "b": float("inf"), "c": None, "d": 0.0}))
    text = outcome_path(tmp_path, 0).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["figures"] == {"a": None, "b": None, "c": None, "d": 0.0}


def test_no_outcomes_yet(tmp_path: Path) -> None:
    assert read_outcomes(tmp_path) == []


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"job": -1}'])
def test_a_file_that_is_no_outcome_is_named(text: str, tmp_path: Path) -> None:
    write_outcome(tmp_path, outcome(0))
    path = outcome_path(tmp_path, 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=str(path)):
        read_outcomes(tmp_path)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(MachineError, match="/proc/sweep"):
        write_outcome(Path("/proc/sweep"), outcome(0))
