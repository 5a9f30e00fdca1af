"""The worked study: what its page has a reader type is what its script runs, and every command of it is a valid one."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from gpu_simulate_test.config.paths import project_root
from scripts.chart import chart
from tests.support.configs import jobs_of, typed_config

ROOT = project_root()
SCRIPT = ROOT / "scripts" / "study.sh"
PAGE = ROOT / "docs" / "study" / "llama-70b-four-h100s.md"
STAGES = ("workload-spec", "real-bench", "vidur-profile", "vidur-sim", "compare-runs")
# Notes what it is called with, one argument a line, and prints the folder that it would have made.
STAND_IN = '#!/bin/sh\n{ echo "$0"; printf "%s\\n" "$@"; echo; } >> "$CALLS"\necho "$PWD/made"\n'


def test_the_page_has_the_commands_of_the_script() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    typed = "\n".join(block for block in blocks if "scripts/study.sh" not in block)
    _, commands, _ = SCRIPT.read_text(encoding="utf-8").split("# ---\n")
    assert typed == commands


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[str]]]:
    """The stages that the script runs, and what with; none of them does anything."""
    folder = tmp_path_factory.mktemp("study")
    for name in (*STAGES, "cp", "python"):
        (folder / name).write_text(STAND_IN, encoding="utf-8")
        (folder / name).chmod(0o755)
    around = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": f"{folder / 'calls'}"}
    command = ["bash", str(SCRIPT), str(folder / "out"), str(folder)]
    done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    called = [one.splitlines() for one in (folder / "calls").read_text(encoding="utf-8").split("\n\n")]
    return [(Path(stage).name, given) for stage, *given in filter(None, called) if Path(stage).name in STAGES]


def test_every_command_of_the_study_composes(calls: list[tuple[str, list[str]]]) -> None:
    assert {stage for stage, _ in calls} == set(STAGES)
    for stage, given in calls:
        overrides = [one for one in given if one != "-m" and not one.startswith("hydra.sweeper")]
        assert ("-m" in given) == (len(overrides) < len(given))
        for one in jobs_of(overrides):
            typed_config(stage.replace("-", "_"), *one)


def test_a_chart_stands_alone_with_its_font_and_without_links() -> None:
    drawn = '<svg role="img" aria-label="Load"><a xlink:href="../run"><path d="M 0 0"/></a></svg>'
    page = f"<p><svg aria-label='x'></svg>{drawn}</p>"
    assert chart(page, "Load").startswith('<svg role="img" aria-label="Load"><style>text { font-family')
    assert "<a" not in chart(page, "Load")
    with pytest.raises(ValueError, match="no chart 'Lode'; the page has Load"):
        chart(page, "Lode")
