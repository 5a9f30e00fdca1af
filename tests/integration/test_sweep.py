"""A sweep is the same whatever launches it; one job's end is no other's; what is finished is not run again."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.io.locks import locked
from gpu_simulate_test.io.workload import workload_path
from gpu_simulate_test.studies.jobs import read_outcomes
from tests.integration.test_errors import CONFIG, INTERRUPTED, MACHINE, fingerprint
from tests.support.commands import BIN, error_line, run, run_installed, sweep_dir
from tests.support.configs import typed_config

KILLED = 128 + signal.SIGKILL
SIMULATED = (
    "-m",
    "experiment=h100_llama_70b",
    "workload.num_requests=20",
    "vidur.samples=2",
    "slo.e2e_ms=20000",
    "workload.arrival.rate_per_s=2,4",
    "limits.max_num_batched_tokens=1024,x",
)
DEMO = ("experiment=cpu_demo", "workload=synthetic", "workload.num_requests=3")
SEEDS = ("-m", *DEMO, "workload.seed=1,x,2")
STATUS = ["ok", "error", "ok"]


def contents(folder: Path) -> dict[str, bytes]:
    """All that is said of a sweep."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def statuses(root: Path) -> list[str]:
    (folder,) = root.glob("sweeps/sweep_*")
    return [one.status for one in read_outcomes(folder)]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep over seeds, by Hydra's own launcher."""
    done = run("workload-spec", *SEEDS, f"output.root={tmp_path_factory.mktemp('basic')}")
    assert done.returncode == CONFIG, done.stderr
    folder, runs = sweep_dir(done)
    assert statuses(folder.parents[1]) == STATUS
    assert [path.parents[1] for path in runs] == [folder.parents[1]] * 2
    return folder


def test_every_job_has_its_outcome_and_what_it_needs_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    folders = []
    for launcher in ("basic", "joblib"):
        given = (f"hydra/launcher={launcher}", f"output.root={tmp_path / launcher}")
        done = run_installed("vidur-sim", *SIMULATED, *given)
        assert done.returncode == CONFIG, done.stderr
        folders.append(sweep_dir(done)[0])
        outcomes = read_outcomes(folders[-1])
        assert [(one.status, one.exit_code) for one in outcomes] == [("ok", 0), ("error", CONFIG)] * 2
        assert ["max_num_batched_tokens=x" in (one.error or "") for one in outcomes] == [False, True] * 2
        assert all(0 <= (one.figures["slo_attainment"] or -1) <= 1 for one in outcomes[::2])
        root = folders[-1].parents[1]
        assert all((root / str(one.run_dir) / "run_meta.json").is_file() for one in outcomes[::2])
        assert len(list(root.glob("workloads/*/workload_meta.json"))) == 2
        assert len(list(root.glob("vidur_profiling/**/run_meta.json"))) == 1
    assert {"sweep.csv", "sweep.parquet", "summary.md", "index.html"} < set(contents(folders[0]))
    assert contents(folders[0]) == contents(folders[1])


def test_a_local_ray_cluster_says_the_same(seeds: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    given = ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", f"output.root={tmp_path}")
    done = run_installed("workload-spec", *SEEDS, *given)
    assert done.returncode == CONFIG, done.stderr
    assert contents(tmp_path / "sweeps" / seeds.name) == contents(seeds)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A SLURM of one node."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("needs root, and slurm-wlm and munge to be installed")
    script = str(project_root() / "scripts" / "slurm_one_node.sh")
    folder = tmp_path / "slurm"
    try:
        subprocess.run(["bash", script, "start", str(folder)], check=True, timeout=60)
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
    finally:
        subprocess.run(["bash", script, "stop", str(folder)], check=True, timeout=60)


def test_slurm_says_the_same(slurm: None, seeds: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = run_installed("workload-spec", *SEEDS, "hydra/launcher=submitit_slurm", f"output.root={tmp_path}")
    assert done.returncode == CONFIG, done.stderr
    assert contents(tmp_path / "sweeps" / seeds.name) == contents(seeds)


def holders(path: Path) -> list[int]:
    """Other processes that have a file open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                opened = {os.readlink(one) for one in (entry / "fd").iterdir()}
            except OSError:  # it has ended
                continue
            if str(path) in opened:
                found.append(int(entry.name))
    return found


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int, Path]]:
    """A sweep whose last job waits for somebody who writes its workload; the job's process, and its lock."""
    path = workload_path(typed_config("workload_spec", *DEMO, "workload.seed=2", f"output.root={tmp_path}"))
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True)
    given = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"output.root={tmp_path}")
    with locked(lock):
        command = [str(BIN / "workload-spec"), *SEEDS, *given]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if holders(lock) and len(list(tmp_path.glob("sweeps/*/jobs/*.json"))) == 2:
                break
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()[1]
        (job,) = holders(lock)
        yield process, job, lock


def test_a_job_that_is_killed_harms_no_other_and_is_run_again(
    waiting: tuple["subprocess.Popen[str]", int, Path], seeds: Path, tmp_path: Path
) -> None:
    process, job, lock = waiting
    os.kill(job, signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == KILLED, stderr
    assert "error: killed by SIGKILL: perhaps the machine ran out of memory (job 2)" in stderr.splitlines()
    assert statuses(tmp_path) == ["ok", "error", "killed"]
    assert "killed by SIGKILL" in (tmp_path / "sweeps" / seeds.name / "sweep.csv").read_text(encoding="utf-8")
    (first,) = tmp_path.glob("workloads/workload_*")
    before = fingerprint(first)
    lock.unlink()
    done = run("workload-spec", *SEEDS, f"output.root={tmp_path}")
    assert done.returncode == CONFIG, done.stderr
    assert contents(tmp_path / "sweeps" / seeds.name) == contents(seeds)
    assert fingerprint(first) == before, "what was finished is not run again"


def test_ctrl_c_ends_all_of_a_sweep_in_one_line_and_what_is_finished_stays(
    waiting: tuple["subprocess.Popen[str]", int, Path], tmp_path: Path
) -> None:
    process, job, _ = waiting
    assert "the same sweep is under way" in error_line(run("workload-spec", *SEEDS, f"output.root={tmp_path}"), MACHINE)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: interrupted")
    assert statuses(tmp_path) == ["ok", "error"]
    deadline = time.monotonic() + 30
    while Path(f"/proc/{job}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{job}").exists()


def test_a_launcher_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    Plugins.instance()  # finds what there is
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "joblib.yaml", raising=False)
    line = error_line(run("workload-spec", *SEEDS, "hydra/launcher=joblib"), CONFIG)
    assert line.startswith("error: hydra/launcher=joblib is not installed: it comes with the extra sweep")
