"""The errors a user can cause; each owns the exit code of its kind."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory")  # torch, on a GPU and on a CPU


class StageError(Exception):
    """An expected failure. Its message is one line: what is wrong: where; what to do."""

    exit_code = 1


class ConfigError(StageError):
    """A setting, an override or a prompt is wrong."""

    exit_code = 2


class AlreadyFinished(ConfigError):
    """What was asked for is there: a job of a sweep has nothing to do, anybody else is told."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"already finished: {path}; set overwrite=true to run it again")
        self.path = path


class ArtifactError(StageError):
    """A file or run directory is missing, incomplete, malformed or belongs elsewhere."""

    exit_code = 3


class GateError(StageError):
    """The comparison is finished and its verdict is off, void or in-sample; only raised when asked for."""

    exit_code = 5


class MachineError(StageError):
    """The machine lacks something (a GPU, an engine, model files, space, permission), or its engine failed."""

    exit_code = 4


def is_out_of_memory(error: BaseException) -> bool:
    """True when a library says that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


at_end: list[Callable[[StageError], object]] = []  # told of the error that ends this process at once


def end_process(error: StageError) -> NoReturn:
    """Report `error` and end the process at once, for a main thread that no exception can reach."""
    for tell in at_end:
        tell(error)
    print(f"\nerror: {error}", file=sys.stderr, flush=True)  # a progress bar may hold the line
    os._exit(error.exit_code)
