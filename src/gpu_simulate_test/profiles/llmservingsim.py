"""A profile of kernels that somebody else measured, turned into our bundle.

The folder is one that LLMServingSim's profiler writes for a model on a device: ``dense.csv`` (per token count),
``per_sequence.csv``, ``attention.csv`` (prompt chunk, its cached tokens, decoding sequences, their context) and, if
measured, ``skew.csv`` (unequal contexts); ``meta.yaml`` says with which vLLM. Times there are microseconds, here ms.
"""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa

from gpu_simulate_test.config.schema import LlmServingSimProfile, VidurProfileConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.profile_tables import ATTENTION, KERNELS, MLP
from gpu_simulate_test.io.provenance import now
from gpu_simulate_test.io.table_files import FLOAT, INT, STR, Table, column, read_table
from gpu_simulate_test.latency.kernels import KernelModel, Kernels
from gpu_simulate_test.profiles.bundle import Contents

# Vidur's operator: the layers that make it up. Norms there include the residual addition.
_OPERATORS = {
    "input_layernorm": ("layernorm",),
    "attn_pre_proj": ("qkv_proj", "qk_norm"),
    "attn_rope": ("rotary_emb",),
    "attn_post_proj": ("o_proj",),
    "post_attention_layernorm": ("layernorm",),
    "mlp_up_proj": ("gate_up_proj",),
    "mlp_act": ("act_fn",),
    "mlp_down_proj": ("down_proj",),
    "add": (),
}
_OPTIONAL = {"qk_norm"}
_ONCE = {"embedding", "final_layernorm"}  # an iteration, not a layer
_ATTENTION = {
    "prefill_chunk": "prefill_chunk_size",
    "kv_prefill": "prefill_kv",
    "n_decode": "batch_size",
    "kv_decode": "decode_kv",
}
_SKEW = {
    "pc": "prefill_chunk_size",
    "n": "batch_size",
    "t_skew_us": "skewed_ms",
    "t_mean_us": "mean_ms",
    "t_max_us": "longest_ms",
}


def fill(config: VidurProfileConfig) -> Contents:
    """Read the kernel tables of ``profile.folder``.

    Raises
    ------
    ConfigError
        ``profile.folder`` is missing, or a pipeline is asked for.
    ArtifactError
        See `read_recorded_profile`.
    """
    assert isinstance(config.profile, LlmServingSimProfile)
    if config.profile.folder is None:
        raise ConfigError("profile.folder is missing: name the folder of kernel tables")
    if config.limits.pipeline_parallel != 1:
        raise ConfigError(
            f"limits.pipeline_parallel={config.limits.pipeline_parallel}: the kernel tables are of one GPU; set it to 1"
        )
    source = Path(config.profile.folder)
    mlp, attention, kernels = read_recorded_profile(source)
    tables = {MLP: mlp, ATTENTION: attention} | {table: getattr(kernels, name) for name, table in KERNELS.items()}
    version = _vllm_version(source)
    meta = {
        # Of the engine that measured them, whatever engine the settings name.
        "backend": "vllm" if version else None,
        "attn_implementation": None,
        "num_threads": None,
        "engine": {"name": "vllm", "details": {"vllm": version}} if version else None,
        "source": str(source.absolute()),
        "created_at": now(),
        "reach": KernelModel(None, kernels, config.model.num_layers).high(),
        "how": "kernel times measured by somebody else; whole iterations were not, so nothing is held out",
    }
    lines = [
        f"- source: {source.name}",
        f"- measured with: {f'vLLM {version}' if version else 'an engine that is not named'}",
        *(f"- {table.filename}: {len(frame)} points" for table, frame in tables.items()),
        "- predictor not checked on held-out iterations: none were recorded",
    ]
    if kernels.skew.empty:
        lines.append("- no attention over unequal contexts: such batches are taken at their mean")
    return Contents(tables, meta, lines)


