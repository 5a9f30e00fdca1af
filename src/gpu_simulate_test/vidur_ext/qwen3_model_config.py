"""Our models in Vidur's registry, without touching Vidur.

Vidur finds a model by looking through the subclasses of its base config, so defining one registers it.
"""

from dataclasses import field, make_dataclass

from vidur.config.model_config import BaseModelConfig
from vidur.types.activation_type import ActivationType
from vidur.types.norm_type import NormType

from gpu_simulate_test.config.base import read
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import ModelConfig

_registered: dict[str, type] = {}  # Python keeps subclasses weakly; these must stay


def register_model(model: ModelConfig) -> None:
    """Make ``BaseModelConfig.create_from_name(model.id)`` find `model`.

    Vidur takes the head size as ``embedding_dim // num_q_heads``, which is wrong for Qwen3 (64 instead of
    128 for Qwen3-0.6B). It only sizes the KV cache, and we always give the number of blocks.
    """
    if model.id in _registered:
        return
    values = {
        "num_layers": model.num_layers,
        "num_q_heads": model.num_q_heads,
        "num_kv_heads": model.num_kv_heads,
        "embedding_dim": model.hidden_size,
        "mlp_hidden_dim": model.intermediate_size,
        "max_model_len": model.max_position_embeddings,
        "use_gated_mlp": True,
        "use_bias": False,
        "use_qkv_bias": False,
        "activation": ActivationType.SILU,
        "norm": NormType.RMS_NORM,
        "post_attn_norm": True,
        "vocab_size": model.vocab_size,
        "rope_theta": model.rope_theta,
    }
    _registered[model.id] = make_dataclass(
        f"Registered_{model.name}",
        [(name, type(value), field(default=value)) for name, value in values.items()],
        bases=(BaseModelConfig,),
        namespace={"get_name": staticmethod(lambda: model.id)},
    )


def register_shipped_models() -> None:
    """Register every model of the config tree."""
    register_resolvers()
    for path in sorted((config_dir() / "model").glob("*.yaml")):
        if path.stem != "hf":  # any model, which only the settings of a stage name
            register_model(read(ModelConfig, path))
