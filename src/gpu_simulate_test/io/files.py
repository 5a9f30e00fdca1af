"""Atomic writes, and JSON reading whose failures name the file."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from gpu_simulate_test.errors import ArtifactError, MachineError


def check_regular(path: Path) -> None:
    """Raise ArtifactError for a pipe or a device: a file that somebody gives is read more than once."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ArtifactError(f"not a file: {path}: what comes through a pipe can be read only once; write it to a file")


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name beside it, sync it, rename it.

    Raises
    ------
    MachineError
        The folder is read-only or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"cannot write: {path}: {error.strerror or error}; choose another output.root") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, newlines as given."""
    write_atomic(path, lambda stream: stream.write(text.encode()))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write UTF-8 lines atomically, one at a time; each brings its own newline."""
    write_atomic(path, lambda stream: stream.writelines(line.encode() for line in lines))


def write_json(path: Path, payload: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(payload, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ArtifactError
        The file is missing, truncated or not an object.
    """
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot read: {path}: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"not valid JSON: {path}: {error}") from error
    if not isinstance(payload, dict):
        raise ArtifactError(f"not a JSON object: {path}")
    return payload
