"""``--help`` of each stage against a minimal Hydra application of the same settings.

In CPU time, the least of the rounds: what else a machine does only adds to it. With byte code, as pip leaves it or the
first start: where Python is told to write none, only the packages installed have it.
"""

import os
import sys
from functools import partial

from benchmarks.table import Row, Scale
from benchmarks.timing import in_turn, measured

STAGES = ("workload_spec", "real_bench", "vidur_profile", "vidur_sim", "compare_runs")
MINIMAL = """
import hydra
from gpu_simulate_test.config.paths import config_dir
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("gsim.settings", lambda stage: "")  # its help has Hydra's own parts only
hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="compare_runs")(lambda config: None)()
"""


def rows(scale: Scale) -> list[Row]:
    """One row a stage; all in turn."""
    commands = [["-c", MINIMAL], *(["-m", f"gpu_simulate_test.cli.{stage}"] for stage in STAGES)]
    calls = [partial(_help_s, command) for command in commands]
    minimal, *ours = map(min, in_turn(calls, rounds=15 if scale == "full" else 5))
    return [
        Row(
            f"`{stage.replace('_', '-')} --help`, against a minimal Hydra application of the same settings",
            f"{seconds:.2f} and {minimal:.2f} s of CPU",
            ratio=seconds / minimal,
            at_most=1.3,
        )
        for stage, seconds in zip(STAGES, ours, strict=True)
    ]


def _help_s(command: list[str]) -> float:
    return measured([sys.executable, *command, "--help"], env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""}).cpu_s
