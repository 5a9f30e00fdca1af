"""Many capacities side by side: what is launched, and what is said of each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.tables import REQUEST_METRICS, write_table
from gpu_simulate_test.studies.capacities import Combination, search_all, searched_key
from gpu_simulate_test.studies.capacity import Search
from gpu_simulate_test.studies.capacity_table import (
    NO_RANGE,
    capacity_lines,
    capacity_section,
    capacity_table,
    write_capacities,
)
from gpu_simulate_test.studies.jobs import Outcome

RATE = "workload.arrival.rate_per_s"
N = 1000


class Deployments:
    """Something that runs jobs: each `hardware` has a capacity, and its requests take a tenth of a second."""

    def __init__(self, root: Path, capacities: dict[str, float], *, noise: float = 0.0) -> None:
        self.root, self.capacities, self.noise = root, capacities, noise
        self.rounds: list[list[int]] = []

    def __call__(self, jobs: list[list[str]], first: int) -> Sequence[Outcome]:
        numbers = list(range(first, first + len(jobs)))
        self.rounds.append(numbers)
        return [self._run(number, job) for number, job in zip(numbers, jobs, strict=True)]

    def _run(self, number: int, job: list[str]) -> Outcome:
        given = dict(override.split("=") for override in job)
        capacity, rate = self.capacities[given["hardware"]], float(given[RATE])
        base = {"job": number, "stage": "vidur_sim", "overrides": job}
        if np.isnan(capacity):
            return Outcome.model_validate(base | {"status": "error", "exit_code": 2, "error": "no such system"})
        folder = self.root / f"runs/{number}"
        folder.mkdir(parents=True)
        arrival = (np.arange(N) / rate * 1e9).astype(np.int64)
        tables = {name: np.arange(N) for name in REQUEST_METRICS.required}
        write_table(
            folder,
            REQUEST_METRICS,
            pd.DataFrame(tables | {"arrival_time_ns": arrival, "completion_time_ns": arrival + 10**8, "status": "ok"}),
        )
        share = {side: float(rate <= capacity * (1 + by)) for side, by in (("low", -self.noise), ("high", self.noise))}
        figures = {"slo_attainment": float(rate <= capacity), "output_tokens_per_s": rate * 100, "num_requests": N}
        if self.noise:
            figures |= {f"slo_attainment_{side}": value for side, value in share.items()}
        return Outcome.model_validate(
            base | {"status": "ok", "exit_code": 0, "run_dir": f"runs/{number}", "figures": figures}
        )


def combinations(names: Sequence[str], **limits: float) -> list[Combination]:
    return [Combination([f"hardware={name}"], RATE, Search(0.99, 4.0, **limits)) for name in names]  # type: ignore[arg-type]


def test_all_advance_together_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    found = combinations(["a", "bad", "b"])
    launch = Deployments(tmp_path, {"a": 5.0, "bad": np.nan, "b": 0.5})
    search_all(found, launch, tmp_path, 25)
    assert launch.rounds[0] == [0, 1, 2]
    assert launch.rounds[1] == [3, 4]
    assert [number for one in launch.rounds for number in one] == list(range(sum(map(len, launch.rounds))))
    table = capacity_table(found, 25)
    assert table["hardware"].tolist() == ["a", "bad", "b"]
    for capacity, met, missed in zip((5.0, 0.5), table["met_at"].dropna(), table["missed_at"].dropna(), strict=True):
        assert met <= capacity < missed <= 1.051 * met
    assert table["remark"].tolist() == ["", "failed: no such system", ""]
    assert table["simulations"].tolist()[1] == 1
    assert table[["low", "high"]].isna().all(axis=None)
    assert NO_RANGE in capacity_lines(table)


def test_the_range_holds_the_capacity(tmp_path: Path) -> None:
    found = combinations(["a"])
    search_all(found, Deployments(tmp_path, {"a": 5.0}, noise=0.2), tmp_path, 25)
    (row,) = capacity_table(found, 25).to_dict("records")
    assert 4.0 / 1.051 <= row["low"] <= 4.0
    assert 6.0 < row["high"] <= 6.0 * 1.051
    assert row["low"] < row["capacity"] <= 5.0 < row["missed_at"] < row["high"]
    assert row["output_tokens_per_s"] == pytest.approx(100 * row["capacity"])


def test_what_limits_an_answer_is_said(tmp_path: Path) -> None:
    def remarks(capacity: float, rounds: int = 25, **limits: float) -> tuple[float, str]:
        found = combinations(["a"], **limits)
        folder = tmp_path / f"{capacity} {rounds} {limits}"
        search_all(found, Deployments(folder, {"a": capacity}), folder, rounds)
        (row,) = capacity_table(found, rounds).to_dict("records")
        return row["capacity"], row["remark"]

    capacity, remark = remarks(1e-9)
    assert capacity == 0
    assert remark == "none: a request alone misses them, 0.0% of the requests meet them without any load"
    capacity, remark = remarks(1e9)
    assert 900 < capacity < 1001, "a thousand requests in ten times a tenth of a second"
    assert remark.startswith("not limited by the objectives: at ")
    assert remarks(50, high=10) == (10, "met at the highest value that is allowed")
    capacity, remark = remarks(0.5, low=1)
    assert np.isnan(capacity)
    assert remark == "missed at the lowest value that can be tried"
    assert remarks(5, rounds=2)[1] == "not decided in 2 rounds"


def test_the_table_is_written_and_shown(tmp_path: Path) -> None:
    assert capacity_section(tmp_path) == ""
    found = combinations(["a", "<b>", "bad"])
    search_all(found, Deployments(tmp_path, {"a": 5.0, "<b>": 1e-9, "bad": np.nan}), tmp_path, 25)
    table = capacity_table(found, 25)
    path = write_capacities(tmp_path, table)
    assert path == tmp_path / "capacity.csv"
    again = pd.read_csv(path)
    assert again["capacity"].tolist()[:2] == table["capacity"].tolist()[:2]
    html = capacity_section(tmp_path)
    assert "&lt;b&gt;" in html
    assert "<b>0</b>" in html
    assert "failed: no such system" in html
    assert f'href="../../{table["run_dir"][0]}/"' in html


def test_what_is_searched_follows_from_the_arrivals() -> None:
    assert searched_key("poisson", []) == RATE
    assert searched_key("closed_loop", [RATE]) == "workload.arrival.concurrency"
    with pytest.raises(ConfigError, match="has no rate to search"):
        searched_key("trace", [])
    with pytest.raises(ConfigError, match="is what is searched"):
        searched_key("gamma", [RATE])
