"""An H100 deployment on a machine without a GPU, as the README's first screen has it."""

from pathlib import Path

import pytest

from gpu_simulate_test.io.files import read_json
from tests.support.commands import run

pytest.importorskip("aiconfigurator_core", reason="the operator database is not installed")


def test_four_h100s_are_simulated_from_nothing(tmp_path: Path) -> None:
    settings = ("experiment=h100_llama_70b", "workload.num_requests=30", f"output.root={tmp_path}")
    for command in ("workload-spec", "vidur-profile", "vidur-sim"):
        done = run(command, *settings)
        assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    meta = read_json(folder / "run_meta.json")
    assert meta["settings"]["num_blocks_estimated"]
    assert meta["settings"]["limits"]["tensor_parallel"] == 4
    assert meta["settings"]["limits"]["async_scheduling"], "as vLLM does on GPUs"
    assert meta["profile_sources"]["decoding"]["measured"] > 0.8
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert "KV blocks: an estimate" in summary
    assert "the host's work is not in them" in summary
