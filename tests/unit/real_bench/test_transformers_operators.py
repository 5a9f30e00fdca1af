"""Operators of other decoders than Qwen3."""

from gpu_simulate_test.engine import MonotonicClock
from gpu_simulate_test.latency.operators import COMPUTE_OPS


def test_a_model_without_norms_of_queries_and_keys_is_timed_as_well() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gpu_simulate_test.real_bench.backends.transformers_operators import TransformersOperators

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    operators = TransformersOperators(LlamaForCausalLM(config).eval(), None, "sdpa", MonotonicClock())
    with torch.inference_mode():
        for name in COMPUTE_OPS:
            assert operators.time_ns(operators.compute(name, 5)) > 0
