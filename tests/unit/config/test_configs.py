"""Every shipped setting composes, and the pixi manifest is one."""

import json
import os
import tomllib
from pathlib import Path

import jsonschema
import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gpu_simulate_test.config.paths import config_dir, project_root
from gpu_simulate_test.config.schema import STAGES
from tests.support.configs import typed_config, typed_configs

SHARED = Path(os.environ.get("GST_SHARED_DATA", project_root().parent / "shared" / "data"))
MANIFEST = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))
STAGE_COMMANDS = {stage.replace("_", "-") for stage in STAGES}


def options() -> list[str]:
    groups = ["model", "hardware", "workload", "limits", "profile", "backend", "vidur", "experiment"]
    groups += [f"vidur/{group}" for group in ("scheduler", "predictor", "loop", "router")]
    return [f"{group}={path.stem}" for group in groups for path in sorted((config_dir() / group).glob("*.yaml"))]


# What only the user can know.
NEEDED = {
    "model=hf": ["model.id=Qwen/Qwen3-32B"],
    "hardware=gpu": ["hardware.name=b200_sxm"],
    "workload=trace": ["workload.trace=requests.jsonl"],
    "backend=recorded": ["limits.max_num_seqs=8", "limits.max_num_batched_tokens=64", "limits.num_blocks=100"],
}


def test_every_stage_has_the_same_groups() -> None:
    for stage in STAGES:
        assert OmegaConf.load(config_dir() / f"{stage}.yaml").defaults == ["base", {"experiment": None}, "_self_"]


@pytest.mark.parametrize("option", options())
def test_every_option_composes_on_every_stage(option: str) -> None:
    configs = typed_configs(option, *NEEDED.get(option, []))
    assert {stage: type(config) for stage, config in configs.items()} == STAGES


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_override_is_the_a100_baseline(stage: str) -> None:
    config = typed_config(stage)
    assert config.model.id == "Qwen/Qwen3-0.6B"
    assert config.hardware.name == "a100"
    assert config.backend.name == "transformers"
    assert config.workload.prompts is not None
    assert Path(config.workload.prompts).is_file()


def test_the_demo_needs_nothing_downloaded() -> None:
    config = typed_config("real_bench", "experiment=cpu_demo")
    assert (config.hardware.device, config.model.weights, config.model.tokenizer) == ("cpu", "dummy", "example_prompts")


def test_stage_names_match_their_console_scripts() -> None:
    assert set(MANIFEST["project"]["scripts"]) == STAGE_COMMANDS


def test_pixi_has_a_task_for_every_stage_and_its_environments() -> None:
    pixi = MANIFEST["tool"]["pixi"]
    assert set(pixi["tasks"]) == STAGE_COMMANDS | {"demo", "test", "docs"}
    assert {"default", "cuda", "vllm"} <= set(pixi["environments"])
    assert pixi["workspace"]["channels"] == ["conda-forge"]
    assert pixi["workspace"]["platforms"] == ["linux-64"]


def test_the_pixi_manifest_validates_against_pixis_own_schema() -> None:
    file = SHARED / "pixi-manifest-schema.json"
    if not file.is_file():
        pytest.skip(f"pixi's schema is not here: {file}")
    schema = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(MANIFEST["tool"]["pixi"], schema)


def test_no_tracked_file_names_a_registry_or_a_machines_path() -> None:
    import subprocess

    hosts = "|".join(["pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "deb" + r"\.debian"])
    pattern = f"{hosts}|{project_root()}|{project_root().parent / 'shared'}"
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", "."], cwd=project_root(), capture_output=True, text=True, check=False
    )
    assert found.stdout == ""


def test_the_pinned_version_of_each_dependency_is_one_that_we_accept() -> None:
    lines = (project_root() / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = MANIFEST["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, asked):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement
