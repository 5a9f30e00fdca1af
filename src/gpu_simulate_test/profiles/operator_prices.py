"""The operator database itself, ``aiconfigurator-core``: a model's operators on one of its systems, at any size."""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_simulate_test.config.hf_config import DENSE, config_file
from gpu_simulate_test.config.schema import EngineLimits, ModelConfig, OperatorDbProfile, VidurProfileConfig
from gpu_simulate_test.errors import ConfigError, MachineError

_SOURCES = {"silicon": "measured", "mixed": "interpolated"}  # any other word of theirs is an estimate's
_TOKEN_OPS = {"Embedding", "Elementwise", "Gemm", "Moe", "MoeDispatch", "CustomAllReduce", "Nccl", "P2P"}
ATTENTION = {"ContextAttention", "GenerationAttention"}
Operator = dict[str, Any]
"""One of theirs: its kind, and what that depends on."""
_MEMORY = 0.9  # share of a GPU's that vLLM and SGLang take unless told otherwise
_SAME_SHAPES = {"MistralForCausalLM": "LlamaForCausalLM"}


class OperatorDatabase:
    """The operators of one model on one system, and what they take."""

    def __init__(self, config: VidurProfileConfig, folder: Path) -> None:
        assert isinstance(config.profile, OperatorDbProfile)
        if config.hardware.system is None:
            raise ConfigError(
                f"the operator database does not know {config.hardware.name}; "
                "name one of its systems: hardware=gpu hardware.name=h100_sxm"
            )
        logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
        try:
            self.package_version = version("aiconfigurator-core")
        except PackageNotFoundError as error:
            raise MachineError(
                "the operator database is not installed; pip install 'gpu-simulate-test[operators]'"
            ) from error
        self.system, self.engine, self._folder = config.hardware.system, config.profile.engine, folder
        self._told = f"{config.model.id}, a {config.model.architecture},"
        self.version = _version(self.system, self.engine, config.profile.version)
        self._degrees, self._quantized = _degrees(config), _quantized(config, folder)
        try:
            self.prompts, self.decoding = self._read(config.model)
        except (AssertionError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> ConfigError:
        said = " ".join(str(error).split())[:200]
        return ConfigError(f"the operator database cannot price {self._told} on {self.system}: {said}")

    def _read(self, ours: ModelConfig) -> tuple[list[Operator], list[Operator]]:
        """The operators of a batch of prompts, and of one that decodes."""
        from aiconfigurator_core.sdk.config_builders import build_model_config
        from aiconfigurator_core.sdk.engine import EngineHandle, build_engine_spec_json
        from aiconfigurator_core.sdk.models import get_model
        from aiconfigurator_core.sdk.perf_database import get_database

        degrees = {"moe_tp_size": 1, "moe_ep_size": 1} | self._degrees
        model = get_model(str(self._folder), build_model_config(**degrees, **self._quantized), self.engine)
        database = get_database(self.system, self.engine, self.version)
        said = build_engine_spec_json(
            model,
            model_path=str(self._folder),
            system=self.system,
            backend=self.engine,
            backend_version=self.version,
            kv_block_size=None,
            systems_path=None,
            nextn=0,
            database=database,
        )
        self._handle = EngineHandle.for_database(database)
        spec = json.loads(said)
        return _operators(spec["context_ops"], ours), _operators(spec["generation_ops"], ours)

    def ms(self, op: Mapping[str, Any], *, prompts: bool, seqs: int, tokens: int, cached: int = 0) -> tuple[float, str]:
        """What an operator takes in all layers, and how that is known.

        Parameters
        ----------
        op : mapping
            Of `prompts` or `decoding`.
        seqs : int
            Sequences.
        tokens : int
            Prompt tokens of each; of a decoding one, its context.
        cached : int
            Tokens before the prompt chunk.

        Raises
        ------
        ConfigError
            It has no figures of such an operator.
        """
        x = tokens if prompts else seqs
        try:
            (value,) = self._handle.evaluate_ops_json(
                json.dumps([op]), is_context=prompts, batch_size=seqs, s=tokens, prefix=cached, x=x
            )
        except (ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        return value[1], _SOURCES.get(value[3], "estimated")

    def kv_tokens(self, limits: EngineLimits) -> int:
        """Tokens that fit into the KV cache of a replica, by the database's memory model.

        Raises
        ------
        ConfigError
            None do.
        """
        from aiconfigurator_core.sdk.memory import estimate_kv_cache

        try:
            found = estimate_kv_cache(
                str(self._folder),
                self.system,
                self.engine,
                self.version,
                max_num_tokens=limits.max_num_batched_tokens,
                max_batch_size=limits.max_num_seqs,
                memory_fraction_kind="of_free" if self.engine == "trtllm" else "of_total",
                memory_fraction_value=_MEMORY,
                **self._degrees,
                **self._quantized,
            )
        except ValueError as error:
            raise ConfigError(
                f"the model does not fit on {limits.tensor_parallel * limits.pipeline_parallel} {self.system}: "
                f"{' '.join(str(error).split())}; raise limits.tensor_parallel"
            ) from error
        # Their model shares the weights among the stages of a pipeline, but has the cache of every layer on each.
        return int(found["total_kv_size_tokens"]) * limits.pipeline_parallel


def _operators(ops: list[Operator], model: ModelConfig) -> list[Operator]:
    """Those that take time, experts with balanced loads."""
    kinds = {kind for op in ops for kind in op}
    if strange := kinds - _TOKEN_OPS - ATTENTION:
        raise ConfigError(f"{model.id}, a {model.architecture}, cannot be simulated: {', '.join(sorted(strange))}")
    for op in ops:
        if "Moe" in op:
            # Routers are trained to balance; the other distributions of the tables are not even monotone in the tokens.
            op["Moe"]["workload_distribution"] = "balanced"
    return [op for op in ops if next(iter(op.values()))["scale_factor"] > 0]


def _version(system: str, engine: str, asked: str | None) -> str:
    from aiconfigurator_core.sdk.perf_database import get_version_slots

    slots = get_version_slots(system, engine)
    if not slots:
        raise ConfigError(
            f"no operator times of {engine} on {system}: choose another profile.engine, or another system"
        )
    if asked is not None and asked not in slots.values():
        raise ConfigError(f"profile.version={asked} is not there: it has {', '.join(slots.values())}")
    return asked or str(slots["current"])


def _degrees(config: VidurProfileConfig) -> dict[str, int]:
    """How the model is split over GPUs."""
    limits = config.limits
    if limits.tensor_parallel % limits.expert_parallel:
        raise ConfigError(
            f"limits.expert_parallel={limits.expert_parallel} does not divide "
            f"limits.tensor_parallel={limits.tensor_parallel}"
        )
    if config.model.num_layers % limits.pipeline_parallel:
        raise ConfigError(
            f"limits.pipeline_parallel={limits.pipeline_parallel} does not divide the {config.model.num_layers} layers "
            f"of {config.model.id}"
        )
    degrees = {"tp_size": limits.tensor_parallel, "pp_size": limits.pipeline_parallel, "attention_dp_size": 1}
    if config.model.num_experts:
        degrees["moe_tp_size"] = limits.tensor_parallel // limits.expert_parallel
        degrees["moe_ep_size"] = limits.expert_parallel
    return degrees


def _quantized(config: VidurProfileConfig, folder: Path) -> dict[str, str]:
    """What the settings ask for beyond the model's own config."""
    asked: dict[str, str] = {}
    weights, cache = config.model.quantization, config.limits.kv_cache_dtype
    if weights is not None:
        # Experts have no scales that are known beforehand.
        asked |= {"gemm_quant_mode": weights, "moe_quant_mode": "fp8" if weights == "fp8_static" else weights}
    if cache != "auto":
        asked["kvcache_quant_mode"] = cache
    elif not _says_cache(folder):
        asked["kvcache_quant_mode"] = "bfloat16"  # as in vLLM; the database would have FP8 with any FP8 weights
    return asked


def _says_cache(folder: Path) -> bool:
    """Whether a model's own files say how its KV cache is quantised."""
    said = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    schemes = [one.get(key) or {} for one in said for key in ("quantization_config", "quantization")]
    return any(one.get("kv_cache_quant_algo") or one.get("kv_cache_scheme") for one in schemes)


@contextmanager
def model_folder(model: ModelConfig) -> Iterator[Path]:
    """A folder with the model's config.json, its own where there is one, in the dimensions of the settings."""
    with tempfile.TemporaryDirectory(prefix="gsim-model-") as scratch:
        folder = Path(scratch)
        said: dict[str, Any] = {"architectures": [DENSE.get(model.architecture, model.architecture)]}
        with suppress(ConfigError) if model.config is None and model.architecture in DENSE else nullcontext():
            path = config_file(model.config, model.id)
            said = json.loads(path.read_text(encoding="utf-8"))
            beside = path.with_name(path.name.replace("config.json", "hf_quant_config.json"))
            if beside.is_file():
                (folder / "hf_quant_config.json").write_bytes(beside.read_bytes())
        said["architectures"] = [_SAME_SHAPES.get(one, one) for one in said["architectures"]]
        (folder / "config.json").write_text(json.dumps(said | _dimensions(model)), encoding="utf-8")
        yield folder


def _dimensions(model: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": model.architecture,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_q_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "hidden_size": model.hidden_size,
        "moe_intermediate_size" if model.num_experts else "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_position_embeddings,
        "tie_word_embeddings": model.tie_word_embeddings,
    }
