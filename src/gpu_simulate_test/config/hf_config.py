"""A model's settings from its own ``config.json``, as the Hugging Face hub has it."""

import json
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_simulate_test.errors import ConfigError

DENSE = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Architectures whose config our settings say in full, and transformers' classes of them."""

# A setting of ours: what the file calls it, the first of them that it has; and what it is where it has none.
_KEYS: dict[str, tuple[tuple[str, ...], Any]] = {
    "architecture": (("model_type",), None),
    "num_layers": (("num_hidden_layers",), None),
    "num_q_heads": (("num_attention_heads",), None),
    "num_kv_heads": (("num_key_value_heads", "num_attention_heads"), None),
    "head_dim": (("head_dim",), None),
    "hidden_size": (("hidden_size",), None),
    "intermediate_size": (("moe_intermediate_size", "intermediate_size"), None),
    "num_experts": (("num_local_experts", "num_experts"), 0),
    "num_experts_per_tok": (("num_experts_per_tok",), 0),
    "vocab_size": (("vocab_size",), None),
    "max_position_embeddings": (("max_position_embeddings",), None),
    "rope_theta": (("rope_theta",), 10000.0),
    "rms_norm_eps": (("rms_norm_eps",), 1e-6),
    "tie_word_embeddings": (("tie_word_embeddings",), False),
    "eos_token_id": (("eos_token_id",), 0),
}


def hf_setting(key: str, config: str | None, model_id: str | None) -> Any:
    """A setting of the group ``model``, by its name there; `id` and `name` as well.

    Raises
    ------
    ConfigError
        No such file, or it is no decoder's.
    """
    if key == "name":
        return re.sub(r"[^a-z0-9]+", "_", str(model_id).rpartition("/")[2].lower())
    if key == "id":
        if config is None:
            raise ConfigError("model.id is missing: name the model, or its config.json by model.config")
        path = config_file(config, None).absolute()
        return path.parent.name if path.name == "config.json" else path.stem
    path = config_file(config, model_id)
    found = _read(path)
    names, default = _KEYS[key]
    values = [found[name] for name in names if found.get(name) is not None]
    if key == "head_dim" and not values:
        values = [found["hidden_size"] // found["num_attention_heads"]]
    if not values and default is None:
        architecture = ", ".join(found.get("architectures") or ["a model of no name"])
        raise ConfigError(f"{architecture} is no decoder that can be simulated: {path} has no {names[0]}")
    value = values[0] if values else default
    return value[0] if key == "eos_token_id" and isinstance(value, list) else value


def config_file(config: str | None, model_id: str | None) -> Path:
    """The file that ``model.config`` names or, without it, that of a model that the operator database ships.

    Raises
    ------
    ConfigError
        There is none.
    """
    if config is not None:
        path = Path(config).expanduser()
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"no such file: {path}; model.config is a config.json or the folder of one")
        return path
    package = find_spec("aiconfigurator_core")
    if package is None or package.origin is None:
        raise ConfigError(
            f"model.config is missing: only the operator database could know {model_id}, and it is not installed; "
            "pip install 'gpu-simulate-test[operators]'"
        )
    shipped = Path(package.origin).parent / "model_configs"
    path = shipped / f"{str(model_id).replace('/', '--')}_config.json"
    if not path.is_file():
        count = sum("hf_quant" not in one.name for one in shipped.glob("*_config.json"))
        raise ConfigError(
            f"{model_id} is not among the {count} models of the operator database; name its config.json by model.config"
        )
    return path


@lru_cache(maxsize=8)
def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read model.config: {path}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"cannot read model.config: {path}: it is no object")
    return found
