"""One command finds how much load a deployment takes, from nothing but the operator database."""

from pathlib import Path

import pandas as pd
import pytest

from gpu_simulate_test.studies.jobs import read_outcomes
from tests.integration.test_errors import CONFIG
from tests.support.commands import error_line, run, sweep_dir

pytest.importorskip("aiconfigurator_core", reason="the operator database is not installed")

QUICK = ("-m", "experiment=capacity_h100", "workload.num_requests=600", "hydra.sweeper.tolerance=0.3")


def test_one_command_finds_the_capacity_and_says_what_failed(tmp_path: Path) -> None:
    command = (*QUICK, "hardware=h100,nonsense", f"output.root={tmp_path}")
    done = run("vidur-sim", *command)
    assert done.returncode == CONFIG, done.stderr
    folder, runs = sweep_dir(done)
    table = pd.read_csv(folder / "capacity.csv")
    assert table["hardware"].tolist() == ["h100", "nonsense"]
    good, bad = table.to_dict("records")
    assert 2 < good["capacity"] < good["missed_at"] <= 1.31 * good["capacity"]
    assert good["slo_attainment"] >= 0.99
    assert good["simulations"] == len(runs)
    assert (tmp_path / good["run_dir"]).resolve() in runs
    assert pd.isna(bad["capacity"])
    assert "Could not find 'hardware/nonsense'" in bad["remark"]
    assert [one.job for one in read_outcomes(folder)] == list(range(len(runs) + 1))
    assert "Capacity, requests/s, by" in done.stderr
    assert "Capacity, requests/s, by" in (folder / "index.html").read_text(encoding="utf-8")

    again = run("vidur-sim", *command)
    assert sweep_dir(again) == (folder, runs)
    assert pd.read_csv(folder / "capacity.csv").equals(table), "the same, and nothing was run again"


@pytest.mark.parametrize(
    ("command", "overrides", "said"),
    [
        ("vidur-sim", ("slo.ttft_ms=null", "slo.tbt_ms=null"), "no objective: hydra/sweeper=capacity needs"),
        ("vidur-sim", ("hydra.sweeper.tolerance=7",), "hydra.sweeper.tolerance=7.0 is out of range"),
        ("vidur-sim", ("hydra.sweeper.low=5", "hydra.sweeper.high=3"), "hydra.sweeper.low=5.0 is above"),
        ("vidur-sim", ("workload.arrival.rate_per_s=1,2",), "workload.arrival.rate_per_s is what is searched"),
        ("vidur-sim", ("workload.arrival.kind=fixed_interval",), "has no rate to search"),
        ("workload-spec", (), "hydra/sweeper=capacity searches simulations"),
    ],
)
def test_what_cannot_be_searched_is_said(command: str, overrides: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(command, "-m", "experiment=capacity_h100", f"output.root={tmp_path}", *overrides)
    assert said in error_line(done, CONFIG)
