"""The commands from an installed wheel, in any folder, and every pixi task's command."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gpu_simulate_test.config.paths import project_root
from tests.support.commands import BIN, SMALL, run, run_dir

TASKS = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pixi"]["tasks"]
STAGES = ("workload-spec", "real-bench", "vidur-profile", "vidur-sim", "compare-runs")


def in_project(command: str, *arguments: str, first: Path = BIN) -> subprocess.CompletedProcess[str]:
    """A pixi task's command as pixi runs it: from the project's root, the environment's programs first."""
    return subprocess.run(
        [*shlex.split(command), *arguments],
        cwd=project_root(),
        env={**os.environ, "PATH": f"{first}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_demo_runs_from_a_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    """Its five commands, by the names it installs: no file of the checkout is there."""
    wheel, site, work = (tmp_path / name for name in ("wheel", "site", "work"))
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheel), str(project_root())]
    subprocess.run(build, check=True, timeout=300)
    (file,) = wheel.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(file)], check=True, timeout=300)
    env = {**os.environ, "PYTHONPATH": str(site)}
    for stage in STAGES:
        done = subprocess.run(
            [str(site / "bin" / stage), *SMALL],
            cwd=work,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        path = run_dir(done)
        assert path.is_relative_to(work / "tmp")
    assert (path / "report.html").is_file()
    assert (site / "gpu_simulate_test" / "studies" / "sweep.html.j2").is_file()
    assert (site / "gpu_simulate_test" / "workloads" / "example_prompts.jsonl").is_file()
    where = [
        sys.executable,
        "-c",
        "import gpu_simulate_test as g, hydra_plugins.gpu_simulate_test_capacity; print(g.__file__)",
    ]
    told = subprocess.run(where, cwd=work, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert Path(told.stdout.strip()).is_relative_to(site)


def test_a_command_works_from_any_folder(tmp_path: Path) -> None:
    path = run_dir(run("workload-spec", "experiment=cpu_demo", "output.root=here", cwd=tmp_path))
    assert path.parent == tmp_path / "here" / "workloads"
    assert [child.name for child in tmp_path.iterdir()] == ["here"]


def test_the_command_of_every_stages_pixi_task_is_installed() -> None:
    for task in STAGES:
        assert (BIN / TASKS[task]).is_file()


def test_the_command_of_the_demo_task_gives_each_stage_the_runs_of_the_earlier_ones(tmp_path: Path) -> None:
    """With stand-ins for the commands, which tell how they were called; `make demo` runs the real ones."""
    for command in STAGES:
        script = tmp_path / command
        script.write_text(f'#!/bin/sh\necho {command} "$@" >&2\necho "/runs/{command} 1"\n')
        script.chmod(0o755)
    done = in_project(TASKS["demo"], "output.root=a b", first=tmp_path)
    assert done.returncode == 0, done.stderr
    common = "experiment=cpu_demo overwrite=true output.root=a b"
    assert [line for line in done.stderr.splitlines() if not line.startswith("== ")] == [
        f"workload-spec {common}",
        f"real-bench {common}",
        f"vidur-profile {common}",
        f"vidur-sim {common} real_run_dir=/runs/real-bench 1",
        f"compare-runs {common} real_run_dir=/runs/real-bench 1 sim_run_dir=/runs/vidur-sim 1",
    ]
    assert done.stdout.splitlines()[-1] == "/runs/compare-runs 1"


@pytest.mark.parametrize("failing", [None, "mypy"])
def test_the_command_of_the_test_task_checks_before_it_tests(tmp_path: Path, failing: str | None) -> None:
    """With stand-ins for the tools, which tell that they were called."""
    tests = "pytest -n auto --dist loadfile --no-loadscope-reorder -x"
    order = ["ruff check .", "ruff format --check .", "mypy", "lint-imports", tests]
    for tool in ("ruff", "mypy", "lint-imports", "pytest"):
        script = tmp_path / tool
        script.write_text(f'#!/bin/sh\necho {tool} "$@"\nexit {int(tool == failing)}\n', encoding="utf-8")
        script.chmod(0o755)
    done = in_project(TASKS["test"], "-x", first=tmp_path)
    called = [line.strip() for line in done.stdout.splitlines()]
    assert called == order[: order.index(failing) + 1 if failing else None]
    assert done.returncode == (1 if failing else 0)
