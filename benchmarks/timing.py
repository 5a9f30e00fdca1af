"""Taking times so that a machine whose speed wanders changes both sides of a ratio alike."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """What a process took: seconds by the clock, seconds of CPU, bytes at its largest."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def measured(command: Sequence[str], **popen: Any) -> Usage:
    """Run a command to its end, its output thrown away; raises CalledProcessError where it fails."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.perf_counter()
    process = subprocess.Popen(command, **streams | popen)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes by the clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(calls: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """What each of `calls` returns, called in turn `rounds` times after one that does not count."""
    for call in calls:
        call()
    figures = [[call() for call in calls] for _ in range(rounds)]
    return [list(column) for column in zip(*figures, strict=True)]
