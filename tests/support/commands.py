"""The five commands: in this process, or, for signals, pipes and exit codes as a shell sees them, installed."""

import contextlib
import gc
import importlib
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BIN = Path(sys.executable).parent

# A workload that takes a moment: three short requests on the tiny model.
SMALL = (
    "experiment=cpu_demo",
    "workload=synthetic",
    "workload.num_requests=3",
    "workload.num_prefill_tokens=24",
    "workload.num_decode_tokens=4",
    "workload.num_decode_tokens_min=null",
    "workload.arrival.kind=fixed_interval",
    "workload.arrival.inter_arrival_ns=1000000",
    "limits.max_num_seqs=4",
    "limits.max_num_batched_tokens=32",
    "limits.num_blocks=64",
    "vidur.profiling.repeats=2",
    "vidur.profiling.budget_s=10",
)


def run(command: str, *overrides: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a console script prints and exits with, its entry point called here; never raises.

    Everything is imported once instead of once a command, which is most of what a small stage takes.
    """
    main = importlib.import_module(f"gpu_simulate_test.cli.{command.replace('-', '_')}").main
    stdout, stderr = io.StringIO(), io.StringIO()
    with _process_state(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        os.chdir(cwd or Path.cwd())
        sys.argv = [str(BIN / command), *overrides]
        try:
            main()
            code = 0
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
    return subprocess.CompletedProcess([command, *overrides], code, stdout.getvalue(), stderr.getvalue())


def run_installed(command: str, *overrides: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a console script in a process of its own; never raises."""
    return subprocess.run(
        [str(BIN / command), *overrides], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """Put back what an entry point changes of its process, which it takes for its own."""
    argv, folder, environment = sys.argv, Path.cwd(), dict(os.environ)
    raised, unraisable = logging.raiseExceptions, sys.unraisablehook
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    loggers = [logging.getLogger(), logging.getLogger("gpu_simulate_test")]
    logs = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        sys.argv, sys.unraisablehook, logging.raiseExceptions = argv, unraisable, raised
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for logger, level, before in logs:
            logger.setLevel(level)
            logger.handlers[:] = before
        gc.unfreeze()  # a measurement sets aside what there is, once a process


def run_dir(done: subprocess.CompletedProcess[str]) -> Path:
    """The run directory a command printed as the last line of stdout."""
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.is_absolute()
    return path


def sweep_dir(done: subprocess.CompletedProcess[str]) -> tuple[Path, list[Path]]:
    """The folder of a sweep, the last line of its stdout, and the run directories of its jobs before that."""
    *runs, folder = map(Path, done.stdout.splitlines())
    assert folder.parent.name == "sweeps"
    return folder, runs


def error_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one error line of a command that failed with `code`."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0]
    return lines[0]
