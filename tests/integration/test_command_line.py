"""The command line is the user's own word, and Hydra's as its users know it."""

import re
import subprocess
from itertools import product
from pathlib import Path

import pytest

from gpu_simulate_test import __version__
from gpu_simulate_test.cli.arguments import parse_arguments
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.schema import WorkloadSpecConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.studies.jobs import read_outcomes
from tests.integration.test_errors import CONFIG, MACHINE
from tests.support.commands import BIN, error_line, run, run_dir, run_installed, sweep_dir

DEMO = "experiment=cpu_demo"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    command = f"set -o pipefail; PATH={BIN}:$PATH; {command}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_a_flag_may_stand_anywhere() -> None:
    overrides = [DEMO, "output.root=x", "workload.seed=1,2"]
    for flag, position in product(["-m", "--multirun"], range(4)):
        parsed = parse_arguments([*overrides[:position], flag, *overrides[position:]], WorkloadSpecConfig)
        assert (parsed.flags, parsed.overrides, parsed.multirun) == (["--multirun"], overrides, True)
    parsed = parse_arguments([DEMO, "--cfg", "job", "model=x", "--resolve", "-cd", "a b", "--"], WorkloadSpecConfig)
    assert (set(parsed.flags), parsed.overrides) == ({"--cfg=job", "--resolve", "--config-dir=a b"}, [DEMO, "model=x"])


def test_the_flags_are_those_that_hydra_lists() -> None:
    done = run("workload-spec", "--hydra-help")
    assert done.returncode == 0
    listed = re.findall(r"^(--\S+) :", done.stdout, re.MULTILINE)
    assert len(listed) == 14
    values = {"--cfg": "job", "--info": "all", "--package": "x", "--config-dir": "x"}
    refused = {"--config-path", "--config-name", "--experimental-rerun"}
    for names in listed:
        for name in names.split(","):
            value = [values[names.split(",")[0]]] if names.split(",")[0] in values else []
            if refused & set(names.split(",")):
                with pytest.raises(ConfigError, match="not accepted"):
                    parse_arguments([name, "x"], WorkloadSpecConfig)
            elif "--resolve" not in names:
                parsed = parse_arguments([name, *value], WorkloadSpecConfig)
                assert parsed.flags == ["=".join([names.split(",")[0], *value])]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "unknown flag: --nonsense"),
        (["-m", "--cfg", "job"], "not allowed with"),
        (["--resolve"], "--resolve needs --cfg or --help"),
        (["--info", "x=1"], "invalid choice"),
        (["nonsense"], "nonsense"),
        (["hydra/launcher=nonsense"], "hydra/launcher/nonsense"),
        (["--config-dir=/nowhere"], "no such folder: /nowhere"),
        (["--shell-completion"], "install"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments: list[str], said: str) -> None:
    assert said in error_line(run("workload-spec", *arguments), CONFIG)


def test_version_names_this_package_first() -> None:
    done = run("compare-runs", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"gpu-simulate-test {re.escape(__version__)}, Hydra 1\.\S+\n", done.stdout)


@pytest.mark.parametrize(
    "shown", ["--help", "--cfg job", "--info config", "--hydra-help", "--version", "-sc install=bash"]
)
def test_a_reader_that_stops_reading_is_no_error(shown: str) -> None:
    assert run("workload-spec", *shown.split()).returncode == 0
    done = shell(f"workload-spec {shown} | {'true' if shown == '--help' else 'head -c1'}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_finished_run_needs_no_reader(tmp_path: Path) -> None:
    done = shell(f"workload-spec {DEMO} output.root='{tmp_path}' | true")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("workloads/*/workload_meta.json"))


def test_hydras_own_switch_for_errors_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for value in ("0", "1", None):
        if value is None:
            monkeypatch.delenv("HYDRA_FULL_ERROR")
        else:
            monkeypatch.setenv("HYDRA_FULL_ERROR", value)
        seen.append([error_line(run("workload-spec", *more), CONFIG) for more in (["nonsense=1"], ["model=x"])])
    assert seen[0] == seen[1] == seen[2]


def test_a_bad_choice_in_a_sweep_stops_no_other_job(tmp_path: Path) -> None:
    bad = ("workload=prompts,nonsense", "workload.seed=1,x,2", "model=qwen3_tiny,junk")
    done = run("workload-spec", DEMO, *bad, f"output.root={tmp_path}", "-m")
    assert done.returncode == CONFIG
    folder, runs = sweep_dir(done)
    assert sorted(path.parent for path in tmp_path.glob("workloads/*/workload_meta.json")) == sorted(runs)
    assert len(runs) == 2
    assert [one.job for one in read_outcomes(folder) if one.status == "ok"] == [0, 4]
    assert [one.exit_code for one in read_outcomes(folder)] == [CONFIG * (job not in (0, 4)) for job in range(12)]
    lines = errors(done)
    assert len(lines) == 3
    for said in ("workload/nonsense", "model/junk", "workload.seed"):
        assert sum(said in line for line in lines) == 1


def test_a_sweep_of_bad_choices_only_runs_nothing(tmp_path: Path) -> None:
    done = run("workload-spec", "-m", "model=nonsense,junk", f"output.root={tmp_path}")
    assert (done.returncode, len(errors(done)), done.stdout) == (CONFIG, 2, "")
    assert not (tmp_path / "workloads").exists()


def test_hydra_writes_into_the_folder_it_is_given(tmp_path: Path) -> None:
    settings = (DEMO, "output.root=out", "hydra.verbose=true")
    path = run_dir(run("workload-spec", *settings, "hydra.run.dir=a (1)/${model.name}", cwd=tmp_path))
    assert path.parents[1] == tmp_path / "out"
    assert (tmp_path / "a (1)" / "qwen3_tiny" / ".hydra" / "config.yaml").is_file()
    done = run("workload-spec", *settings, "hydra.sweep.dir=b", "workload.seed=1,2", "-m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for number in (0, 1):
        assert (tmp_path / "b" / str(number) / ".hydra" / "overrides.yaml").is_file()


def test_hydra_may_change_the_folder_of_a_job(tmp_path: Path) -> None:
    moved = ("hydra.job.chdir=true", "hydra.run.dir=there", "+hydra.job.env_set.X=1", "hydra/job_logging=stdout")
    path = run_dir(run("workload-spec", DEMO, "output.root=out", *moved, cwd=tmp_path))
    assert path.parents[1] == tmp_path / "there" / "out"


def test_a_folder_that_hydra_cannot_make_is_one_line() -> None:
    assert "/proc/x" in error_line(run("workload-spec", DEMO, "hydra.run.dir=/proc/x"), MACHINE)


LAUNCHER = """
import os
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher

@dataclass
class Conf:
    _target_: str = "hydra_plugins.forking.ForkingLauncher"

ConfigStore.instance().store(group="hydra/launcher", name="forking", node=Conf)

class ForkingLauncher(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.given = {"hydra_context": hydra_context, "task_function": task_function}
        self.given |= {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}

    def launch(self, job_overrides, initial_job_idx):
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            child = os.fork()
            if not child:
                loader = self.given["hydra_context"].config_loader
                config = loader.load_sweep_config(self.config, list(overrides))
                config.hydra.job.num = number
                run_job(config=config, **self.given)
                os._exit(0)
            os.waitpid(child, 0)
        return []
"""


def test_an_installed_launcher_runs_jobs_in_processes_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "forking.py").write_text(LAUNCHER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    settings = (DEMO, f"output.root={tmp_path}", "hydra/launcher=forking", "hydra/sweeper=basic", "-m")
    done = run_installed("workload-spec", *settings, "workload.num_decode_tokens=8,4096,16")
    assert (done.returncode, len(errors(done))) == (CONFIG, 1)
    assert len(list(tmp_path.glob("workloads/*/workload_meta.json"))) == 2


def test_joblibs_launcher_runs_jobs_in_processes_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    settings = (DEMO, f"output.root={tmp_path}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = run_installed("workload-spec", *settings, "-m", "workload.num_decode_tokens=8,4096,16")
    assert (done.returncode, len(errors(done))) == (CONFIG, 1)
    assert len(list(tmp_path.glob("workloads/*/workload_meta.json"))) == 2


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a model, a device and an experiment of one's own."""
    folder = tmp_path / "mine (1)"
    for group, shipped in (("model", "qwen3_tiny"), ("hardware", "cpu")):
        (folder / group).mkdir(parents=True)
        text = (config_dir() / group / f"{shipped}.yaml").read_text(encoding="utf-8")
        (folder / group / "my_one.yaml").write_text(text.replace(f"name: {shipped}", f"name: my_{group}"))
    (folder / "experiment").mkdir()
    (folder / "experiment" / "nightly.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: my_one\n  - override /hardware: my_one\n"
        "workload: {num_decode_tokens: 5}\nhydra: {sweeper: {params: {workload.seed: '3,4'}}}\n"
    )
    return folder


def test_a_folder_adds_a_model_a_device_and_an_experiment(mine: Path, tmp_path: Path) -> None:
    settings = ("experiment=nightly", f"--config-dir={mine.name}", "output.root=${model.name}/${hardware.name}")
    path = run_dir(run("workload-spec", *settings, cwd=tmp_path))
    assert path.parents[1] == tmp_path / "my_model" / "my_hardware"
    done = run("workload-spec", "-m", *settings, "overwrite=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(sweep_dir(done)[1]) == 2, "the experiment's own sweep"
    searched = (f"hydra.searchpath=['{mine}']", "model=my_one", DEMO, "output.root=${model.name}")
    assert run_dir(run("workload-spec", *searched, cwd=tmp_path)).parents[1] == tmp_path / "my_model"
    listed = run("workload-spec", "--help", "--config-dir", str(mine)).stdout
    assert re.search(r"^model: .*my_one", listed, re.MULTILINE)
