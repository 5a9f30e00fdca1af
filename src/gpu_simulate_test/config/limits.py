"""What an engine's scheduler is limited by: one spelling for settings, engines, the simulator, metadata and gates."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from gpu_simulate_test.config.base import Float, Int, Settings

_Count = Annotated[Int, Field(ge=1, le=10**15)]
_Degree = Annotated[Int, Field(ge=1, le=1024)]

SARATHI_WATERMARK = 0.01  # Sarathi-Serve's own constant

# What metadata written before there was one spelling called them.
_OLD_NAMES = {
    "batch_cap": "max_num_seqs",
    "token_budget": "max_num_batched_tokens",
    "prefix_caching": "enable_prefix_caching",
}


class EngineLimits(Settings):
    """Limits of an engine, of which its batches are a consequence."""

    max_num_seqs: _Count = Field(description="requests in one batch; 1 serves them one after another")
    max_num_batched_tokens: _Count = Field(description="tokens in one batch, decode first, prompts split to fit")
    block_size: _Count = Field(description="tokens in a KV-cache block")
    num_blocks: Annotated[Int, Field(ge=0, le=10**15)] = Field(
        description="KV-cache blocks, of block_size tokens each; 0: as many as the operator database's model says"
    )
    watermark: Float = Field(default=0.0, ge=0, lt=1, description="share of the KV blocks that admission leaves free")
    enable_prefix_caching: bool = Field(
        default=False,
        description="what of the KV cache is not given away is used again: by a preempted request; with "
        "vidur/scheduler=vllm_v1 also by prompts that begin with the same blocks; true with backend=recorded and "
        "profile=operator_db, and backend=vllm serves with it as well",
    )
    reserve_whole_prompt: bool = Field(
        default=True,
        description="vllm_v1: a prompt is admitted where all of it fits into the free KV blocks; false: its first "
        "part, vLLM's rule before 0.19",
    )
    async_scheduling: bool = Field(
        default=False,
        description="vllm_v1: the batch of an iteration is fixed when the one before it begins; vLLM's default on "
        "GPUs since 0.14: true with profile=operator_db unless backend.engine and backend.engine_version of a "
        "recorded run say otherwise, and of a recorded run where they say it",
    )
    tensor_parallel: _Degree = Field(
        default=1, description="GPUs that share each layer; simulated where the profile has them"
    )
    pipeline_parallel: _Degree = Field(
        default=1,
        description="groups of GPUs that share the layers, as many each, with a batch in each at a time; in Vidur's "
        "own loop, so with vidur/scheduler=sarathi",
    )
    expert_parallel: _Degree = Field(
        default=1, description="groups of GPUs that share the experts; the GPUs of a layer share each expert else"
    )
    data_parallel: _Degree = Field(
        default=1,
        description="replicas: engines that each serve some of the requests, as vidur/router says, each with all other "
        "limits",
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(default="auto", description="of the KV cache; auto: as dtype")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="bfloat16", description="of weights and KV cache")

    @property
    def num_devices(self) -> int:
        """Devices of all replicas; experts are spread over those of a replica."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def watermark_blocks(self) -> int:
        """KV blocks that admission leaves free."""
        return int(self.watermark * self.num_blocks)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_blocks * self.block_size


def with_limits(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A run's metadata with ``limits`` in ``engine``, ``settings`` and ``params``, however old the run is."""
    params = meta.get("params") or {}
    asked = params.get("backend")
    found = {key: meta[key] for key in ("engine", "settings") if isinstance(meta.get(key), dict)}
    read = {key: record if "limits" in record else _gathered(record, asked or {}) for key, record in found.items()}
    if asked and "limits" not in params:
        read["params"] = {**params, "limits": _named(asked)}
    return {**meta, **read}


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    named = {_OLD_NAMES.get(key, key): value for key, value in record.items()}
    return {key: value for key, value in named.items() if key in EngineLimits.model_fields}


def _gathered(record: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Limits that lie flat in `record`, gathered; what of them it does not say is left out."""
    limits = _named(record)
    if limits and record.get("name") == "sarathi":
        limits.setdefault("watermark", SARATHI_WATERMARK)
    if limits and record.get("name") == "recorded":
        limits.setdefault("enable_prefix_caching", asked.get("enable_prefix_caching", False))
    rest = {key: value for key, value in record.items() if _OLD_NAMES.get(key, key) not in limits}
    return rest | ({"limits": limits} if limits else {})
