"""Where a result came from: code, machine, time, settings."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gpu_simulate_test.config.paths import in_checkout, project_root
from gpu_simulate_test.config.schema import HydraRecord, StageConfig

SCHEMA_VERSION = "v1"
_PACKAGES = ("gpu-simulate-test", "hydra-core", "numpy", "pandas", "tokenizers", "torch", "transformers", "vidur")


def now() -> str:
    """The present, ISO 8601 with zone."""
    return datetime.now(UTC).isoformat()


def git_state() -> dict[str, Any]:
    """``git_commit`` and ``git_dirty`` of the checkout; both None outside one."""
    if not in_checkout():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _git("rev-parse", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": dirty}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project_root(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def environment() -> dict[str, Any]:
    """Versions and CPU; an engine adds its device and thread counts."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def run_meta(
    run_id: str, run_type: str, config: StageConfig, record: HydraRecord, started_at: str, ended_at: str
) -> dict[str, Any]:
    """The metadata every run directory shares."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "run_type": run_type,
        "model": config.model.id,
        "started_at": started_at,
        "ended_at": ended_at,
        **git_state(),
        "env": environment(),
        **_settings(config, record),
    }


def workload_meta(workload_id: str, config: StageConfig, record: HydraRecord) -> dict[str, Any]:
    """What a workload's metadata say of where it came from; of no machine, for it is the same on any."""
    return {
        "schema_version": SCHEMA_VERSION,
        "workload_id": workload_id,
        "model": config.model.id,
        "created_at": now(),
        **git_state(),
        **_settings(config, record),
    }


def _settings(config: StageConfig, record: HydraRecord) -> dict[str, Any]:
    return {
        "params": config.model_dump(),
        "hydra": {"config_path": record.config_path, "config_name": record.config_name},
    }
