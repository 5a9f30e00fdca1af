"""A profile from a public database of operator times, ``aiconfigurator-core``: any of its GPUs, models and engines.

The database knows one operator at one size, and says of each figure whether it was measured, interpolated or estimated.
Where a size lies outside its tables, the nearest work of the same kind that lies inside is priced; the reasons are in
``specs/research.md``. The host's own work is in no table, and so in no figure here.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from gpu_simulate_test.config.hf_config import config_file
from gpu_simulate_test.config.schema import EngineLimits, ModelConfig, OperatorDbProfile, VidurProfileConfig
from gpu_simulate_test.errors import ConfigError, MachineError
from gpu_simulate_test.io.metadata import sources_told
from gpu_simulate_test.io.profile_tables import KERNELS
from gpu_simulate_test.io.provenance import now
from gpu_simulate_test.latency.kernels import KernelModel, Kernels
from gpu_simulate_test.profiles.bundle import Contents

_SOURCES = {"silicon": "measured", "mixed": "interpolated"}  # any other word of theirs is an estimate's
_TOKEN_OPS = {"Embedding", "Elementwise", "Gemm", "Moe", "MoeDispatch", "CustomAllReduce", "Nccl", "P2P"}
_ATTENTION = {"ContextAttention", "GenerationAttention"}
_MAX_KV_HEADS = 8  # of the tables of decode attention
_MEMORY = 0.9  # share of a GPU's that vLLM and SGLang take unless told otherwise
_SAME_SHAPES = {"MistralForCausalLM": "LlamaForCausalLM"}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}  # of our own presets
# What every table reaches at least, so that one profile serves more than one set of limits.
_TOKENS, _SEQS, _CONTEXT = 8192, 256, 16384


def fill(config: VidurProfileConfig) -> Contents:
    """Price the model's operators at all sizes that a batch may have; a few seconds.

    Raises
    ------
    MachineError
        The database is not installed.
    ConfigError
        It does not know the device, the engine or its version, or the model is of a kind that we do not simulate.
    """
    assert isinstance(config.profile, OperatorDbProfile)
    with _model_folder(config.model) as folder:
        database = _Database(config, folder)
        kernels = _kernels(database, config)
        kv_tokens = database.kv_tokens(config.limits)
    tables = {table: getattr(kernels, name) for name, table in KERNELS.items()}
    layers = config.model.num_layers
    shares = {kind: _shares(kernels, layers, *batch) for kind, batch in _REFERENCE.items()}
    engine, version = config.profile.engine, database.version
    meta = {
        "backend": engine,
        "attn_implementation": None,
        "num_threads": None,
        "engine": {"name": engine, "details": {engine: version}},
        "source": f"aiconfigurator-core {database.package_version}, {database.system}",
        "created_at": now(),
        "reach": KernelModel(None, kernels, layers).high(),
        "operators": {"points": 0},
        "sources": shares,
        "kv_tokens": kv_tokens,
        "how": "operator times of a public database, summed over the model's layers; nothing of the host is in them",
    }
    lines = [
        f"- source: {meta['source']}, operators of {engine} {version}",
        f"- of the time of {sources_told(shares)}",
        *(f"- {table.filename}: {len(frame)} points" for table, frame in tables.items()),
        f"- KV cache: {kv_tokens} tokens a replica by the database's memory model, an estimate",
        "- predictor not checked on held-out iterations: none were measured; the host's work is not in it",
        "- no attention over unequal contexts: such batches are taken at their mean",
    ]
    return Contents(tables, meta, lines)


_REFERENCE = {"prompts": (2048, 0), "decoding": (0, 64)}
_REFERENCE_CONTEXT = 1024


class _Database:
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
            from aiconfigurator_core.sdk.config_builders import build_model_config
            from aiconfigurator_core.sdk.engine import EngineHandle, build_engine_spec_json
            from aiconfigurator_core.sdk.models import get_model
            from aiconfigurator_core.sdk.perf_database import get_database, get_version_slots
        except ModuleNotFoundError as error:
            raise MachineError(
                "the operator database is not installed; pip install 'gpu-simulate-test[operators]'"
            ) from error
        self.package_version, self.system, self._folder = version("aiconfigurator-core"), config.hardware.system, folder
        self.engine = config.profile.engine
        slots = get_version_slots(self.system, self.engine) or {}
        if not slots:
            raise ConfigError(
                f"no operator times of {self.engine} on {self.system}: choose another profile.engine, or another system"
            )
        self.version = config.profile.version or slots["current"]
        if self.version not in slots.values():
            raise ConfigError(f"profile.version={self.version} is not there: it has {', '.join(slots.values())}")
        limits = config.limits
        self._degrees = {"tp_size": limits.tensor_parallel, "pp_size": limits.pipeline_parallel, "attention_dp_size": 1}
        if config.model.num_experts:
            self._degrees |= {
                "moe_tp_size": limits.tensor_parallel // limits.expert_parallel,
                "moe_ep_size": limits.expert_parallel,
            }
        self._quantized: dict[str, str | None] = {}
        if config.model.quantization is not None:
            self._quantized |= dict.fromkeys(("gemm_quant_mode", "moe_quant_mode"), config.model.quantization)
        if limits.kv_cache_dtype != "auto":
            self._quantized["kvcache_quant_mode"] = limits.kv_cache_dtype
        try:
            model = get_model(
                str(folder),
                build_model_config(**({"moe_tp_size": 1, "moe_ep_size": 1} | self._degrees), **self._quantized),
                self.engine,
            )
            database = get_database(self.system, self.engine, self.version)
            spec = json.loads(
                build_engine_spec_json(
                    model,
                    model_path=str(folder),
                    system=self.system,
                    backend=self.engine,
                    backend_version=self.version,
                    kv_block_size=None,
                    systems_path=None,
                    nextn=0,
                    database=database,
                )
            )
            self._handle = EngineHandle.for_database(database)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise _refused(config.model, error) from error
        self.prompts, self.decoding = (_operators(spec[key], config.model) for key in ("context_ops", "generation_ops"))

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
        """
        x = tokens if prompts else seqs
        value = self._handle.evaluate_ops_json(
            json.dumps([op]), is_context=prompts, batch_size=seqs, s=tokens, prefix=cached, x=x
        )[0]
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
        return int(found["total_kv_size_tokens"])


