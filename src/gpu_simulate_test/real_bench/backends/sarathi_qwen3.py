"""Qwen3 for Sarathi-Serve, which has no class for it, and the worker that brings it into its process.

It has not been run on a GPU. On the CPU, with kernels written in torch, its logits are those of transformers.
One device: no tensor or pipeline parallelism.
"""

from collections import Counter
from typing import Any

import torch
from sarathi.model_executor.layers.layernorm import RMSNorm
from sarathi.model_executor.layers.rotary_embedding import get_rope
from sarathi.model_executor.model_loader import _MODEL_REGISTRY
from sarathi.model_executor.models.llama import LlamaForCausalLM
from sarathi.model_executor.parallel_utils.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from sarathi.model_executor.weight_utils import convert_pyslice_to_tensor, hf_model_weights_iterator
from sarathi.worker.base_worker import BaseWorker
from torch import nn


class Qwen3Attention(nn.Module):
    """Attention with a norm on every head of the queries and keys, and a head size of its own."""

    def __init__(self, config: Any, layer_id: int) -> None:
        super().__init__()
        self.layer_id = layer_id
        self.head_dim = config.head_dim
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.sizes = [queries, keys, keys]
        self.qkv_proj = ColumnParallelLinear(config.hidden_size, sum(self.sizes), bias=False, gather_output=False)
        self.o_proj = RowParallelLinear(queries, config.hidden_size, bias=False, input_is_parallel=True)
        self.q_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.rotary_emb = get_rope(
            head_size=config.head_dim,
            rotary_dim=config.head_dim,
            max_position=config.max_position_embeddings,
            base=config.rope_theta,
            is_neox_style=True,
            rope_scaling=config.rope_scaling,
        )

    def forward(
        self, positions: torch.Tensor, hidden_states: torch.Tensor, layer_cache_idx: int, attention_backend_wrapper: Any
    ) -> torch.Tensor:
        """Attention over a flat batch of shape (n_tokens, hidden_size)."""
        qkv, _ = self.qkv_proj(hidden_states)
        query, key, value = qkv.split(self.sizes, dim=-1)
        query, key = self._each_head(self.q_norm, query), self._each_head(self.k_norm, key)
        query, key = self.rotary_emb(positions, query, key)
        attended = attention_backend_wrapper.forward(
            query, key, value, layer_cache_idx, self.head_dim**-0.5, self.layer_id
        )
        output: torch.Tensor = self.o_proj(attended)[0]
        return output

    def _each_head(self, norm: nn.Module, states: torch.Tensor) -> torch.Tensor:
        # The kernel takes contiguous rows; a reshaped slice is a copy, so it has them.
        heads: torch.Tensor = norm(states.reshape(-1, self.head_dim))
        return heads.view(states.shape)


class Qwen3ForCausalLM(LlamaForCausalLM):
    """Llama with another attention, and with an output layer that may be the embedding."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer_id, layer in enumerate(self.model.layers):
            layer.self_attn = Qwen3Attention(config, layer_id)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def load_weights(
        self,
        model_name_or_path: str,
        cache_dir: str | None = None,
        load_format: str = "auto",
        revision: str | None = None,
    ) -> None:
        """Copy a checkpoint's weights; ValueError when it lacks one."""
        parameters = self.state_dict()
        queries, keys, _ = self.model.layers[0].self_attn.sizes
        fused = {  # of ours, and the row at which a weight of theirs begins
            "q_proj": ("qkv_proj", 0),
            "k_proj": ("qkv_proj", queries),
            "v_proj": ("qkv_proj", queries + keys),
            "gate_proj": ("gate_up_proj", 0),
            "up_proj": ("gate_up_proj", self.config.intermediate_size),
        }
        parts = Counter({"lm_head.weight": 1} if self.config.tie_word_embeddings else {})
        for name, weight in hf_model_weights_iterator(model_name_or_path, cache_dir, load_format, revision):
            loaded = convert_pyslice_to_tensor(weight)
            layer = name.split(".")[-2]
            ours, start = fused.get(layer, (layer, 0))
            target = name.replace(layer, ours)
            # Not the whole embedding: its vocabulary is padded to a multiple of 64.
            parameters[target].narrow(0, start, len(loaded)).copy_(loaded)
            parts[target] += 1
        needed = {"qkv_proj": 3, "gate_up_proj": 2}
        if lacking := [name for name in parameters if parts[name] < needed.get(name.split(".")[-2], 1)]:
            raise ValueError(f"not a whole checkpoint: {model_name_or_path} lacks (part of) {lacking[0]}")


class Worker(BaseWorker):
    """Their worker. Unpickling it in its process imports this module there, and so registers the model."""


_MODEL_REGISTRY["Qwen3ForCausalLM"] = Qwen3ForCausalLM
