"""Our Qwen3 class for Sarathi-Serve against transformers' own, on the CPU: kernels and attention written in torch.

What this leaves out: the real kernels, flashinfer, 16-bit numbers.
"""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import typed_config
from tests.support.sarathi_checkout import importable_or_skip


def rms_norm(out: Any, states: Any, weight: Any, epsilon: float) -> None:
    assert states.is_contiguous()  # the kernel assumes it
    assert states.dim() == 2
    out.copy_(states * (states.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt() * weight)


def silu_and_mul(out: Any, states: Any) -> None:
    gate, up = states.chunk(2, dim=-1)
    out.copy_(gate.sigmoid() * gate * up)


def rotary_embedding(positions: Any, query: Any, key: Any, head_size: int, cache: Any, is_neox: bool) -> None:
    assert is_neox
    cos, sin = cache[positions].chunk(2, dim=-1)
    for states in (query, key):
        heads = states.view(len(states), -1, head_size)
        low, high = (half.clone() for half in heads.chunk(2, dim=-1))
        heads[..., : head_size // 2] = low * cos[:, None] - high * sin[:, None]
        heads[..., head_size // 2 :] = high * cos[:, None] + low * sin[:, None]


class DenseAttention:
    """One prompt, no cache, as their attention wrappers are called."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def forward(
        self, query: Any, key: Any, value: Any, layer_cache_idx: int, softmax_scale: float, layer_id: int
    ) -> Any:
        import torch

        query, key, value = (
            states.reshape(len(states), -1, self.config.head_dim).transpose(0, 1) for states in (query, key, value)
        )
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=softmax_scale
        )
        return attended.transpose(0, 1).reshape(attended.shape[1], -1)


@pytest.fixture(scope="module")
def qwen3() -> Iterator[Any]:
    """Our module, imported with the compiled parts replaced."""
    importable_or_skip()
    import sarathi
    import torch
    from torch.overrides import TorchFunctionMode

    class OnCpu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            return func(*args, **(kwargs | {"device": "cpu"} if kwargs.get("device") == "cuda" else kwargs))

    attention = "BatchPrefillWithPagedKVCacheWrapper append_paged_kv_cache get_batch_indices_positions get_seq_lens"
    stubs = {
        "flashinfer": attention,
        "flashinfer.sampling": "sampling_from_probs top_k_top_p_sampling_from_logits",
        "sarathi.model_executor.layers.fused_moe": "FusedMoE",
    }
    with pytest.MonkeyPatch.context() as patch, OnCpu():
        for name, members in stubs.items():
            module = types.ModuleType(name)
            module.__dict__.update(dict.fromkeys(members.split()))
            patch.setitem(sys.modules, name, module)
        for name, functions in {
            "layernorm_ops": {"rms_norm": rms_norm},
            "activation_ops": {"silu_and_mul": silu_and_mul},
            "pos_encoding_ops": {"rotary_embedding": rotary_embedding},
        }.items():
            patch.setattr(sarathi, name, types.SimpleNamespace(**functions), raising=False)
        patch.setattr(torch.cuda, "current_device", lambda: "cpu")
        from sarathi.metrics.metrics_store import MetricsStore
        from sarathi.model_executor.parallel_utils import parallel_state

        from gpu_simulate_test.real_bench.backends import sarathi_qwen3

        MetricsStore.get_or_create_instance(None, None, None)
        for dimension in ("TENSOR", "PIPELINE"):
            patch.setattr(parallel_state, f"_MPU_{dimension}_MODEL_PARALLEL_WORLD_SIZE", 1)
            patch.setattr(parallel_state, f"_MPU_{dimension}_MODEL_PARALLEL_RANK", 0)
        yield sarathi_qwen3


def checkpoint(folder: Path, tied: bool) -> Any:
    """A tiny Qwen3 of transformers with random weights, saved in `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from gpu_simulate_test.real_bench.backends.sarathi_backend import _describe_model

    overrides = ("model.vocab_size=1000", f"model.tie_word_embeddings={tied}")  # 1000: padded to 1024
    _describe_model(typed_config("real_bench", "experiment=cpu_demo", *overrides).model, folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # the norms: a weight of 1 would hide one that is not applied
            torch.nn.init.uniform_(parameter.data, 0.5, 1.5)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_it_gives_the_logits_of_transformers(qwen3: Any, tmp_path: Path, tied: bool) -> None:
    import torch

    theirs = checkpoint(tmp_path, tied)
    config = theirs.config
    assert config.head_dim != config.hidden_size // config.num_attention_heads
    assert config.rope_theta == 1e6
    ours = qwen3._MODEL_REGISTRY["Qwen3ForCausalLM"](config)
    ours.load_weights(str(tmp_path))
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied
    tokens = torch.randint(1000, (37,))
    with torch.no_grad():
        states = ours(
            hidden_states=tokens, positions=torch.arange(37), attention_backend_wrapper=DenseAttention(config)
        )
        logits = (states @ ours.lm_head.weight.t())[:, :1000]
        torch.testing.assert_close(logits, theirs(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)


def test_a_checkpoint_that_lacks_a_weight_is_refused(qwen3: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = checkpoint(tmp_path, tied=True)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"lacks \(part of\) model\.layers\.1\.self_attn\.qkv_proj"):
        qwen3.Qwen3ForCausalLM(model.config).load_weights(str(tmp_path))