def _operators(ops: list[dict[str, Any]], model: ModelConfig) -> list[dict[str, Any]]:
    """Those that take time, experts with balanced loads."""
    kinds = {kind for op in ops for kind in op}
    if strange := kinds - _TOKEN_OPS - _ATTENTION:
        raise ConfigError(f"{model.id}, a {model.architecture}, cannot be simulated: {', '.join(sorted(strange))}")
    for op in ops:
        if "Moe" in op:
            # Routers are trained to balance; the other distributions of the tables are not even monotone in the tokens.
            op["Moe"]["workload_distribution"] = "balanced"
    return [op for op in ops if next(iter(op.values()))["scale_factor"] > 0]


def _refused(model: ModelConfig, error: Exception) -> ConfigError:
    said = " ".join(str(error).split())
    return ConfigError(f"the operator database cannot price {model.id}, a {model.architecture}: {said[:200]}")


@contextmanager
def _model_folder(model: ModelConfig) -> Iterator[Path]:
    """A folder with the model's config.json, its own where there is one, in the dimensions of the settings."""
    with tempfile.TemporaryDirectory(prefix="gsim-model-") as scratch:
        folder = Path(scratch)
        said: dict[str, Any] = {"architectures": [_CLASSES.get(model.architecture, model.architecture)]}
        with suppress(ConfigError) if model.config is None and model.architecture in _CLASSES else nullcontext():
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


