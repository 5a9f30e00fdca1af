"""How far the simulator is from a real run of a small model, from files that are in the repository."""

import pandas as pd
import pytest

from gpu_simulate_test.config.paths import project_root
from tests.support.commands import run, run_dir

MEASURED = project_root() / "tests" / "data" / "cpu-qwen3-tiny"
BOUND, BOUND_P99 = 0.10, 0.15


@pytest.fixture(scope="module")
def percentiles(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The comparison's table, a row a metric and statistic."""
    settings = ("experiment=cpu_demo", f"output.root={tmp_path_factory.mktemp('accuracy')}")
    real = MEASURED / "real" / "real_04fff50728"
    run_dir(run("workload-spec", *settings))
    profile = f"vidur.profiling.root={MEASURED / 'profile'}"
    sim = run_dir(run("vidur-sim", *settings, profile, f"real_run_dir={real}"))
    comparison = run_dir(run("compare-runs", *settings, f"real_run_dir={real}", f"sim_run_dir={sim}"))
    return pd.read_csv(comparison / "percentiles.csv").set_index(["metric", "statistic"])


@pytest.mark.parametrize("metric", ["ttft", "tbt", "tpot", "e2e", "e2e_per_token"])
def test_a_simulation_from_the_profile_is_near_the_real_run(percentiles: pd.DataFrame, metric: str) -> None:
    errors = percentiles.loc[metric, "relative_error"].abs()
    assert errors[["p50", "p90", "mean"]].max() < BOUND
    assert errors["p99"] < BOUND_P99


def test_the_real_run_differs_from_itself_by_more_than_that(percentiles: pd.DataFrame) -> None:
    """Why the bound is no tighter: five repeats, on a machine whose speed wandered."""
    floor = percentiles["floor"]
    assert floor.notna().all()
    assert floor.loc[("e2e", "p50")] > BOUND


def test_the_files_fit_into_a_clone() -> None:
    files = [path for path in MEASURED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 600_000
    assert not any("/tmp/" in path.read_text(encoding="utf-8") for path in files)
