"""A sweep is the same whatever launches it; one job's end is no other's; what is finished is not run again."""

import signal
from pathlib import Path

import pytest

from gpu_simulate_test.studies.jobs import Outcome, read_outcomes
from tests.integration.test_errors import CONFIG
from tests.support.commands import run, sweep_dir

# Three simulations of a moment and one that cannot be.
SWEEP = (
    "-m",
    "experiment=h100_llama_70b",
    "workload.num_requests=20",
    "vidur.samples=2",
    "slo.e2e_ms=20000",
    "workload.arrival.rate_per_s=2,4",
    "limits.max_num_batched_tokens=1024,x",
)
KILLED = 128 + signal.SIGKILL
FILES = ("sweep.csv", "sweep.parquet", "summary.md", "index.html")


def contents(folder: Path) -> dict[str, bytes]:
    """All that is said of a sweep."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sweep(root: Path, *more: str) -> tuple[Path, list[Outcome]]:
    done = run("vidur-sim", *SWEEP, f"output.root={root}", *more)
    assert done.returncode == CONFIG, done.stderr
    folder, _ = sweep_dir(done)
    return folder, read_outcomes(folder)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("basic"))[0]


def test_every_job_has_its_outcome_and_what_it_needs_is_made_once(basic: Path) -> None:
    outcomes = read_outcomes(basic)
    assert [one.status for one in outcomes] == ["ok", "error", "ok", "error"]
    assert [one.exit_code for one in outcomes] == [0, CONFIG, 0, CONFIG]
    assert all(0 <= (one.figures["slo_attainment"] or -1) <= 1 for one in outcomes if one.status == "ok")
    assert ["max_num_batched_tokens=x" in (one.error or "") for one in outcomes] == [False, True, False, True]
    assert set(FILES) < set(contents(basic))
    root = basic.parents[1]
    assert all((root / one.run_dir / "run_meta.json").is_file() for one in outcomes if one.run_dir)
    assert len(list(root.glob("workloads/*/workload_meta.json"))) == 2
    assert len(list(root.glob("vidur_profiling/**/run_meta.json"))) == 1


@pytest.mark.parametrize("launcher", ["joblib", "ray", "submitit_local"])
def test_other_launchers_say_the_same(launcher: str, basic: Path, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    more = {"joblib": ["hydra.launcher.n_jobs=2"], "ray": ["+hydra.launcher.ray.init.num_cpus=2"]}.get(launcher, [])
    folder, _ = sweep(tmp_path, f"hydra/launcher={launcher}", *more)
    assert folder.name == basic.name
    assert contents(folder) == contents(basic)
