"""The shared data, and a stage run as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from gpu_simulate_test.config.paths import project_root

SHARED = Path(os.environ.get("GST_SHARED_DATA", project_root().parent / "shared" / "data"))


class StageFailed(RuntimeError):
    """A stage ended with an error; its message is one line."""


def run_command(stage: str, *settings: str, python: str = sys.executable) -> Path:
    """Run a stage as a user does; returns its run directory, also of a run that was there already.

    Parameters
    ----------
    stage : str
        Name of its module, as in ``vidur_sim``.
    python : str
        The interpreter of an environment that has this package.

    Raises
    ------
    StageFailed
        It did not exit 0; the message is the last line that it wrote.
    """
    command = [python, "-m", f"gpu_simulate_test.cli.{stage}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if finished := re.search(r"^error: already finished: (.+); set overwrite=true", done.stderr, re.MULTILINE):
            return Path(finished[1])
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise StageFailed(f"{stage.replace('_', '-')}: {said[-1].removeprefix('error: ')}")
    return Path(done.stdout.splitlines()[-1])
