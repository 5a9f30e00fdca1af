"""Stable ids: the same inputs give the same id on any machine."""

import hashlib
import json
from pathlib import Path
from typing import Any


def stable_hash(payload: Any) -> str:
    """SHA-256 of `payload` as canonical JSON, 64 hex digits."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def stable_id(prefix: str, payload: Any) -> str:
    """A run-directory name such as ``real_3fa9c1d204``."""
    return f"{prefix}_{stable_hash(payload)[:10]}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
