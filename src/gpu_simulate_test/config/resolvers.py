"""OmegaConf resolvers used by the config tree. None of them runs code from a file."""

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
