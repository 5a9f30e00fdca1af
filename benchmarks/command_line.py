"""``--help`` of each stage against the smallest application of Hydra's."""

import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.table import Row, Scale
from benchmarks.timing import measured, medians

STAGES = ("workload_spec", "real_bench", "vidur_profile", "vidur_sim", "compare_runs")
MINIMAL = """
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    pass

main()
"""


def rows(scale: Scale) -> list[Row]:
    """One row a stage; all in turn, the median of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "minimal.py"
        script.write_text(MINIMAL, encoding="utf-8")
        commands = [[str(script)], *(["-m", f"gpu_simulate_test.cli.{stage}"] for stage in STAGES)]
        calls = [partial(_help_s, command) for command in commands]
        minimal, *ours = medians(calls, rounds=15 if scale == "full" else 5)
    return [
        Row(
            f"`{stage.replace('_', '-')} --help`, against a minimal Hydra application's",
            f"{seconds:.2f} s, {minimal:.2f} s",
            ratio=seconds / minimal,
            at_most=1.3,
        )
        for stage, seconds in zip(STAGES, ours, strict=True)
    ]


def _help_s(command: list[str]) -> float:
    return measured([sys.executable, *command, "--help"]).wall_s
