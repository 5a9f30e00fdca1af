"""Settings of the model, the device and what serves."""

from typing import Literal

from pydantic import Field

from gpu_simulate_test.config.base import MAX_REQUESTS, MAX_TOKENS, Float, Int, Seed, Settings, Tokens


class ModelConfig(Settings):
    """A model: its identity, its dimensions, and where its weights and tokenizer come from."""

    name: str = Field(description="short name, for folders")
    id: str = Field(description="identity, as on the Hugging Face hub")
    architecture: str = Field(description="transformers' name of it")
    weights: Literal["pretrained", "dummy"] = Field(
        description="pretrained: from path; dummy: the same dimensions, seeded random weights, no download"
    )
    tokenizer: Literal["source", "example_prompts"] = Field(
        description="source: the model's own files; example_prompts: trained on the shipped prompts"
    )
    path: str | None = Field(description="folder of its files")
    config: str | None = Field(
        default=None, description="its own config.json, or the folder of it, for what the settings below do not say"
    )
    seed: Seed = Field(description="of random weights")
    num_layers: Tokens = Field(description="decoder layers")
    num_q_heads: Tokens = Field(description="query heads")
    num_kv_heads: Tokens = Field(description="key-value heads")
    head_dim: Tokens = Field(description="size of a head")
    hidden_size: Tokens = Field(description="width of the residual stream")
    intermediate_size: Tokens = Field(description="width of the feed-forward layer, or of one expert")
    num_experts: Int = Field(default=0, ge=0, le=MAX_TOKENS, description="of a mixture of experts; 0: dense")
    num_experts_per_tok: Int = Field(default=0, ge=0, le=MAX_TOKENS, description="of them, those that a token visits")
    quantization: Literal["fp8", "fp8_static", "fp8_block", "int8_wo", "int4_wo", "nvfp4"] | None = Field(
        default=None, description="of the weights, as the operator database calls it; null: as its config.json says"
    )
    vocab_size: Int = Field(ge=4, le=MAX_TOKENS, description="tokens of the vocabulary; the first three are special")
    max_position_embeddings: Tokens = Field(description="longest context")
    rope_theta: Float = Field(ge=1e-6, le=1e15, description="base of the rotary embedding")
    rms_norm_eps: Float = Field(ge=0, le=1, description="epsilon of the norms")
    tie_word_embeddings: bool = Field(description="output and input embedding are one")
    eos_token_id: Int = Field(ge=0, le=MAX_TOKENS, description="end token")


class HardwareConfig(Settings):
    """A device: how to find it, and what Vidur calls it."""

    name: str = Field(description="short name, for folders")
    device: Literal["cpu", "cuda"] = Field(description="kind of device")
    gpu_name: str | None = Field(description="must occur in the CUDA device's name")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="data type of weights and KV cache")
    vidur_device: str = Field(description="Vidur's name of the device")
    vidur_network_device: str = Field(description="Vidur's name of its node")
    fp16_tflops: Int = Field(
        default=1, ge=1, le=MAX_TOKENS, description="for Vidur's device record, whose utilisation we do not use"
    )
    total_memory_gb: Int = Field(default=1, ge=1, le=MAX_TOKENS, description="the same, in GB")
    system: str | None = Field(default=None, description="the operator database's name of it")
    price_per_hour: Float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description="of one GPU, in any currency; then the cost of a million output tokens is told",
    )


class BackendConfig(Settings):
    """What serves."""

    name: Literal["transformers", "vllm", "sarathi", "recorded"] = Field(
        description="engine; recorded: nothing is served, a run that somebody else measured is imported"
    )
    ignore_eos: bool = Field(
        description="false: a request may stop early, as num_decode_tokens_actual tells; then vidur-sim needs "
        "real_run_dir"
    )
    warmup_requests: Int = Field(ge=0, le=MAX_REQUESTS, description="served before anything is measured")
    attn_implementation: str = Field(description="attention kernel, by the engine's own name")
    num_threads: Tokens | None = Field(
        description="CPU threads of the engine; with more than one a busy neighbour makes times jump; null: torch's own"
    )
    requests: str | None = Field(
        default=None, description="recorded: the file of requests; its content says its format"
    )
    engine: Literal["vllm", "sglang", "trtllm"] | None = Field(
        default=None, description="recorded: what served them, where it is known"
    )
    engine_version: str | None = Field(default=None, description="recorded: its version, such as 0.15.1")
