"""The installed commands, run as a user runs them."""

import subprocess
import sys
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
    "backend.max_num_seqs=4",
    "backend.max_num_batched_tokens=32",
    "backend.num_blocks=64",
    "vidur.profiling.repeats=2",
    "vidur.profiling.budget_s=10",
)


def run(command: str, *overrides: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a console script; never raises."""
    return subprocess.run(
        [str(BIN / command), *overrides], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def run_dir(done: subprocess.CompletedProcess[str]) -> Path:
    """The run directory a command printed as the last line of stdout."""
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.is_absolute()
    return path


def error_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one error line of a command that failed with `code`."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0]
    return lines[0]
