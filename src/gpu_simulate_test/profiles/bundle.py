"""The bundle: a profile's tables on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.io.profile_tables import ATTENTION, ITERATION, KERNELS, MLP, NOISE
from gpu_simulate_test.io.tables import Table, find_table, read_table
from gpu_simulate_test.latency.kernels import Kernels

PROFILE_META = "profile_meta.json"

# What a profile is valid for: the simulated settings must be the profiled ones.
IDENTITY = ("model_id", "device", "backend", "dtype", "attn_implementation", "num_threads", "num_layers")


def bundle_dir(root: Path, device: str, model_id: str) -> Path:
    """Where Vidur's main line keeps the compute profile of a model on a device."""
    return root / "data" / "profiling" / "compute" / device / model_id


def identity(config: StageConfig) -> dict[str, Any]:
    """The identity that a profile made with `config` has."""
    return {
        "model_id": config.model.id,
        "device": config.hardware.vidur_device,
        "backend": config.backend.name,
        "dtype": config.hardware.dtype,
        "attn_implementation": config.backend.attn_implementation,
        "num_threads": config.backend.num_threads,
        "num_layers": config.model.num_layers,
    }


@dataclass(frozen=True)
class Profile:
    """A finished bundle: operator and kernel times in ms, iteration times in ns.

    Kernels stand in for iterations. An engine whose operators cannot be called by themselves has no operator tables.
    """

    path: Path
    meta: dict[str, Any]
    mlp: pd.DataFrame | None
    attention: pd.DataFrame | None
    iteration: pd.DataFrame | None
    noise: pd.DataFrame | None
    kernels: Kernels | None


def read_bundle(path: Path) -> Profile:
    """Read a finished bundle, whosever it is.

    Raises
    ------
    ArtifactError
        Missing, incomplete or malformed.
    """
    if not (path / PROFILE_META).is_file():
        raise ArtifactError(f"incomplete profile (no {PROFILE_META}): {path}; run vidur-profile again")
    iteration, noise, kernels = None, None, None
    # Either whole iterations, measured on the engine, or the kernels that a recorded profile has.
    if find_table(path, KERNELS["attention"]):
        kernels = Kernels(**{name: _read(path, table, may_be_empty=name == "skew") for name, table in KERNELS.items()})
    else:
        iteration, noise = _read(path, ITERATION), _read(path, NOISE)
    meta, mlp, attention = read_json(path / PROFILE_META), None, None
    if meta.get("operators", {}).get("points", 1):
        mlp, attention = _read(path, MLP), _read(path, ATTENTION)
    return Profile(path, meta, mlp, attention, iteration, noise, kernels)


def _read(path: Path, table: Table, *, may_be_empty: bool = False) -> pd.DataFrame:
    frame = read_table(path, table)
    if frame.empty and not may_be_empty:
        raise ArtifactError(f"no rows: {path / table.filename}; run vidur-profile again")
    return frame