def _vllm_version(folder: Path) -> str | None:
    """With which vLLM the kernels were measured; None where the folder, an older one, does not say."""
    try:
        said = (folder / "meta.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"""^vllm_version: *['"]?([\w.+-]+)""", said, re.MULTILINE)
    return found[1] if found else None


def read_recorded_profile(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, Kernels]:
    """Read a folder of kernel tables.

    Returns
    -------
    mlp, attention : pandas.DataFrame
        Vidur's operator tables; of each time its median only.
    kernels : Kernels

    Raises
    ------
    ArtifactError
        A table is missing or malformed, or has layers that a dense decoder does not.
    """
    dense = _read(path / "dense.csv", ["layer", "tokens", "time_us"])
    wide = dense.pivot_table(index="tokens", columns="layer", values="time_us").interpolate(method="index").dropna()
    known = {layer for layers in _OPERATORS.values() for layer in layers} | _ONCE
    if strange := sorted(set(wide.columns) - known):
        raise ArtifactError(f"layers of no dense decoder: {path / 'dense.csv'}: {', '.join(strange)}")
    if missing := sorted(known - _OPTIONAL - set(wide.columns)):
        raise ArtifactError(f"layers missing: {path / 'dense.csv'}: {', '.join(missing)}")
    mlp = pd.DataFrame({"num_tokens": wide.index})
    for operator, layers in _OPERATORS.items():
        present = [layer for layer in layers if layer in wide]
        mlp[f"time_stats.{operator}.median"] = wide[present].sum(axis=1).to_numpy() / 1e3

    per_token = dense[dense["layer"].isin(_ONCE)].rename(columns={"layer": "op", "tokens": "num_tokens"})
    per_sequence = _read(path / "per_sequence.csv", ["layer", "sequences", "time_us"])
    per_sequence = per_sequence.rename(columns={"layer": "op", "sequences": "num_seqs"})
    attention = _read(path / "attention.csv", [*_ATTENTION, "time_us"]).rename(columns=_ATTENTION)
    skew = pd.DataFrame(columns=list(_SKEW.values()), dtype=float)
    if (path / "skew.csv").is_file():
        skew = _read(path / "skew.csv", list(_SKEW)).rename(columns=_SKEW)[list(_SKEW.values())]
        skew[["skewed_ms", "mean_ms", "longest_ms"]] /= 1e3
    kernels = Kernels(_in_ms(per_token), _in_ms(per_sequence), _in_ms(attention), skew)
    return mlp, _vidur_attention(kernels.attention), kernels


def _vidur_attention(attention: pd.DataFrame) -> pd.DataFrame:
    """The rows of prompts alone and of decoding alone, which are all that Vidur's table can hold."""
    prefill = attention[attention["batch_size"] == 0].rename(
        columns={"prefill_kv": "kv_cache_size", "median_ms": "time_stats.attn_prefill.median"}
    )
    decode = attention[attention["prefill_chunk_size"] == 0].rename(
        columns={"decode_kv": "kv_cache_size", "median_ms": "time_stats.attn_decode.median"}
    )
    keys = ["batch_size", "prefill_chunk_size", "kv_cache_size"]
    rows = [
        prefill.assign(batch_size=1)[[*keys, "time_stats.attn_prefill.median"]],
        decode[[*keys, "time_stats.attn_decode.median"]],
    ]
    # A row measures prefill or decode; the other's column is 0, as in Vidur's own tables.
    return pd.concat(rows, ignore_index=True).fillna(0.0)


def _in_ms(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(median_ms=table["time_us"] / 1e3).drop(columns="time_us")


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    types = {name: STR if name == "layer" else FLOAT if name.endswith("_us") else INT for name in columns}
    schema = pa.schema([column(name, type_, "of the source") for name, type_ in types.items()])
    frame = read_table(path.parent, Table(path.stem, "kernels", "the profiler that wrote it", schema))
    if frame.empty:
        raise ArtifactError(f"no rows: {path}")
    return frame[columns]
