"""The A100 baseline, by hand: ``pytest -rs tests/manual``. ``make test`` does not run it.

Each stage is its installed command without overrides, except ``output.root``: a new folder for every call of pytest,
below ``GSIM_MANUAL_ROOT`` (default ``tmp/manual``). The stages that a stage builds on are run first, each once, so any
file can be run alone.
"""

import functools
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MODEL_FILES = PROJECT / "models" / "qwen3-0.6b" / "source-data"
MODEL_ID = "Qwen/Qwen3-0.6B"
NUM_PROMPTS = 40  # shipped, each asked once
NUM_DECODE_TOKENS = 64

_BIN = Path(sys.executable).parent
_BUILDS_ON: dict[str, tuple[str, ...]] = {
    "workload-spec": (),
    "real-bench": ("workload-spec",),
    "vidur-profile": ("workload-spec",),
    "vidur-sim": ("vidur-profile",),
    "compare-runs": ("real-bench", "vidur-sim"),
}
_DEVICE = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


def need_model_files() -> None:
    """Skip where the checkpoint of the baseline is not linked."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (MODEL_FILES / name).is_file()]
    if missing or not any(MODEL_FILES.glob("*.safetensors")):
        lacking = ", ".join(missing) or "*.safetensors"
        pytest.skip(f"model files are missing ({lacking}): {MODEL_FILES}; run models/qwen3-0.6b/bootstrap.sh")


def need_a100() -> None:
    """Skip where torch has no CUDA device, or another one."""
    name = _cuda_device()
    if not name:
        pytest.skip("torch has no CUDA device: the baseline needs an A100")
    if "A100" not in name:
        pytest.skip(f"the baseline needs an A100, this is {name}")


def run_stage(stage: str) -> Path:
    """The finished run directory of `stage` in this session; whatever it builds on is run before it."""
    for earlier in _BUILDS_ON[stage]:
        run_stage(earlier)
    done = _run(stage)
    assert done.returncode == 0, f"{stage} exited {done.returncode}: {done.stderr}"
    path = Path(done.stdout.splitlines()[-1])
    assert path.is_relative_to(output_root())
    for name in ("summary.md", "stage.log", ".hydra/config.yaml", ".hydra/overrides.yaml"):
        assert (path / name).is_file(), name
    return path


@functools.cache
def output_root() -> Path:
    """The folder of this session's results."""
    parent = Path(os.environ.get("GSIM_MANUAL_ROOT") or PROJECT / "tmp" / "manual")
    return parent.absolute() / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")


@functools.cache
def _run(stage: str) -> subprocess.CompletedProcess[str]:
    command = [str(_BIN / stage), f"output.root={output_root()}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def _cuda_device() -> str:
    done = subprocess.run([sys.executable, "-c", _DEVICE], capture_output=True, text=True, check=False)
    return done.stdout.strip()
