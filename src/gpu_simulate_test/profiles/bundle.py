"""The bundle: a profile's tables on disk, whatever source they come from.

A source is a module of this package with a function ``fill`` that takes the stage's settings first, and whatever else
it measures with, and returns `Contents`: `measured` serves bursts on an engine here, `llmservingsim` reads a folder.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.files import read_json, write_json
from gpu_simulate_test.io.metadata import MODEL_DIMENSIONS
from gpu_simulate_test.io.profile_tables import ATTENTION, ITERATION, KERNELS, MLP, NOISE
from gpu_simulate_test.io.provenance import SCHEMA_VERSION, git_state
from gpu_simulate_test.io.tables import Table, find_table, read_table, write_table
from gpu_simulate_test.latency.kernels import Kernels

PROFILE_META, CALIBRATION = "profile_meta.json", "calibration.json"

# What a profile is valid for: the simulated settings must be the profiled ones.
OF_LIMITS = ("dtype", "kv_cache_dtype", "tensor_parallel", "pipeline_parallel", "expert_parallel")
IDENTITY = ("model_id", "device", *OF_LIMITS, *MODEL_DIMENSIONS)
_MADE = ("created_at", "git_commit", "git_dirty", "kv_tokens")  # when, by what and for whom, not what


def bundle_dir(root: Path, device: str, model_id: str) -> Path:
    """Where Vidur's main line keeps the compute profile of a model on a device."""
    return root / "data" / "profiling" / "compute" / device / model_id


def identity(config: StageConfig) -> dict[str, Any]:
    """What a profile made with `config` says of itself: `IDENTITY`, and what should be alike, see `served`."""
    return {
        "model_id": config.model.id,
        "device": config.hardware.vidur_device,
        **{key: getattr(config.limits, key) for key in OF_LIMITS},
        **{key: getattr(config.model, key) for key in MODEL_DIMENSIONS},
        "backend": config.backend.name,
        "attn_implementation": config.backend.attn_implementation,
        "num_threads": config.backend.num_threads,
    }


def served(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Engine, its version, attention kernel and threads, as far as the metadata of a profile or a real run say.

    A run that was recorded elsewhere says what the user knew of it.
    """
    engine = meta.get("engine") or {}
    details = engine.get("details") or {}
    name = details.get("engine") or engine.get("name") or meta.get("backend")
    versions = (meta.get("env") or {}).get("versions") or {}
    attention = details.get("attn_implementation") or details.get("attention_backend", "").lower()
    found = {
        "engine": name,
        "engine version": details.get(name) or versions.get(name),
        "attention kernel": attention or meta.get("attn_implementation"),
        "threads": details.get("num_threads", meta.get("num_threads")),
    }
    return {key: value for key, value in found.items() if value not in (None, "recorded")}


@dataclass(frozen=True)
class Contents:
    """What a source fills a bundle with.

    Attributes
    ----------
    tables : mapping of Table to pandas.DataFrame
        Of `gpu_simulate_test.io.profile_tables`: ``iteration`` and ``noise``, or the kernels; the operators, unless
        ``operators.points`` of `meta` is 0.
    meta : mapping
        Of ``profile_meta.json`` what is the source's own: how each figure was measured, what is covered.
    lines : sequence of str
        The same for ``summary.md``.
    """

    tables: Mapping[Table, pd.DataFrame]
    meta: Mapping[str, Any]
    lines: Sequence[str]


def write_bundle(path: Path, config: StageConfig, contents: Contents) -> dict[str, Any]:
    """Write a bundle, which has no directory yet, metadata last.

    Returns
    -------
    dict
        The metadata, ``profile_meta.json``.
    """
    path.mkdir(parents=True)
    for table, frame in list(contents.tables.items())[::-1]:  # the operators last: alone they could be Vidur's own
        write_table(path, table, frame)
    rows = {table.name: len(frame) for table, frame in contents.tables.items()}
    meta = {"schema_version": SCHEMA_VERSION, **identity(config), **git_state(), "rows": rows, **contents.meta}
    write_json(path / PROFILE_META, meta)
    return meta


@dataclass(frozen=True)
class Profile:
    """A finished bundle: operator and kernel times in ms, iteration times in ns.

    Kernels stand in for iterations; Vidur's own tables have neither. An engine whose operators cannot be called by
    themselves has no operator tables. The calibration is the record of ``calibration.json``, where there is one.
    """

    path: Path
    meta: dict[str, Any]
    mlp: pd.DataFrame | None
    attention: pd.DataFrame | None
    iteration: pd.DataFrame | None
    noise: pd.DataFrame | None
    kernels: Kernels | None
    calibration: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """What a simulation from it depends on, whenever and for whichever limits it was made.

        A profile that is calculated has this in common with itself made anew; of one that is measured, no two are the
        same.
        """
        meta = {key: value for key, value in self.meta.items() if key not in _MADE}
        if self.kernels is None:
            return self.meta
        rows = (pd.util.hash_pandas_object(frame).to_numpy().tobytes() for frame in vars(self.kernels).values())
        return meta | {"kernels": hashlib.sha256(b"".join(rows)).hexdigest()}

    def kv_tokens(self, limits: EngineLimits) -> int | None:
        """Tokens of the KV cache of a replica with such limits; None where the source of the profile knows no such."""
        by_batch = {int(size): tokens for size, tokens in self.meta.get("kv_tokens_by_batch", {}).items()}
        if not by_batch:
            return self.meta.get("kv_tokens")
        return int(np.interp(limits.max_num_batched_tokens, list(by_batch), list(by_batch.values())))


def read_bundle(path: Path) -> Profile:
    """Read a finished bundle, whosever it is.

    Raises
    ------
    ArtifactError
        Missing, incomplete or malformed.
    """
    if not (path / PROFILE_META).is_file():
        raise ArtifactError(f"incomplete profile (no {PROFILE_META}): {path}; run vidur-profile again")
    meta = read_json(path / PROFILE_META)
    iteration, noise, kernels, mlp, attention = None, None, None, None, None
    # Either whole iterations, measured on the engine, or the kernels that a recorded profile has.
    if find_table(path, KERNELS["attention"]):
        kernels = Kernels(**{name: _read(path, table, meta, empty=name == "skew") for name, table in KERNELS.items()})
    else:
        iteration, noise = _read(path, ITERATION, meta), _read(path, NOISE, meta)
    if meta.get("operators", {}).get("points", 1):
        mlp, attention = _read(path, MLP, meta), _read(path, ATTENTION, meta)
    calibration = read_json(path / CALIBRATION) if (path / CALIBRATION).is_file() else None
    return Profile(path, meta, mlp, attention, iteration, noise, kernels, calibration)


def _read(path: Path, table: Table, meta: dict[str, Any], *, empty: bool = False) -> pd.DataFrame:
    """Read a table, which may be `empty`, and which must have the rows that the metadata tell, where they do."""
    frame = read_table(path, table)
    rows = meta.get("rows", {}).get(table.name, len(frame))
    if rows != len(frame) or (frame.empty and not empty):
        raise ArtifactError(f"rows missing: {path / table.filename}: it has {len(frame)}; run vidur-profile again")
    return frame
