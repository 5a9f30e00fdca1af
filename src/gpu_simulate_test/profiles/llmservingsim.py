"""A profile of kernels that somebody else measured, turned into our bundle.

The folder is one that LLMServingSim's profiler writes for a model on a device, or one of the ``tp<N>`` in it, each of
so many GPUs: ``dense.csv`` (per token count), ``per_sequence.csv``, ``attention.csv`` (prompt chunk, its cached tokens,
decoding sequences, their context) and, if measured, ``skew.csv`` (unequal contexts) and ``moe.csv`` (experts);
``meta.yaml`` says with which vLLM. Times there are microseconds, here ms.
"""

import re
from pathlib import Path

import pandas as pd

from gpu_simulate_test.config.schema import LlmServingSimProfile, VidurProfileConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.profile_tables import ATTENTION, KERNELS, MLP
from gpu_simulate_test.io.provenance import now
from gpu_simulate_test.io.table_files import read_table
from gpu_simulate_test.latency.kernels import KernelModel, Kernels
from gpu_simulate_test.latency.operators import times_of
from gpu_simulate_test.profiles.bundle import Contents
from gpu_simulate_test.profiles.llmservingsim_parallel import (
    Interconnect,
    expert_times,
    folder_of,
    kernel_table,
    with_experts,
)

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
_FEED_FORWARD = {"gate_up_proj", "act_fn", "down_proj"}  # of a layer without experts
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
        ``profile.folder`` is missing or of other GPUs than the limits say, or a pipeline is asked for.
    ArtifactError
        See `read_recorded_profile`, `Interconnect.read`, `expert_times`.
    """
    assert isinstance(config.profile, LlmServingSimProfile)
    if config.profile.folder is None:
        raise ConfigError("profile.folder is missing: name the folder of kernel tables")
    if config.limits.pipeline_parallel != 1:
        raise ConfigError(
            f"limits.pipeline_parallel={config.limits.pipeline_parallel}: the kernel tables have no stages; set it to 1"
        )
    source = folder_of(Path(config.profile.folder), config.limits.tensor_parallel)
    experts = config.model.num_experts > 0
    mlp, attention, kernels = read_recorded_profile(source, experts=experts)
    if config.limits.tensor_parallel > 1:
        mlp, kernels = Interconnect.read(source, config.limits).linked(mlp, kernels, config.model)
    tables = {MLP: mlp, ATTENTION: attention}
    if experts:  # Vidur has none
        times = expert_times(source, config.model, config.limits)
        kernels, tables = with_experts(kernels, mlp, times, config.model), {}
    tables |= {table: getattr(kernels, name) for name, table in KERNELS.items()}
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
        **({"operators": {"points": 0}} if experts else {}),
    }
    lines = [
        f"- source: {source.relative_to(Path(config.profile.folder).parent)}",
        f"- measured with: {f'vLLM {version}' if version else 'an engine that is not named'}",
        *(f"- {table.filename}: {len(frame)} points" for table, frame in tables.items()),
        "- predictor not checked on held-out iterations: none were recorded",
    ]
    if kernels.skew.empty:
        lines.append("- no attention over unequal contexts: such batches are taken at their mean")
    if experts:
        lines.append("- experts: as many of them as tokens visit that choose evenly; no operators as Vidur has them")
    if config.limits.tensor_parallel > 1 and "logits_gather" not in set(kernels.per_sequence["op"]):
        lines.append("- the gathering of the logits was not measured, and is left out")
    return Contents(tables, meta, lines)


def _vllm_version(folder: Path) -> str | None:
    """With which vLLM the kernels were measured; None where the folder, an older one, does not say."""
    place = folder if (folder / "meta.yaml").exists() else folder.parent  # of all degrees
    try:
        said = (place / "meta.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"""^vllm_version: *['"]?([\w.+-]+)""", said, re.MULTILINE)
    return found[1] if found else None


def read_recorded_profile(path: Path, *, experts: bool = False) -> tuple[pd.DataFrame, pd.DataFrame, Kernels]:
    """Read a folder of kernel tables.

    Parameters
    ----------
    experts : bool
        The layers have some, in a table of their own; `mlp` is then of the rest.

    Returns
    -------
    mlp, attention : pandas.DataFrame
        Vidur's operator tables; of each time its median only.
    kernels : Kernels

    Raises
    ------
    ArtifactError
        A table is missing or malformed, or has layers that a decoder does not.
    """
    dense = _read(path / "dense.csv", ["layer", "tokens", "time_us"])
    wide = dense.pivot_table(index="tokens", columns="layer", values="time_us").interpolate(method="index").dropna()
    _check_layers(path / "dense.csv", set(wide.columns), experts=experts)
    mlp = pd.DataFrame({"num_tokens": wide.index})
    for operator, layers in _OPERATORS.items():
        present = [layer for layer in layers if layer in wide]
        mlp[times_of(operator)] = wide[present].sum(axis=1).to_numpy() / 1e3

    per_token = dense[dense["layer"].isin(_ONCE)].rename(columns={"layer": "op", "tokens": "num_tokens"})
    per_sequence = _read(path / "per_sequence.csv", ["layer", "sequences", "time_us"])
    per_sequence = per_sequence.rename(columns={"layer": "op", "sequences": "num_seqs"})
    attention = _in_ms(_read_attention(path / "attention.csv").rename(columns=_ATTENTION))
    kernels = Kernels(_in_ms(per_token).assign(calls=1), _in_ms(per_sequence), attention, _read_skew(path / "skew.csv"))
    return mlp, _vidur_attention(attention), kernels


def _read_attention(path: Path) -> pd.DataFrame:
    """Newer tables say how far back a prompt's queries look on average, and may have several prompts in a launch."""
    newer, cached = ["layer", "prefill_key", "decode_q_len"], "kv_prefill"
    columns = [*_ATTENTION, "time_us"]
    frame = _read(path, [*columns, *newer], frozenset([cached, *newer]))
    if cached in frame:
        return frame[columns]
    if missing := [name for name in newer if name not in frame]:
        raise ArtifactError(f"columns missing: {path}: {cached}, or {', '.join(missing)}")
    if strange := sorted(set(frame["layer"]) - {"attention"}):
        raise ArtifactError(f"attention of no dense decoder: {path}: {', '.join(strange)}")
    frame[cached] = frame["prefill_key"] - frame["prefill_chunk"] / 2  # of one prompt; of several it is below 0
    rows = frame.loc[(frame[cached] >= 0) & (frame["decode_q_len"] == 1), columns]
    return rows.round({cached: 0}).astype({cached: int})


def _read_skew(path: Path) -> pd.DataFrame:
    """No rows where nobody measured it; newer tables have nothing to compare it with."""
    frame = _read(path, list(_SKEW), frozenset(_SKEW)) if path.is_file() else pd.DataFrame()
    if not set(_SKEW) <= set(frame):
        return pd.DataFrame(columns=list(_SKEW.values()), dtype=float)
    skew = frame.rename(columns=_SKEW)[list(_SKEW.values())]
    skew[["skewed_ms", "mean_ms", "longest_ms"]] /= 1e3
    return skew


def _check_layers(path: Path, found: set[str], *, experts: bool) -> None:
    known = {layer for layers in _OPERATORS.values() for layer in layers} | _ONCE
    if strange := sorted(found - known):
        raise ArtifactError(f"layers of no dense decoder: {path}: {', '.join(strange)}")
    if experts and (both := sorted(found & _FEED_FORWARD)):
        raise ArtifactError(f"which layers have experts is not said: {path} has {', '.join(both)} as well")
    if missing := sorted(known - _OPTIONAL - found - (_FEED_FORWARD if experts else set())):
        kind = "" if experts else "; a mixture of experts has model.num_experts"
        raise ArtifactError(
            f"layers missing: {path}: {', '.join(missing)}{kind if set(missing) >= _FEED_FORWARD else ''}"
        )


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


def _read(path: Path, columns: list[str], optional: frozenset[str] = frozenset()) -> pd.DataFrame:
    frame = read_table(path.parent, kernel_table(path.stem, columns, optional))
    if frame.empty:
        raise ArtifactError(f"no rows: {path}")
    return frame[[name for name in columns if name in frame]]
