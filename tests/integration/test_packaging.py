"""The commands from an installed wheel, in any folder, and every pixi task's command."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from gpu_simulate_test.config.paths import project_root
from tests.support.commands import BIN, SMALL, run, run_dir

TASKS = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pixi"]["tasks"]


def in_project(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A pixi task's command as pixi runs it: from the project's root, the environment's programs first."""
    return subprocess.run(
        [*shlex.split(command), *arguments],
        cwd=project_root(),
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_wheel_carries_its_configs_prompts_and_templates(tmp_path: Path) -> None:
    wheel, site, work = (tmp_path / name for name in ("wheel", "site", "work"))
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheel), str(project_root())]
    subprocess.run(build, check=True, timeout=300)
    (file,) = wheel.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(file)], check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-m", "gpu_simulate_test.cli.workload_spec", "experiment=cpu_demo"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    path = run_dir(done)
    assert path.parent == work / "tmp" / "workloads"
    assert (path / "prompts.jsonl").is_file()
    assert (site / "gpu_simulate_test" / "analysis" / "report.html.j2").is_file()


def test_a_command_works_from_any_folder(tmp_path: Path) -> None:
    path = run_dir(run("workload-spec", "experiment=cpu_demo", "output.root=here", cwd=tmp_path))
    assert path.parent == tmp_path / "here" / "workloads"
    assert [child.name for child in tmp_path.iterdir()] == ["here"]


def test_the_command_of_every_stages_pixi_task_runs(tmp_path: Path) -> None:
    for task in ("workload-spec", "real-bench", "vidur-profile", "vidur-sim", "compare-runs"):
        assert run_dir(in_project(TASKS[task], *SMALL, f"output.root={tmp_path}")).is_dir()


def test_the_command_of_the_demo_task_runs_all_five_stages(tmp_path: Path) -> None:
    done = in_project(TASKS["demo"], *SMALL[1:], f"output.root={tmp_path}")
    assert (run_dir(done) / "report.html").is_file()
    assert "TTFT" in done.stderr


def test_the_command_of_the_test_task_checks_before_it_tests() -> None:
    done = in_project(TASKS["test"], "--collect-only", "-q")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Contracts: 3 kept, 0 broken" in done.stdout
