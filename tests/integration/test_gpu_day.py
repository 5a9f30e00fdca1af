"""The script for a day with a GPU, on this machine's CPU: everything of every load in one archive."""

import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.io.files import read_json
from tests.support.commands import BIN

TINY = {
    "HARDWARE": "cpu",
    "LOADS": "0.85",
    "SMOKE": "tests/manual/test_workload_spec_smoke.py",
    "REPEATS": "2",
    "REQUESTS": "6",
    "PROFILE_S": "5",
    "SETTINGS": "workload.num_prefill_tokens=24 workload.num_decode_tokens=4 workload.num_decode_tokens_min=null "
    "limits.max_num_seqs=4 limits.max_num_batched_tokens=32 limits.num_blocks=64 vidur.profiling.repeats=2 "
    "vidur.samples=2",
}


def gpu_day(out: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the script with the commands of this environment; the results that its one archive holds."""
    done = subprocess.run(
        ["bash", str(project_root() / "scripts" / "gpu_day.sh")],
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OUT": str(out), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    (archive,) = out.iterdir()
    assert archive.stat().st_size < 16e6
    with tarfile.open(archive) as file:
        file.extractall(out, filter="data")
    return done, out / "results"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.CompletedProcess[str], Path]]:
    yield gpu_day(tmp_path_factory.mktemp("day"), **TINY)


def test_the_archive_holds_finished_runs_of_every_stage_at_every_load(
    day: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, results = day
    assert done.returncode == 0, done.stdout
    runs = results / "runs"
    metas = {path.parent.name: read_json(path) for path in runs.rglob("run_meta.json")}
    real = {name: meta for name, meta in metas.items() if meta["run_type"] == "real"}
    loads = [name for name, meta in real.items() if len(meta.get("repeat_run_dirs", [])) == 2]
    assert len(loads) == len(TINY["LOADS"].split())
    assert len([meta for meta in metas.values() if meta["run_type"] == "vidur_profile"]) == 1
    for name in loads:
        compared = [
            metas[Path(meta["sim_run_dir"]).name]
            for meta in metas.values()
            if meta["run_type"] == "compare" and Path(meta["real_run_dir"]).name == name
        ]
        assert len(compared) == 2  # with the real run's speed, and from the profile alone
        assert {meta["workload_sha256"] for meta in compared} == {real[name]["workload_sha256"]}
        assert sum(meta["params"]["real_run_dir"] is not None for meta in compared) == 1


def test_the_archive_says_what_machine_it_was_and_what_the_smoke_tests_said(
    day: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, results = day
    machine, log = ((results / name).read_text(encoding="utf-8") for name in ("machine.txt", "log.txt"))
    assert "transformers==" in machine
    assert "1 passed" in log
    assert log.splitlines()[-1].split("] ")[1].startswith("done")
    assert log in done.stdout


def test_what_finds_no_time_is_left_out_and_said(tmp_path: Path) -> None:
    done, results = gpu_day(tmp_path / "out", **TINY, BUDGET_S="41")
    assert done.returncode == 1
    log = (results / "log.txt").read_text(encoding="utf-8")
    for step in ("facts of the machine", "smoke tests", "baseline"):
        assert f"left out: {step}, or the rest of it: no time is left" in log
    assert not (results / "runs").exists()


def test_a_gpu_that_is_not_described_is_one_line(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done, results = gpu_day(tmp_path / "out", **TINY | {"HARDWARE": ""})
    assert done.returncode == 4
    assert "error: no hardware is described for this GPU: none" in (results / "log.txt").read_text(encoding="utf-8")