def sizes(high: int, low: int = 1) -> list[int]:
    """Powers of two and what lies half-way between them, from `low` to `high`."""
    powers = [low << number for number in range((high // low).bit_length())]
    return sorted({size for power in powers for size in (power, power + power // 2) if size <= high} | {high})


def _kernels(database: _Database, config: VidurProfileConfig) -> Kernels:
    limits, layers = config.limits, config.model.num_layers
    longest = min(config.model.max_position_embeddings, max(_CONTEXT, limits.max_num_batched_tokens))
    tokens, seqs = sizes(max(_TOKENS, limits.max_num_batched_tokens)), sizes(max(_SEQS, limits.max_num_seqs))
    return Kernels(
        _rows(database, "num_tokens", tokens, prompts=True),
        _rows(database, "num_seqs", seqs, prompts=False),
        pd.concat([_prompts(database, tokens, longest, layers), _decoding(database, seqs, longest, layers)]),
        pd.DataFrame(columns=["prefill_chunk_size", "batch_size", "skewed_ms", "mean_ms", "longest_ms"], dtype=float),
    )


def _rows(database: _Database, size: str, counts: list[int], *, prompts: bool) -> pd.DataFrame:
    """Operators of a whole batch, by its tokens; of its last tokens alone (the LM head), by its requests."""
    rows = []
    for op in database.prompts if prompts else database.decoding:
        ((kind, values),) = op.items()
        if kind in _ATTENTION or ("logits" in values["name"]) == prompts:
            continue
        for count in counts:
            seqs, each = (1, count) if prompts else (count, 1)
            took, source = database.ms(op, prompts=prompts, seqs=seqs, tokens=each)
            calls = round(values["scale_factor"])
            rows.append((values["name"].partition("_")[2], count, took / calls, calls, source))
    return pd.DataFrame(rows, columns=["op", size, "median_ms", "calls", "source"])


def _attention(found: list[tuple[float, str]], layers: int) -> tuple[float, str]:
    """One layer, on average over kinds of layers; known as well as the least known of them."""
    order = ["measured", "interpolated", "estimated"]
    return sum(took for took, _ in found) / layers, max((source for _, source in found), key=order.index)


def _prompts(database: _Database, chunks: list[int], longest: int, layers: int) -> pd.DataFrame:
    ops = [op for op in database.prompts if "ContextAttention" in op]
    rows = []
    for chunk in chunks:
        for cached in [0, *sizes(longest, 64)]:
            found = [database.ms(op, prompts=True, seqs=1, tokens=chunk, cached=cached) for op in ops]
            rows.append((chunk, cached, 0, 0, *_attention(found, layers)))
    return pd.DataFrame(rows, columns=_ATTENTION_COLUMNS)


def _decoding(database: _Database, seqs: list[int], longest: int, layers: int) -> pd.DataFrame:
    ops = [op["GenerationAttention"] for op in database.decoding if "GenerationAttention" in op]
    rows = []
    for count in seqs:
        for context in sizes(longest):
            found = [_of_heads(database, op, count, context) for op in ops]
            rows.append((0, 0, count, context, *_attention(found, layers)))
    return pd.DataFrame(rows, columns=_ATTENTION_COLUMNS)


_ATTENTION_COLUMNS = ["prefill_chunk_size", "prefill_kv", "batch_size", "decode_kv", "median_ms", "source"]


def _of_heads(database: _Database, op: dict[str, Any], seqs: int, context: int) -> tuple[float, str]:
    """Decode attention. The KV heads of a sequence are work of the same kind as more sequences."""
    parts = max(1, op["n_kv"] // _MAX_KV_HEADS)
    op = op | {"n": op["n"] // parts, "n_kv": op["n_kv"] // parts}
    return database.ms({"GenerationAttention": op}, prompts=False, seqs=seqs * parts, tokens=context)


def _shares(kernels: Kernels, layers: int, prompt_tokens: int, decoding: int) -> dict[str, float]:
    """Of the time of a batch, what was measured, what interpolated and what estimated."""
    attention = kernels.attention
    size = prompt_tokens or decoding
    ops = kernels.per_token[kernels.per_token["num_tokens"] == size]
    once = kernels.per_sequence[kernels.per_sequence["num_seqs"] == max(1, decoding)]
    if prompt_tokens:
        of = attention[(attention["prefill_chunk_size"] == size) & (attention["prefill_kv"] == 0)]
    else:
        of = attention[(attention["batch_size"] == size) & (attention["decode_kv"] == _REFERENCE_CONTEXT)]
    found = pd.concat([ops, once, of.assign(calls=layers)])
    took = (found["median_ms"] * found["calls"]).groupby(found["source"]).sum()
    total = float(took.sum())
    return {source: float(took.get(source, 0.0)) / total for source in ("measured", "interpolated", "estimated")}
