"""Locks between processes: a file beside what is locked, there only while somebody holds it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class LockedError(Exception):
    """Somebody else holds the lock."""


@contextmanager
def locked(path: Path, waits: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock that is the file `path`; the system lets go of it when the process dies.

    Parameters
    ----------
    path : Path
        Deleted in the end. A process that is killed leaves it, and it then locks nothing.
    waits : callable, optional
        Called once when somebody else holds it; it is then waited for.

    Raises
    ------
    LockedError
        Somebody else holds it, and nobody is to wait.
    OSError
        The file cannot be made.
    """
    descriptor = _locked(path)
    if descriptor is None:
        if waits is None:
            raise LockedError(path)
        waits()
        while (descriptor := _locked(path, wait=True)) is None:
            pass
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # ours alone as long as it is locked
        os.close(descriptor)


def _locked(path: Path, *, wait: bool = False) -> int | None:
    """The locked file, open; None where somebody else holds it, or held it and has deleted it since."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:  # Ctrl-C while it waits
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
