"""OmegaConf resolvers used by the config tree. None of them runs code from a file."""

import re

from omegaconf import DictConfig, OmegaConf

from gpu_simulate_test.config.hf_config import hf_setting
from gpu_simulate_test.config.paths import PACKAGE_DIR, project_root


def register_resolvers() -> None:
    """Make ``${gsim.project:...}`` and the like available."""
    OmegaConf.register_new_resolver("gsim.project", lambda path: str(project_root() / path), replace=True)
    OmegaConf.register_new_resolver("gsim.package", lambda path: str(PACKAGE_DIR / path), replace=True)
    OmegaConf.register_new_resolver(
        "gsim.models",
        lambda path: str((project_root() / "models" / path).absolute()),
        replace=True,
    )
    OmegaConf.register_new_resolver("gsim.settings", _settings, replace=True)
    OmegaConf.register_new_resolver("gsim.hf", hf_setting, replace=True)
    OmegaConf.register_new_resolver("gsim.schedules_ahead", _schedules_ahead, replace=True)
    OmegaConf.register_new_resolver("gsim.reserves_whole_prompt", _reserves_whole_prompt, replace=True)


def _schedules_ahead(engine: str | None, version: str | None, device: str, profile: str) -> bool:
    """Whether a recorded engine scheduled a step ahead by default: vLLM on GPUs since 0.14 (its release notes).

    One that is not named is taken for the operator database's, where the profile is from there.
    """
    if engine is None and version is None:
        return profile == "operator_db"
    found = _version(version)
    return engine == "vllm" and device == "cuda" and found is not None and found >= (0, 14)


def _reserves_whole_prompt(engine: str | None, version: str | None) -> bool:
    """Whether an engine admits a prompt only where all of it fits: vLLM since 0.19; before, its first part."""
    found = _version(version)
    return engine != "vllm" or found is None or found >= (0, 19)


def _version(version: str | None) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else None


def _settings(stage: str, *, _root_: DictConfig) -> str:
    """The settings of a stage as composed, for the template of ``--help``."""
    from gpu_simulate_test.config.reference import settings_text

    composed = OmegaConf.to_container(_root_, resolve=False)
    assert isinstance(composed, dict)
    told = settings_text(stage, {str(key): value for key, value in composed.items()})
    return told.replace("$", "$$")  # the template's own sign
