"""Nothing read from a file, and no setting, runs code or leads out of the folder of results."""

import ast
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.stage import load_repeats
from gpu_simulate_test.cli.arguments import parse_arguments
from gpu_simulate_test.cli.composition import planned
from gpu_simulate_test.config.paths import PACKAGE_DIR
from gpu_simulate_test.config.schema import WorkloadSpecConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from tests.integration.test_errors import CONFIG, MACHINE
from tests.support.builders import MS, write_run
from tests.support.commands import SMALL, error_line, run, run_dir

UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the package: the name called, and the call."""
    found = []
    for file in PACKAGE_DIR.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((ast.unparse(node.func), node))
    return found


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_no_call_lets_a_model_bring_code() -> None:
    assert {keywords(call).get("trust_remote_code", "False") for _, call in calls()} == {"False"}
    loading = [keywords(call) for name, call in calls() if name.endswith("ForCausalLM.from_pretrained")]
    assert loading
    assert all(given["use_safetensors"] == "True" for given in loading)
    engines = [keywords(call) for name, call in calls() if "load_format" in keywords(call)]
    assert len(engines) == 2, "vLLM's and Sarathi-Serve's"
    for given in engines:
        formats = {node.value for node in ast.walk(ast.parse(given["load_format"])) if isinstance(node, ast.Constant)}
        assert formats == {"dummy", "safetensors"}


def test_nothing_unpickles_or_evaluates_text() -> None:
    for file in PACKAGE_DIR.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            modules = [*names, node.module or ""] if isinstance(node, ast.ImportFrom) else names
            assert not UNPICKLERS & {module.split(".")[0] for module in modules}, file
    refused = {"eval", "exec", "compile", "torch.load", "np.load", "yaml.load", "hydra.utils.instantiate"}
    assert not refused & {name for name, _ in calls()}


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def workload_of_a_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    settings = (*SMALL, f"output.root={tmp_path_factory.mktemp('checkpoint')}", "model.weights=pretrained")
    run_dir(run("workload-spec", *settings))
    return settings


def checkpoint(folder: Path, *, safe: bool) -> Path:
    """A tiny model that brings code of its own, the file that code makes where it runs, and maybe a pickle."""
    import torch
    from transformers import AutoModelForCausalLM

    from gpu_simulate_test.real_bench.backends.model import dummy_config
    from tests.support.configs import typed_config

    config = dummy_config(typed_config("real_bench", "experiment=cpu_demo").model)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps(known), encoding="utf-8")
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nEvilConfig = EvilModel = object\n", encoding="utf-8")
    if not safe:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(marker)))
    return marker


def test_weights_in_a_pickle_are_refused_unread(workload_of_a_checkpoint: tuple[str, ...], tmp_path: Path) -> None:
    marker = checkpoint(tmp_path, safe=False)
    done = run("real-bench", *workload_of_a_checkpoint, f"model.path={tmp_path}")
    assert f"no weights in safetensors format: {tmp_path}" in error_line(done, MACHINE)
    assert not marker.exists()
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())
    assert marker.exists(), "it would have run"


def test_code_beside_the_weights_is_not_run(workload_of_a_checkpoint: tuple[str, ...], tmp_path: Path) -> None:
    marker = checkpoint(tmp_path, safe=True)
    run_dir(run("real-bench", *workload_of_a_checkpoint, f"model.path={tmp_path}", "repeats=1"))
    assert not marker.exists()


@pytest.mark.parametrize("key", ["_target_", "model._target_", "backend._target_", "workload.arrival._target_"])
def test_a_target_is_no_setting(key: str, tmp_path: Path) -> None:
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={tmp_path}", f"+{key}=os.system")
    assert "_target_" in error_line(done, CONFIG)


def test_an_expression_is_not_evaluated(tmp_path: Path) -> None:
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={tmp_path}", "workload.seed=${eval:'1+1'}")
    assert "eval" in error_line(done, CONFIG)


# Files that name code to run; %s is a file that it makes. Each is refused by the setting that names it.
TOUCH = "{_target_: pathlib.Path.touch, _args_: [{_target_: pathlib.Path, _args_: ['%s']}]}"
LOG = "version: 1\nroot: {handlers: [evil]}\nhandlers: {evil: {class: logging.FileHandler, filename: '%s'}}\n"
FACTORY = LOG.replace("class:", "'()':")
GLOBAL = "# @package _global_\nhydra:\n"
EVIL = [
    ("experiment/evil.yaml", f"{GLOBAL}  callbacks: {{evil: {TOUCH}}}\n", "hydra.callbacks", ["experiment=evil"]),
    ("hydra/callbacks/evil.yaml", f"evil: {TOUCH}\n", "hydra/callbacks=evil", ["hydra/callbacks=evil"]),
    ("model/evil.yaml", f"# @package hydra.callbacks.evil\n{TOUCH}\n", "hydra.callbacks", ["model=evil"]),
    ("x/evil.yaml", f"evil: {TOUCH}\n", "hydra.callbacks", ["+x@hydra.callbacks=evil"]),
    ("hydra/job_logging/evil.yaml", LOG, "hydra/job_logging=evil", ["hydra/job_logging=evil"]),
    ("x/evil.yaml", f"# @package hydra.job_logging\n{LOG}", "hydra.job_logging", ["+x=evil"]),
    ("x/evil.yaml", f"# @package hydra.job_logging\n{FACTORY}", "hydra.job_logging", ["+x=evil"]),
    ("x/evil.yaml", f"# @package hydra.hydra_logging\n{LOG}", "hydra.hydra_logging", ["+x=evil"]),
    ("x/evil.yaml", f"# @package hydra.hydra_logging\n{LOG}", "hydra.hydra_logging", ["+x=evil", "--help"]),
    ("hydra/launcher/evil.yaml", f"{TOUCH}\n", "hydra/launcher=evil", ["hydra/launcher=evil", "-m"]),
    ("hydra/sweeper/evil.yaml", f"{TOUCH}\n", "hydra/sweeper=evil", ["hydra/sweeper=evil", "-m"]),
    (
        "experiment/evil.yaml",
        f"{GLOBAL}  sweeper: {{_target_: os.getcwd}}\n",
        "hydra.sweeper._target_",
        ["experiment=evil", "-m"],
    ),
    ("model/evil.yaml", f"{TOUCH}\n", "model._target_", ["model=evil"]),
    (
        "experiment/evil.yaml",
        f"{GLOBAL}  job: {{env_set: {{LD_PRELOAD: '%s'}}}}\n",
        "hydra.job.env_set",
        ["experiment=evil"],
    ),
    # Seen only when the jobs of the sweep are composed.
    ("x/evil.yaml", f"# @package hydra.job_logging\n{LOG}", "hydra.job_logging", ["+x=evil,other", "-m"]),
    ("x/evil.yaml", f"# @package hydra.job_logging\n{LOG}", "hydra.job_logging", ["+x=glob(*)", "-m"]),
    (
        "experiment/evil.yaml",
        f"{GLOBAL}  sweeper: {{params: {{hydra.job_logging.version: 2}}}}\n",
        "hydra.sweeper.params.hydra.job_logging.version",
        ["experiment=evil", "-m"],
    ),
]


@pytest.mark.parametrize(("file", "text", "named", "arguments"), EVIL)
def test_code_that_a_file_names_is_refused(
    file: str, text: str, named: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text.replace("%s", str(tmp_path / "ran")), encoding="utf-8")
    for folder in (f"--config-dir={tmp_path}", f"hydra.searchpath=[{tmp_path}]"):
        parsed = parse_arguments([*arguments, folder], WorkloadSpecConfig)
        with pytest.raises(ConfigError, match=f"^not accepted: {re.escape(named)}: "):
            planned("workload_spec", parsed, check=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("file", "text", "named", "arguments"), [EVIL[0], EVIL[5], EVIL[8], EVIL[14]])
def test_it_is_refused_before_anything_runs(
    file: str, text: str, named: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text.replace("%s", str(tmp_path / "ran")), encoding="utf-8")
    done = run("workload-spec", f"output.root={tmp_path / 'out'}", f"--config-dir={tmp_path}", *arguments)
    assert error_line(done, CONFIG).startswith(f"error: not accepted: {named}: ")
    assert [path.name for path in tmp_path.iterdir()] == [Path(file).parts[0]]


def test_jobs_that_a_file_adds_to_the_sweep_are_looked_at_as_well(tmp_path: Path) -> None:
    for name in ("experiment", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "x" / "evil.yaml").write_text(f"# @package hydra.job_logging\n{LOG}", encoding="utf-8")
    (tmp_path / "experiment" / "more.yaml").write_text(
        f"{GLOBAL}  mode: MULTIRUN\n  sweeper: {{params: {{+x: evil}}}}\n", encoding="utf-8"
    )
    for arguments in (["experiment=more"], ["experiment=more", "-m"]):
        parsed = parse_arguments([*arguments, f"--config-dir={tmp_path}"], WorkloadSpecConfig)
        with pytest.raises(ConfigError, match=r"^not accepted: hydra\.job_logging: "):
            planned("workload_spec", parsed, check=True)


def test_of_two_search_paths_the_one_that_hydra_takes_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "evil.yaml").write_text(f"# @package hydra.job_logging\n{LOG}", encoding="utf-8")
    for arguments in (["+x=evil"], ["+x=evil,evil", "-m"]):
        both = [f"hydra.searchpath=[{tmp_path}]", f"hydra.searchpath=[{tmp_path}/x]"]
        with pytest.raises(ConfigError, match=r"^not accepted: hydra\.job_logging: "):
            planned("workload_spec", parse_arguments([*arguments, *both], WorkloadSpecConfig), check=True)


def test_what_makes_hydra_run_code_is_refused_before_it_does(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(Touch(marker)))
    callback = "+hydra.callbacks.evil"
    for arguments in (
        [f"--config-path={tmp_path}"],
        ["-cp", str(tmp_path)],
        ["--config-name=evil"],
        ["model=qwen3_tiny", "--config-n", "evil"],
        [f"--experimental-rerun={tmp_path / 'config.pickle'}"],
        [f"{callback}._target_=subprocess.check_call", f"{callback}.args=[touch,{marker}]"],
        ["+model@hydra.callbacks.evil=qwen3_tiny"],
        ["+={hydra: {callbacks: {evil: {_target_: os.getcwd}}}}"],
        ["hydra.sweeper._target_=os.getcwd", "-m"],
    ):
        line = error_line(run("workload-spec", f"output.root={tmp_path / 'out'}", *arguments), CONFIG)
        assert line.startswith("error: not accepted: "), arguments
        assert not marker.exists(), arguments
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", "", "a/b", "nul\0", 7, None])
def test_a_run_names_its_repeats_only_beside_itself(name: object, tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", "real", [[MS]])
    path = write_run(tmp_path / "runs" / "real", "real", [[MS]], repeat_run_dirs=["real", name])
    assert load_run(path, "real").meta["repeat_run_dirs"][1] == name
    with pytest.raises(ArtifactError, match="repeat_run_dirs must be names of folders beside it"):
        load_repeats(path)
