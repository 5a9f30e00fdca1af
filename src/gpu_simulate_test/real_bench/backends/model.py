"""What every backend asks of the device and of the model's files."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from gpu_simulate_test.config.hf_config import DENSE
from gpu_simulate_test.config.schema import HardwareConfig, ModelConfig
from gpu_simulate_test.errors import ConfigError, MachineError
from gpu_simulate_test.io.files import read_json

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def prepare_device(hardware: HardwareConfig) -> None:
    """Make a CPU's times repeatable, or raise MachineError unless this machine has the GPU."""
    if hardware.device == "cpu":
        _keep_freed_memory()
        return
    if not torch.cuda.is_available():
        raise MachineError(f"no GPU: hardware={hardware.name} needs a CUDA device; use hardware=cpu or another machine")
    name = torch.cuda.get_device_name()
    if hardware.gpu_name and hardware.gpu_name not in name:
        raise MachineError(f"wrong GPU: hardware={hardware.name} needs a {hardware.gpu_name}, this is {name}")


def _keep_freed_memory() -> None:
    """Have glibc's malloc keep freed memory for the next buffer.

    Otherwise it returns large buffers to the system, or not, by what was allocated before, and equal steps differ by
    up to a half of their time in page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has none
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def device_details(device: str) -> dict[str, str | None]:
    """What `EngineInfo.details` says of torch and the device, whatever the engine."""
    return {
        "torch": torch.__version__,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else None,
        "cuda": torch.version.cuda if device == "cuda" else None,
    }


def model_folder(model: ModelConfig) -> Path:
    """The folder of a pretrained model, its dimensions checked.

    Raises
    ------
    MachineError
        The files are not there, or the weights in no format that is safe to read.
    ConfigError
        They are another model's.
    """
    if model.path is None:
        raise ConfigError(f"model.path is missing: name the folder of {model.id}, or use model.weights=dummy")
    folder = Path(model.path)
    if not (folder / "config.json").is_file():
        raise MachineError(
            f"model files of {model.id} are missing: {folder}; run the bootstrap script under models/, "
            "or use model.weights=dummy"
        )
    if not any(folder.glob("*.safetensors")):  # the other format, pickle, runs code as it is read
        raise MachineError(f"no weights in safetensors format: {folder}; convert them, or use model.weights=dummy")
    _check_dimensions(model, folder)
    return folder


def dummy_config(model: ModelConfig) -> Any:
    """A config with our dimensions, as transformers has it, for random weights.

    Raises
    ------
    ConfigError
        Our settings do not say all of such a model.
    """
    if model.architecture not in DENSE:
        raise ConfigError(f"model.weights=dummy is for {' and '.join(DENSE)}, not for {model.architecture}")
    return AutoConfig.for_model(
        model.architecture,
        architectures=[DENSE[model.architecture]],
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_q_heads,
        num_key_value_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        max_position_embeddings=model.max_position_embeddings,
        rms_norm_eps=model.rms_norm_eps,
        tie_word_embeddings=model.tie_word_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        eos_token_id=model.eos_token_id,
    )


def _check_dimensions(model: ModelConfig, folder: Path) -> None:
    """The simulator is told our dimensions, so the checkpoint must have the same."""
    found = read_json(folder / "config.json")
    for ours, theirs in (
        ("num_layers", "num_hidden_layers"),
        ("num_q_heads", "num_attention_heads"),
        ("num_kv_heads", "num_key_value_heads"),
        ("head_dim", "head_dim"),
        ("hidden_size", "hidden_size"),
        ("intermediate_size", "intermediate_size"),
        ("vocab_size", "vocab_size"),
    ):
        if theirs in found and found[theirs] != getattr(model, ours):
            raise ConfigError(
                f"not {model.id}: {folder / 'config.json'} has {theirs}={found[theirs]}, "
                f"model.{ours} is {getattr(model, ours)}"
            )
