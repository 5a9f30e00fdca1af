"""The A100 baseline, by hand: ``pytest -rs tests/manual``. ``make test`` does not run it.

Each stage is its installed command without overrides, except ``output.root``: a new folder for every call of pytest,
below ``GSIM_MANUAL_ROOT`` (default ``tmp/manual``). The stages that a stage builds on are run first, each once, so any
file can be run alone. Another card, or fewer requests: ``GSIM_MANUAL_SETTINGS`` has further overrides, as in
``hardware=h100 model.weights=dummy model.tokenizer=example_prompts repeats=2``; ``repeats`` is real-bench's alone.
"""

import functools
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.configs import typed_config

PROJECT = Path(__file__).resolve().parents[2]
MODEL_FILES = PROJECT / "models" / "qwen3-0.6b" / "source-data"
SETTINGS = shlex.split(os.environ.get("GSIM_MANUAL_SETTINGS", ""))
CONFIG = typed_config("real_bench", *SETTINGS)
MODEL_ID = CONFIG.model.id
NUM_PROMPTS = CONFIG.workload.num_requests or 40  # shipped, each asked once
NUM_DECODE_TOKENS = CONFIG.workload.num_decode_tokens

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
    needed = ["config.json", "tokenizer.json"] if CONFIG.model.tokenizer == "source" else []
    missing = [name for name in needed if not (MODEL_FILES / name).is_file()]
    if CONFIG.model.weights == "pretrained" and not any(MODEL_FILES.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        names = ", ".join(missing)
        pytest.skip(f"model files are missing ({names}): {MODEL_FILES}; run models/qwen3-0.6b/bootstrap.sh")


def need_device() -> None:
    """Skip where torch has not the device of the settings."""
    if CONFIG.hardware.device == "cpu":
        return
    name = _cuda_device()
    if not name:
        pytest.skip(f"torch has no CUDA device: hardware={CONFIG.hardware.name} needs one")
    if (CONFIG.hardware.gpu_name or "") not in name:
        pytest.skip(f"hardware={CONFIG.hardware.name} needs another card, this is {name}")


def device_name() -> str | None:
    """The card as torch names it; None on a CPU."""
    return None if CONFIG.hardware.device == "cpu" else _cuda_device()


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
    settings = [one for one in SETTINGS if stage == "real-bench" or not one.startswith("repeats=")]
    command = [str(_BIN / stage), *settings, f"output.root={output_root()}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def _cuda_device() -> str:
    done = subprocess.run([sys.executable, "-c", _DEVICE], capture_output=True, text=True, check=False)
    return done.stdout.strip()
