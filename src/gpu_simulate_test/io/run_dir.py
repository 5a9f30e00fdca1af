"""Run directories: written in one place, complete only when their metadata file exists."""

import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from gpu_simulate_test.config.limits import with_limits
from gpu_simulate_test.config.schema import HydraRecord, StageConfig
from gpu_simulate_test.errors import AlreadyFinished, ArtifactError, ConfigError, MachineError
from gpu_simulate_test.io.files import read_json, write_json, write_lines, write_text
from gpu_simulate_test.io.locks import LockedError, locked
from gpu_simulate_test.io.provenance import now, run_meta, workload_meta
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


@dataclass
class OpenRunDir(RunDir):
    """The run directory of a stage at work: it knows what it is called, and what its metadata have to say.

    Attributes
    ----------
    name : str
        Of the finished directory; `path` may be another until then.
    meta : str
        The metadata file.
    started_at, ended_at : str
        When it was opened, unless the stage says that its work began later; when it is finished, unless the stage says
        that its work ended sooner.
    """

    name: str
    config: StageConfig
    record: HydraRecord
    meta: str = RUN_META
    started_at: str = field(default_factory=now)
    ended_at: str | None = None

    def write_hydra_record(self) -> None:
        """Keep Hydra's resolved config, its own settings and the overrides in ``.hydra/``."""
        for name, part in (("config", "resolved"), ("hydra", "hydra"), ("overrides", "overrides")):
            self.write_text(f".hydra/{name}.yaml", OmegaConf.to_yaml(getattr(self.record, part)))

    def finish(self, *, run_type: str, **fields: Any) -> None:
        """Write the metadata of a run, which `fields` are added to: the directory is complete from here on."""
        self._complete(
            run_meta(self.name, run_type, self.config, self.record, self.started_at, self.ended_at or now()) | fields
        )

    def finish_workload(self, **fields: Any) -> None:
        """Write the metadata of a workload, likewise."""
        self._complete(workload_meta(self.name, self.config, self.record) | fields)

    def _complete(self, meta: dict[str, Any]) -> None:
        write_json(self.path / self.meta, meta)


def is_finished(path: Path, meta: str = RUN_META) -> bool:
    """True when `path` holds its metadata file."""
    return (path / meta).is_file()


@contextmanager
def open_run_dir(
    path: Path, config: StageConfig, record: HydraRecord, *, meta: str = RUN_META, keep: str | None = None
) -> Iterator[OpenRunDir]:
    """Write a run directory so that no failure damages a finished one.

    An incomplete directory is started anew, but for the file `keep`. A finished one is refused, or, with
    ``overwrite``, replaced only once its successor is complete. Meanwhile ``.<name>.lock`` lies beside it; a process
    that is killed leaves that file, which then locks nothing and goes with the next run.

    Raises
    ------
    ConfigError
        The directory is finished and ``overwrite`` is false, or it is no run directory and not empty.
    MachineError
        It cannot be written, or another process is writing it.
    """
    _check_unfinished(path, config, meta)  # first, for the folder of a finished run may be read-only
    old = path.with_name(f"{path.name}.old")
    with _locked(path, waits=record.multirun):
        if not path.exists() and is_finished(old, meta):
            old.rename(path)  # its replacement was killed between the two renames below
        _check_unfinished(path, config, meta)
        work = path.with_name(f"{path.name}.new") if is_finished(path, meta) else path
        _clear(work, keep)
        with _log_to(work / _LOG):
            run = OpenRunDir(work, path.name, config, record, meta)
            run.write_hydra_record()
            yield run
        if not is_finished(work, meta):
            raise AssertionError(f"stage ended without {meta} in {work}")
        if work != path:
            if old.exists():
                shutil.rmtree(old)
            path.rename(old)
            work.rename(path)
            shutil.rmtree(old)


def _check_unfinished(path: Path, config: StageConfig, meta: str) -> None:
    if is_finished(path, meta) and not config.overwrite:
        raise AlreadyFinished(path)


@contextmanager
def _locked(path: Path, *, waits: bool) -> Iterator[None]:
    """Hold the lock of a run directory."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), (lambda: None) if waits else None))
        except LockedError as error:
            raise MachineError(f"another run is writing: {path}; wait for it to end") from error
        except OSError as error:
            raise _cannot_write(path, error) from error
        yield


def _cannot_write(path: Path, error: OSError) -> MachineError:
    return MachineError(f"cannot write: {path}: {error.strerror}; choose another output.root")


def _clear(work: Path, keep: str | None) -> None:
    """Make a run directory, or empty an unfinished one but for `keep`; refuse a folder that is none."""
    try:
        work.mkdir(exist_ok=True)
        children = list(work.iterdir())
        if children and not (work / _LOG).is_file():
            raise ConfigError(f"not a run directory, and not empty: {work}; choose another folder")
        for child in children:
            if child.name == keep:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
        (work / _LOG).touch()
    except OSError as error:
        raise _cannot_write(work, error) from error


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
