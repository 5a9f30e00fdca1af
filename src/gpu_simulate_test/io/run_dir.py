"""Run directories: written in one place, complete only when their metadata file exists."""

import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from gpu_simulate_test.config.limits import with_limits
from gpu_simulate_test.errors import ArtifactError, ConfigError, MachineError
from gpu_simulate_test.io.files import read_json, write_json, write_lines, write_text
from gpu_simulate_test.io.tables import Table, write_table

RUN_META = "run_meta.json"
WORKLOAD_META = "workload_meta.json"

_LOG = "stage.log"  # made first, so that a folder of ours can be told from anybody else's
STAGE_OF_META = {RUN_META: "real-bench or vidur-sim", WORKLOAD_META: "workload-spec"}


@dataclass
class RunDir:
    """A run directory being written."""

    path: Path

    def write_text(self, name: str, text: str) -> None:
        """Write a text artifact; `name` may lie in a sub-folder."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Write a text artifact that may be too long to be held whole."""
        write_lines(self.path / name, lines)

    def write_table(
        self, table: Table, frames: pd.DataFrame | Iterable[pd.DataFrame], *, num_rows: int | None = None
    ) -> None:
        """Write a table of the contract; see `gpu_simulate_test.io.tables.write_table`."""
        write_table(self.path, table, frames, num_rows=num_rows)

    def finish(self, meta: dict[str, Any], filename: str = RUN_META) -> None:
        """Write the metadata file: the directory is complete from here on."""
        write_json(self.path / filename, meta)


def is_finished(path: Path, meta: str = RUN_META) -> bool:
    """True when `path` holds its metadata file."""
    return (path / meta).is_file()


@contextmanager
def open_run_dir(path: Path, *, overwrite: bool, meta: str = RUN_META, keep: str | None = None) -> Iterator[RunDir]:
    """Write a run directory so that no failure damages a finished one.

    An incomplete directory is started anew, but for the file `keep`. A finished one is refused, or, with
    `overwrite`, replaced only once its successor is complete.

    Raises
    ------
    ConfigError
        The directory is finished and `overwrite` is false, or it is no run directory and not empty.
    MachineError
        It cannot be written, or another process is writing it.
    """
    old = path.with_name(f"{path.name}.old")
    if not path.exists() and is_finished(old, meta):
        old.rename(path)  # its replacement was killed between the two renames below
    finished = is_finished(path, meta)
    if finished and not overwrite:
        raise ConfigError(f"already finished: {path}; set overwrite=true to run it again")
    work = path.with_name(f"{path.name}.new") if finished else path
    with _locked(work):
        _clear(work, keep)
        with _log_to(work / _LOG):
            yield RunDir(work)
        if not is_finished(work, meta):
            raise AssertionError(f"stage ended without {meta} in {work}")
        if work != path:
            if old.exists():
                shutil.rmtree(old)
            path.rename(old)
            work.rename(path)
            shutil.rmtree(old)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Make `work` and hold it: the lock is on the folder itself, and goes with the process."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise MachineError(f"cannot write: {work}: {error.strerror}; choose another output.root") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(handle).st_ino == work.stat().st_ino  # false: renamed by who held it before us
        except OSError:
            ours = False
        if not ours:
            raise MachineError(f"another run is writing: {work}; wait for it to end")
        yield
    finally:
        os.close(handle)


def _clear(work: Path, keep: str | None) -> None:
    """Empty an unfinished run directory, but for `keep`; refuse a folder that is none."""
    children = list(work.iterdir())
    if children and not (work / _LOG).is_file():
        raise ConfigError(f"not a run directory, and not empty: {work}; choose another folder")
    try:
        for child in children:
            if child.name == keep:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
        (work / _LOG).touch()
    except OSError as error:
        raise MachineError(f"cannot write: {work}: {error.strerror}; choose another output.root") from error


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("gpu_simulate_test")
    logger.addHandler(handler)
    try:
        yield
    except Exception:
        record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "failed", (), sys.exc_info())
        handler.handle(record)  # the terminal gets one line, the log the whole story
        raise
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):  # a full disk
            handler.close()


def read_run_meta(path: Path, meta: str = RUN_META) -> dict[str, Any]:
    """Metadata of a finished directory.

    Raises
    ------
    ArtifactError
        The directory does not exist, or it is incomplete.
    """
    stage = STAGE_OF_META[meta]
    if not path.is_dir():
        raise ArtifactError(f"no such run directory: {path}; run {stage} first")
    if not is_finished(path, meta):
        raise ArtifactError(f"incomplete run directory (no {meta}): {path}; run {stage} again")
    return with_limits(read_json(path / meta))


def repeat_dirs(path: Path, meta: dict[str, Any]) -> list[Path]:
    """Run directories of the repeats of a real run, itself first; all lie beside it.

    Raises
    ------
    ArtifactError
        A name in its metadata is no plain name: no file may point elsewhere.
    """
    names = meta.get("repeat_run_dirs", [path.name])
    if not isinstance(names, list) or not all(map(_is_plain_name, names)):
        raise ArtifactError(f"repeat_run_dirs must be names of folders beside it: {path / RUN_META}: {names}")
    return [path, *(path.with_name(name) for name in names[1:])]


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\0"} & set(name)


def newest_runs(parent: Path, run_type: str) -> list[tuple[Path, dict[str, Any]]]:
    """Finished runs of a type under `parent`, newest first.

    Repeats of another run are left out, and so is what an interrupted overwrite left behind.
    """
    found = []
    for path in parent.glob(f"*/{RUN_META}"):
        meta = with_limits(read_json(path))
        ours = path.parent.suffix not in (".new", ".old") and not meta.get("repeat_of")
        if ours and meta.get("run_type") == run_type:
            found.append((path.parent, meta))
    return sorted(found, key=lambda item: ended_at(item[1]), reverse=True)


def ended_at(meta: dict[str, Any]) -> datetime:
    """When a run ended; the epoch where its metadata does not say."""
    try:
        when = datetime.fromisoformat(str(meta.get("ended_at")))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
