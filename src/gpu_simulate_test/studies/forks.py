"""A child process for each job, forked from one that has imported already what takes seconds to import.

Whatever becomes of the child, also SIGKILL, is told and harms nobody. `multiprocessing` could fork as well; but there
each child imports the main module of its launcher anew, and a pool breaks when one of its processes dies.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NoReturn

INTERRUPTED = 128 + signal.SIGINT
_BUG = 1
_POLL_S = 1.0
_PATIENCE_S = 10.0  # of a child that was asked to end


class StoppedError(Exception):
    """The one who asked for the job no longer wants it."""


class Forks:
    """Runs one job after another, each in a child of its own.

    Parameters
    ----------
    target : str
        ``module:function``: takes what `run` is given, and what to call with the answer; both as JSON can hold them.
    modules : sequence of str
        To be imported once.
    environment : mapping, optional
        Further variables that are there when they are.
    """

    def __init__(self, target: str, modules: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._target, self._modules, self._environment = target, list(modules), environment or {}
        self._server: subprocess.Popen[bytes] | None = None

    def run(self, given: Any, is_wanted: Callable[[], bool] = lambda: True) -> tuple[int, Any]:
        """Do one job in a child, with this process's environment and working directory.

        Returns
        -------
        status : int
            The child's exit code, or, negative, the signal that killed it.
        answer : object
            The last one; None where the child did not live to say it.

        Raises
        ------
        StoppedError
            `is_wanted`, asked every second, says no.
        """
        server = self._started()
        request = {"folder": os.getcwd(), "environment": dict(os.environ), "given": given}
        answer, rest = None, b""
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps(request).encode() + b"\n")
            server.stdin.flush()
            while True:
                if not select.select([server.stdout], [], [], _POLL_S)[0]:
                    if not is_wanted():
                        raise StoppedError
                    continue
                rest += (read := os.read(server.stdout.fileno(), 1 << 16))
                *lines, rest = rest.split(b"\n")
                for name, value in filter(None, map(_message, lines)):
                    if name == "status":
                        return value, answer
                    answer = value
                if not read:  # the one that forks has died itself
                    break
        except BrokenPipeError:
            pass
        except BaseException:
            self.close()
            raise
        self.close()
        return server.returncode or -int(signal.SIGKILL), answer

    def close(self) -> None:
        """End the child, if one is at work, and the process that forks them."""
        server, self._server = self._server, None
        if server is not None:
            for stream in (server.stdin, server.stdout):
                assert stream is not None
                stream.close()
            server.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, self._target, *self._modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **self._environment},
            )
        return self._server


def _message(line: bytes) -> tuple[str, Any] | None:
    """What is said in a line; None where a child was killed in the middle of it."""
    try:
        name, value = json.loads(line)
    except ValueError:
        return None
    return name, value


def _serve(target: str, *modules: str) -> None:
    """Fork a child for each line of stdin, until it ends; its end also ends the child at work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked for a job says when to stop
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a job prints is no answer
    for name in (target.partition(":")[0], *modules):
        importlib.import_module(name)
    for line in iter(sys.stdin.buffer.readline, b""):
        child = os.fork()
        if not child:
            _work(target, line, answers)
        status = _ended(child)
        try:
            answers.write(b"\n" + json.dumps(["status", status]).encode() + b"\n")
        except BrokenPipeError:
            return


def _ended(child: int) -> int:
    """Wait for a child; ask it to end as soon as nobody waits for us, and do not ask for long."""
    descriptor = os.pidfd_open(child)
    ready = select.select([descriptor, sys.stdin.buffer], [], [])[0]
    if descriptor not in ready:  # nothing is sent while a job is at work: it is the end of stdin
        os.kill(child, signal.SIGINT)
        if not select.select([descriptor], [], [], _PATIENCE_S)[0]:
            os.kill(child, signal.SIGKILL)
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _work(target: str, line: bytes, answers: IO[bytes]) -> NoReturn:
    code = _BUG
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        request = json.loads(line)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        module, _, function = target.partition(":")

        def answer(value: Any) -> None:
            answers.write(json.dumps(["answer", value]).encode() + b"\n")

        getattr(importlib.import_module(module), function)(request["given"], answer)
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # and nothing that the parent set up for its own end


if __name__ == "__main__":
    _serve(*sys.argv[1:])
