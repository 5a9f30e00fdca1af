"""The profiling root: whose profile it holds, checked before anything is simulated from it or written over it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.profile_tables import MLP
from gpu_simulate_test.profiles.bundle import (
    IDENTITY,
    OF_LIMITS,
    PROFILE_META,
    Profile,
    bundle_dir,
    identity,
    read_bundle,
    served,
)
from gpu_simulate_test.profiles.vidur_tables import are_vidurs, read_vidur_tables, with_collectives

_OF_PROFILES = (PROFILE_META, f"data/profiling/compute/**/{MLP.filename}")  # ours, and Vidur's own
_OLDER = {"tensor_parallel": 1, "pipeline_parallel": 1}  # of profiles that do not say it; others are then not checked


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


def load_profile(config: StageConfig, limits: EngineLimits | None = None) -> Profile:
    """Read the bundle, or Vidur's own tables, that the settings name and check that it is theirs.

    Parameters
    ----------
    limits : EngineLimits, optional
        Those of the real run, where there is one: its data type and parallelism are then the ones to be met.

    Raises
    ------
    ArtifactError
        Missing, incomplete, malformed, or of another model, device, data type or parallelism, or without the
        collectives that parallelism needs.
    """
    root = Path(config.vidur.profiling.root)
    limits = limits or config.limits
    wanted = identity(config) | {key: getattr(limits, key) for key in OF_LIMITS}
    path = bundle_dir(root, wanted["device"], wanted["model_id"])
    if not path.is_dir():
        others = sorted({str(one.parent.relative_to(root)) for name in _OF_PROFILES for one in root.glob(f"**/{name}")})
        found = f" (it holds {', '.join(others)})" if others else ""
        raise ArtifactError(
            f"no profile of {wanted['model_id']} on {wanted['device']}: {root}{found}; run vidur-profile first"
        )
    profile = read_vidur_tables(path, wanted["device"], config.model, limits) if are_vidurs(path) else read_bundle(path)
    for key in IDENTITY:
        if profile.meta.get(key, _OLDER.get(key, wanted[key])) != wanted[key]:
            raise ArtifactError(
                f"profile of another {key}: {path}: it has {profile.meta.get(key, 1)}, the settings say {wanted[key]}; "
                "run vidur-profile for these settings"
            )
    network = root / "data" / "profiling" / "network" / config.hardware.vidur_network_device
    return with_collectives(profile, network, config.model.hidden_size)


def profile_mismatch(
    config: StageConfig, profile: Profile, real_meta: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What should be alike and is not: engine and its version, attention kernel, threads.

    Parameters
    ----------
    real_meta : mapping or None
        Metadata of the real run whose engine the simulation stands for, if any; it goes before the settings.
    """
    if real_meta is None and config.profile.source != "measured":
        return []  # nobody serves what these profiles are taken for
    ours = served(identity(config) if real_meta is None else real_meta)
    theirs = served(profile.meta)
    return [
        {"what": key, "profile": theirs[key], "settings": value}
        for key, value in ours.items()
        if key in theirs and theirs[key] != value
    ]
