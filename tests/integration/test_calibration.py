"""From one real run to a calibrated simulation, and to a verdict on a run that it has not seen."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gpu_simulate_test.io.files import read_json, write_json
from tests.support.builders import calibration_on
from tests.support.commands import error_line, run, run_dir

pytest.importorskip("aiconfigurator_core", reason="the operator database is not installed")

FRONT_END_MS, FACTOR = 8.0, 1.2


class Deployment:
    """A deployment whose truth is a simulation with constants that are written by hand."""

    def __init__(self, root: Path) -> None:
        self.settings = (
            "hardware=h100",
            "model=llama_3_1_8b",
            "backend=recorded",
            "backend.engine=vllm",
            "backend.engine_version=0.15.1",
            "profile=operator_db",
            f"output.root={root}",
        )
        self.served = (*self.settings, "limits.num_blocks=20000")
        self.bundle = self.profiled()
        truth = {"kernel_factor": FACTOR, "front_end_ns": FRONT_END_MS * 1e6}
        record = calibration_on(**truth)
        for constant in record["constants"].values():  # known for certain
            constant["low"] = constant["high"] = constant["value"]
        write_json(self.calibration, record)
        self.runs = [self.measured(seed) for seed in (1, 2)]
        self.calibration.unlink()

    @property
    def calibration(self) -> Path:
        return self.bundle / "calibration.json"

    def profiled(self) -> Path:
        root = run_dir(run("vidur-profile", *self.served))
        (meta,) = root.glob("**/profile_meta.json")
        return meta.parent

    def measured(self, seed: int) -> Path:
        """What a client writes down of requests that were served by the truth."""
        asked = (
            *self.served,
            "workload=synthetic",
            f"workload.seed={seed}",
            "workload.num_requests=80",
            "workload.arrival.kind=poisson",
            "workload.arrival.rate_per_s=20",
            "workload.num_prefill_tokens=800",
            "workload.num_prefill_tokens_min=20",
            "workload.num_decode_tokens=120",
            "workload.num_decode_tokens_min=4",
        )
        run_dir(run("workload-spec", *asked))
        served = run_dir(run("vidur-sim", *asked, "vidur/predictor=calibrated"))
        file = served.parent.parent / f"recorded_{seed}.csv"
        columns = ["arrival_time_ns", "num_prefill_tokens", "num_decode_tokens", "first_token_time_ns"]
        pd.read_csv(served / "request_metrics.csv")[[*columns, "completion_time_ns"]].to_csv(file, index=False)
        run_dir(run("workload-spec", *self.of(file)))
        return run_dir(run("real-bench", *self.of(file)))

    def of(self, file: Path) -> tuple[str, ...]:
        return (*self.served, "workload=trace", f"workload.trace={file}")

    def simulated(self, real: Path, predictor: str) -> Path:
        workload = read_json(real / "run_meta.json")["workload_dir"]
        return run_dir(
            run(
                "vidur-sim",
                *self.served,
                f"workload.workload_dir={workload}",
                f"real_run_dir={real}",
                f"vidur/predictor={predictor}",
            )
        )

    def calibrated(self, *runs: Path, overwrite: bool = True) -> dict[str, Any]:
        named = str(runs[0]) if len(runs) == 1 else f"[{','.join(map(str, runs))}]"
        given = (f"calibration.real_run_dir={named}", f"overwrite={overwrite}".lower())
        run_dir(run("vidur-profile", *self.served, *given))
        return read_json(self.calibration)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("calibrated"))


def compared(deployment: Deployment, real: Path, sim: Path) -> tuple[str, pd.DataFrame]:
    folder = run_dir(
        run(
            "compare-runs",
            *deployment.settings,
            f"real_run_dir={real}",
            f"sim_run_dir={sim}",
            "tolerance=0.02",
            "overwrite=true",
        )
    )
    gates = pd.read_csv(folder / "gates.csv").set_index("gate")
    return str(read_json(folder / "run_meta.json")["verdict"]), gates


def test_one_run_in_and_a_verdict_on_another(deployment: Deployment) -> None:
    first, second = deployment.runs
    profiled = (deployment.bundle / "profile_meta.json").read_bytes()
    record = deployment.calibrated(first)
    assert (deployment.bundle / "profile_meta.json").read_bytes() == profiled, "the profile is left alone"
    constants = record["constants"]
    assert isinstance(constants, dict)
    assert constants["kernel_factor"]["low"] <= FACTOR <= constants["kernel_factor"]["high"]
    assert constants["front_end_ns"]["value"] == pytest.approx(FRONT_END_MS * 1e6, abs=1e6)
    assert not constants["step_ns"]["found"], "it is hidden behind the kernels"
    held_out, (learned,) = record["held_out"], record["runs"]
    assert learned["window"] == [0, 79]
    assert learned["requests"] + held_out["requests"] == 80
    assert abs(held_out["errors"]["e2e"]["p50"]) < 0.02 < abs(held_out["without"]["e2e"]["p50"])

    verdict, gates = compared(deployment, second, deployment.simulated(second, "calibrated"))
    assert verdict == "within tolerance"
    assert gates.loc["calibration", "status"] == "passed"
    verdict, gates = compared(deployment, second, deployment.simulated(second, "iteration"))
    assert verdict == "off", "the same profile is still there without what was learned"
    assert "calibration" not in gates.index


def test_other_constants_are_another_simulation(deployment: Deployment) -> None:
    first, second = deployment.runs
    sims = []
    for learned in (first, second):
        deployment.calibrated(learned)
        sims.append(deployment.simulated(second, "calibrated"))
    assert sims[0] != sims[1]
    assert read_json(sims[1] / "run_meta.json")["calibration"]["runs"][0]["run_id"] == second.name


def test_the_run_that_the_constants_come_from_proves_nothing(deployment: Deployment) -> None:
    first, *_ = deployment.runs
    deployment.calibrated(first)
    sim = deployment.simulated(first, "calibrated")
    verdict, gates = compared(deployment, first, sim)
    assert verdict == "in-sample"
    assert gates.loc["calibration", "status"] == "flagged"
    given = (*deployment.settings, f"real_run_dir={first}", f"sim_run_dir={sim}", "gate=true", "overwrite=true")
    assert "in-sample" in error_line(run("compare-runs", *given), 5)


def test_each_of_two_runs_is_predicted_from_the_other(deployment: Deployment) -> None:
    record = deployment.calibrated(*deployment.runs)
    others = record["leave_one_out"]
    assert isinstance(others, list)
    assert [one["run_id"] for one in others] == [path.name for path in deployment.runs]
    for one in others:
        assert abs(one["errors"]["e2e"]["p50"]) < 0.02 < abs(one["without"]["e2e"]["p50"])
    told = (deployment.bundle / "calibration.md").read_text(encoding="utf-8")
    assert all(path.name in told for path in deployment.runs)


def test_what_cannot_be_calibrated_is_refused_in_a_line(deployment: Deployment, tmp_path: Path) -> None:
    first, second = deployment.runs
    deployment.calibrated(first)
    before = deployment.calibration.read_bytes()

    def refused(code: int, real: object, *more: str) -> str:
        given = (*deployment.served, f"calibration.real_run_dir={real}", *more)
        return error_line(run("vidur-profile", *given), code)

    assert "overwrite=true" in refused(2, second)
    assert "twice" in refused(2, f"[{first},{first}]", "overwrite=true")
    assert "no such run directory" in refused(3, tmp_path / "missing", "overwrite=true")
    assert "no profile of somebody/else" in refused(3, first, "overwrite=true", "model.id=somebody/else")
    assert deployment.calibration.read_bytes() == before, "what was finished stays"
    deployment.calibration.unlink()
    given = (*deployment.served, f"workload.workload_dir={read_json(first / 'run_meta.json')['workload_dir']}")
    assert "not calibrated" in error_line(run("vidur-sim", *given, "vidur/predictor=calibrated"), 3)
    write_json(deployment.calibration, {"constants": {}})
    assert "malformed" in error_line(run("vidur-sim", *given, "vidur/predictor=calibrated"), 3)
