"""The profiling root: whose profile it holds, checked before anything is simulated from it or written over it."""

from pathlib import Path

from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.profiles.bundle import IDENTITY, PROFILE_META, Profile, bundle_dir, identity, read_bundle


def check_owner(root: Path, config: StageConfig) -> None:
    """Refuse to write a profile over another model's or device's.

    Raises
    ------
    ConfigError
        `root` holds a finished bundle that is not of `config`'s model and device.
    """
    ours = bundle_dir(root, config.hardware.vidur_device, config.model.id)
    for meta in root.glob(f"**/{PROFILE_META}"):
        if meta.parent != ours:
            raise ConfigError(f"root holds another profile: {meta.parent}; choose another vidur.profiling.root")


def load_profile(config: StageConfig) -> Profile:
    """Read the bundle that the settings name and check that it is theirs.

    Raises
    ------
    ArtifactError
        Missing, incomplete, malformed, or of another model, device or engine.
    """
    root = Path(config.vidur.profiling.root)
    wanted = identity(config)
    path = bundle_dir(root, wanted["device"], wanted["model_id"])
    if not path.is_dir():
        others = sorted(str(meta.parent.relative_to(root)) for meta in root.glob(f"**/{PROFILE_META}"))
        found = f" (it holds {', '.join(others)})" if others else ""
        raise ArtifactError(
            f"no profile of {wanted['model_id']} on {wanted['device']}: {root}{found}; run vidur-profile first"
        )
    profile = read_bundle(path)
    for key in IDENTITY:
        if profile.meta.get(key) != wanted[key]:
            raise ArtifactError(
                f"profile of another {key}: {path}: it has {profile.meta.get(key)}, the settings say {wanted[key]}; "
                "run vidur-profile for these settings"
            )
    return profile
