"""Whatever happens to an engine, a disk or a process: one line, an exit code, and nothing finished is damaged."""

import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.run_dir import read_run_meta
from gpu_simulate_test.real_bench import backends
from tests.integration.test_errors import ARTIFACT, INTERRUPTED, MACHINE, fingerprint
from tests.support.builders import MS, write_run
from tests.support.commands import SMALL, error_line, run, run_dir
from tests.support.faulty_engine import create


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a workload of its own, with as many repeats as it takes to have more than one directory."""
    settings = (*SMALL, f"output.root={tmp_path_factory.mktemp('faults')}", "repeats=2", "request_timeout_s=0.5")
    run_dir(run("workload-spec", *settings[:-2]))
    return settings


@pytest.fixture(scope="module")
def finished(served: tuple[str, ...]) -> Path:
    return run_dir(serve("works", *served))


def command(way: str, *overrides: str, stage: str = "real_bench") -> list[str]:
    return [sys.executable, "-m", "tests.support.faulty_engine", stage, way, *overrides]


def serve(way: str, *overrides: str, stage: str = "real_bench") -> subprocess.CompletedProcess[str]:
    """In this process, but for what ends a process or changes its clock."""
    if way not in ("hangs", "loops", "dies", "clock jumps"):
        with patch.object(backends, "create_engine", create(way)):
            return run(stage.replace("_", "-"), *overrides)
    return subprocess.run(
        command(way, *overrides, stage=stage),
        cwd=project_root(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("raises", "the engine failed: RuntimeError: CUDA error: device-side assert triggered; stage.log"),
        ("memory", "out of memory; lower limits.num_blocks"),
        ("hangs", "is not finished 0.5 s after it was handed over"),
        ("loops", "is not finished 0.5 s after it was handed over"),
        ("stalls", "is not finished 0.5 s after it was handed over"),
        ("clock goes back", "the clock went back"),
    ],
)
def test_an_engine_that_goes_wrong(way: str, said: str, served: tuple[str, ...], finished: Path) -> None:
    repeats = [finished, finished.with_name(f"{finished.name}-r2")]
    before = [fingerprint(path) for path in repeats]
    assert said in error_line(serve(way, *served, "overwrite=true"), MACHINE)
    assert [fingerprint(path) for path in repeats] == before
    for path in repeats:
        with pytest.raises(ArtifactError, match="incomplete run directory"):
            read_run_meta(path.with_name(f"{path.name}.new"))


@pytest.mark.parametrize(("way", "said"), [("raises", "the engine failed: RuntimeError"), ("hangs", "is not finished")])
def test_a_profile_of_an_engine_that_goes_wrong(way: str, said: str, served: tuple[str, ...]) -> None:
    settings = [setting for setting in served if not setting.startswith("repeats=")]
    assert said in error_line(serve(way, *settings, stage="vidur_profile"), MACHINE)


def test_the_traceback_of_an_engine_is_in_the_log(served: tuple[str, ...], finished: Path) -> None:
    serve("raises", *served, "overwrite=true")
    log = (finished.with_name(f"{finished.name}.new") / "stage.log").read_text(encoding="utf-8")
    assert "Traceback" in log
    assert "RuntimeError: CUDA error: device-side assert triggered" in log


def test_a_process_that_is_killed_leaves_an_incomplete_directory_and_the_next_run_works(
    served: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    before = fingerprint(finished)
    other = (*served, "limits.max_num_seqs=3")
    assert serve("dies", *other).returncode == -signal.SIGKILL
    assert fingerprint(finished) == before
    (path,) = (
        path
        for path in (Path(served[-3].partition("=")[2]) / "real_runs").glob("*/")  # a lock may lie beside it
        if not (path / "run_meta.json").exists() and path.suffix != ".new" and not path.name.endswith("-r2")
    )
    sim = write_run(tmp_path / "sim", "vidur", [[MS]])
    done = run("compare-runs", f"output.root={tmp_path}", f"real_run_dir={path}", f"sim_run_dir={sim}")
    assert f"incomplete run directory (no run_meta.json): {path}" in error_line(done, ARTIFACT)
    assert run_dir(serve("works", *other)) == path
    assert len(load_run(path, "real").requests) == 3


def test_a_wall_clock_that_jumps_changes_no_latency(served: tuple[str, ...]) -> None:
    path = run_dir(serve("clock jumps", *served, "limits.max_num_seqs=2"))
    meta = read_run_meta(path)
    assert meta["ended_at"] < meta["started_at"], "the clock did jump"
    times = load_run(path, "real").requests  # refuses times that are out of order
    assert times["completion_time_ns"].max() < 60_000_000_000


@pytest.fixture
def waiting(served: tuple[str, ...], finished: Path) -> subprocess.Popen[str]:
    """A run that replaces the finished one and is stuck in a step."""
    work = finished.with_name(f"{finished.name}.new")
    shutil.rmtree(work, ignore_errors=True)  # what an earlier test left
    process = subprocess.Popen(
        command("waits", *served, "overwrite=true", "request_timeout_s=60"),
        cwd=project_root(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (work / "stage.log").is_file() and "serving" in (work / "stage.log").read_text(encoding="utf-8"):
            break
        time.sleep(0.05)
    time.sleep(0.5)  # into the step
    assert process.poll() is None, process.communicate()[1]
    return process


def test_a_second_run_into_the_same_directory_is_refused_and_ctrl_c_may_be_pressed_often(
    waiting: subprocess.Popen[str], served: tuple[str, ...], finished: Path
) -> None:
    before = fingerprint(finished)
    assert "another run is writing" in error_line(serve("works", *served, "overwrite=true"), MACHINE)
    assert waiting.poll() is None, "the first run goes on"
    waiting.send_signal(signal.SIGINT)
    time.sleep(0.3)  # the engine takes its time to close
    waiting.send_signal(signal.SIGINT)
    time.sleep(0.05)
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=60)
    assert waiting.returncode == INTERRUPTED, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: interrupted")
    assert fingerprint(finished) == before
    assert run_dir(serve("works", *served, "overwrite=true")) == finished


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A full disk, as a process without rights can have one: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


TIMES = [[i * 1000 * MS + 20 * MS, i * 1000 * MS + 30 * MS] for i in range(6)]


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    real, sim = (write_run(tmp_path / kind, kind, TIMES) for kind in ("real", "vidur"))
    runs = (f"output.root={tmp_path}", f"real_run_dir={real}", f"sim_run_dir={sim}")
    finished = run_dir(run("compare-runs", *runs))
    before = fingerprint(finished)
    for size, first_too_large in ((10, "config.yaml"), (20_000, "report.html")):
        with file_size_limit(size):
            done = run("compare-runs", *runs, "overwrite=true")
        line = error_line(done, MACHINE)
        assert "cannot write" in line
        assert f"{first_too_large}: File too large" in line
        assert fingerprint(finished) == before
        assert not list(tmp_path.rglob(".*.tmp")), "what was half written is gone"
    assert run_dir(run("compare-runs", *runs, "overwrite=true")) == finished


def test_metadata_is_the_last_thing_written(finished: Path) -> None:
    written = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    del written[finished / "stage.log"]
    assert max(written, key=lambda path: written[path]) == finished / "run_meta.json"
    assert json.loads((finished / "run_meta.json").read_text())["repeat_run_dirs"] == [
        finished.name,
        f"{finished.name}-r2",
    ]
