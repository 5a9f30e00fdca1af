"""OmegaConf resolvers used by the config tree. None of them runs code from a file."""

import os

from omegaconf import OmegaConf

from gpu_simulate_test.config.paths import PACKAGE_DIR, project_root


def register_resolvers() -> None:
    """Make ``${gsim.project:...}``, ``${gsim.package:...}`` and ``${gsim.models:...}`` available."""
    OmegaConf.register_new_resolver("gsim.project", lambda path: str(project_root() / path), replace=True)
    OmegaConf.register_new_resolver("gsim.package", lambda path: str(PACKAGE_DIR / path), replace=True)
    OmegaConf.register_new_resolver(
        "gsim.models",
        lambda path: str((project_root() / "models" / path).absolute()),
        replace=True,
    )


def models_root() -> str | None:
    """The folder of model checkpoints named by ``GSIM_MODELS_ROOT``, if any."""
    return os.environ.get("GSIM_MODELS_ROOT")
