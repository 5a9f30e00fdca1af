"""The README is short, and every command in it works as it is written."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.io.files import read_json
from tests.support.commands import BIN

README = (project_root() / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
H100 = "for stage in workload-spec vidur-profile vidur-sim; do .venv/bin/$stage experiment=h100_llama_70b; done"


def test_it_is_read_in_a_minute_or_two() -> None:
    assert len(README.encode()) <= 6000


def test_every_command_of_it_is_run_here_or_by_ci() -> None:
    ci = (project_root() / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [command for command in COMMANDS if command not in ci] == [H100]
    assert {"make demo", "make test"} <= set(COMMANDS)


def test_four_h100s_are_simulated_from_nothing(tmp_path: Path) -> None:
    pytest.importorskip("aiconfigurator_core", reason="the operator database is not installed")
    (tmp_path / ".venv").symlink_to(BIN.parent)
    output = tmp_path / "tmp"
    typed = H100.replace("h100_llama_70b", f"h100_llama_70b output.root={output}")
    done = subprocess.run(
        ["bash", "-ec", typed], cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    meta = read_json(folder / "run_meta.json")
    assert meta["settings"]["num_blocks_estimated"]
    assert meta["settings"]["limits"]["tensor_parallel"] == 4
    assert meta["settings"]["limits"]["async_scheduling"], "as vLLM does on GPUs"
    assert meta["profile_sources"]["decoding"]["measured"] > 0.8
    assert (folder / "report.html").is_file()
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert "KV blocks: an estimate" in summary
    assert "the host's work is not in them" in summary


@pytest.mark.parametrize("page", ["h100.md", "closed-loop.md", "this-machine.md"])
def test_its_errors_are_those_of_the_board(page: str) -> None:
    board = (project_root() / "docs" / "fidelity" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| \[.*\]\({page}\) \| \d+ \| (\S+) \| (\S+) \| (\S+) \|$", board, re.MULTILINE)
    known = {(metric, of_one[place]) for of_one in rows for place, metric in enumerate(("E2E", "TPOT", "TTFT"))}
    (row,) = re.findall(rf"^\| \[.*\]\(docs/fidelity/{page}\) \| (.*)$", README, re.MULTILINE)
    ours = row.partition("Best published")[0]
    quoted = re.findall(r"(E2E|TPOT|TTFT) ([\d.]+) %", ours)
    assert quoted
    assert set(quoted) <= known
