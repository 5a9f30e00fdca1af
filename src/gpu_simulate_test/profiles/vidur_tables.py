"""Vidur's own published profiles: the tables of a checkout of it, taken as they are.

``data/profiling/compute/<device>/<model id>`` has the operators of a layer, at several tensor-parallel degrees, and
``data/profiling/network/<network device>`` the collectives between GPUs. Whole iterations, and in them embedding, LM
head, sampler and the host's work, are in no table.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from gpu_simulate_test.config.ids import file_sha256
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import ModelConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.profile_tables import ITERATION, KERNELS
from gpu_simulate_test.io.table_files import FLOAT, INT, STR, Table, column, find_table, read_table
from gpu_simulate_test.latency.grid import Grid
from gpu_simulate_test.latency.operators import ALL_REDUCES, COMPUTE_OPS, SEND, times_of
from gpu_simulate_test.profiles.bundle import PROFILE_META, Profile

_DEGREE = "num_tensor_parallel_workers"
_BY_TOKENS = ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "num_tokens", _DEGREE)
_BY_CONTEXT = ("n_q_head", "n_kv_head", "n_embd", "block_size", "batch_size", "prefill_chunk_size", "kv_cache_size")
_ATTENTION = tuple(map(times_of, ("attn_prefill", "attn_decode", "attn_kv_cache_save")))
# A block whose attention and feed-forward layer are parallel has one norm, and one with fused additions has none.
_NOT_IN_EVERY_BLOCK = {"input_layernorm", "post_attention_layernorm", "add"}


def _table(name: str, integers: tuple[str, ...], *others: pa.Field) -> Table:
    schema = pa.schema([*(column(one, INT, "of Vidur") for one in integers), *others])
    return Table(name, "Vidur's", "Vidur's profiler", schema, family=column("time_stats.<", FLOAT, "ms", null=True))


_MLP, _ATTENTION_TABLE = _table("mlp", _BY_TOKENS), _table("attention", (*_BY_CONTEXT, _DEGREE))


def are_vidurs(path: Path) -> bool:
    """True where `path` has Vidur's tables of operators, and is no bundle of ours, finished or not."""
    ours = (path / PROFILE_META).exists() or any(find_table(path, table) for table in (ITERATION, *KERNELS.values()))
    return not ours and all((path / table.filename).is_file() for table in (_MLP, _ATTENTION_TABLE))


def read_vidur_tables(path: Path, device: str, model: ModelConfig, limits: EngineLimits) -> Profile:
    """Read the operators of a model, of which the tables have the dimensions but not the number of layers.

    Returns
    -------
    Profile
        Without whole iterations and kernels. Its metadata say what the tables are of.

    Raises
    ------
    ArtifactError
        Malformed, or without these dimensions, this tensor-parallel degree or this size of KV-cache block.
    ConfigError
        The layers cannot be shared out evenly among the stages of a pipeline.
    """
    if model.num_layers % limits.pipeline_parallel:
        raise ConfigError(
            f"limits.pipeline_parallel={limits.pipeline_parallel} does not divide the {model.num_layers} layers of "
            f"{model.id}; choose another"
        )
    alike = {
        "n_kv_head": ("model.num_kv_heads", model.num_kv_heads),
        "n_embd": ("model.hidden_size", model.hidden_size),
    }
    heads = "model.num_q_heads", model.num_q_heads
    of_mlp = {"n_head": heads, **alike, "n_expanded_embd": ("model.intermediate_size", model.intermediate_size)}
    of_attention = {"n_q_head": heads, **alike, "block_size": ("limits.block_size", limits.block_size)}
    degree = {_DEGREE: ("limits.tensor_parallel", limits.tensor_parallel)}
    mlp = _rows(path, _MLP, of_mlp | degree)
    attention = _rows(path, _ATTENTION_TABLE, of_attention | degree)
    meta = {
        "model_id": model.id,
        "device": device,
        "num_layers": model.num_layers,
        # In no table: Vidur's profiler measures 16-bit numbers, and takes this for the size of a head.
        "dtype": "float16" if limits.dtype == "float32" else limits.dtype,
        "kv_cache_dtype": "auto",
        "head_dim": model.hidden_size // model.num_q_heads,
        "tensor_parallel": limits.tensor_parallel,
        "pipeline_parallel": limits.pipeline_parallel,
        "num_experts": 0,
        "quantization": None,
        "source": f"Vidur's published tables, {path}",
        "how": "operator times published with Vidur; whole iterations were not measured, so nothing is held out",
        "sha256": {table.filename: file_sha256(path / table.filename) for table in (_MLP, _ATTENTION_TABLE)},
    }
    return Profile(path, meta, _operators(path, mlp), _attention(path, attention), None, None, None)


def _rows(path: Path, table: Table, wanted: dict[str, tuple[str, int]]) -> pd.DataFrame:
    """Those of a model at a degree, by Vidur's columns and by our settings."""
    frame = read_table(path, table)
    for name, (setting, value) in wanted.items():
        found = sorted(set(frame[name]))
        frame = frame[frame[name] == value]
        if frame.empty:
            raise ArtifactError(
                f"no operators of {setting}={value}: {path / table.filename}: it has {', '.join(map(str, found))}"
            )
    return frame


def _operators(path: Path, mlp: pd.DataFrame) -> pd.DataFrame:
    absent = {times_of(op): 0.0 for op in _NOT_IN_EVERY_BLOCK if times_of(op) not in mlp}
    mlp = mlp.assign(**absent)
    _check(path / _MLP.filename, mlp, list(map(times_of, COMPUTE_OPS)))
    return mlp[["num_tokens", *map(times_of, COMPUTE_OPS)]].reset_index(drop=True)


def _attention(path: Path, attention: pd.DataFrame) -> pd.DataFrame:
    """A row measures prefill or decode, or both its columns are there and one of them is empty."""
    prompts = attention["prefill_chunk_size"] > 0
    attention = attention.assign(**{_ATTENTION[2]: attention.get(_ATTENTION[2], 0.0)})
    for rows, times in ((attention[prompts], _ATTENTION[0]), (attention[~prompts], _ATTENTION[1])):
        _check(path / _ATTENTION_TABLE.filename, rows, [times])
    keys = ["batch_size", "prefill_chunk_size", "kv_cache_size"]
    return attention[[*keys, *_ATTENTION]].fillna(0.0).reset_index(drop=True)


def _check(path: Path, frame: pd.DataFrame, names: list[str]) -> None:
    """Refuse a table without these columns, or with empty fields in them."""
    if missing := [name for name in names if name not in frame]:
        raise ArtifactError(f"columns missing: {path}: {', '.join(missing)}")
    if frame.empty or frame[names].isna().to_numpy().any():
        raise ArtifactError(f"no times in some of the rows: {path}: {', '.join(names)}")


def with_collectives(profile: Profile, network: Path, hidden_size: int) -> Profile:
    """Add to a profile of operators what its GPUs send one another, if there are several.

    Of tokens x hidden size x bytes: two all-reduces a layer, and with a pipeline what a stage sends to the next. Where
    kernels take the place of operators they have their own.

    Parameters
    ----------
    network : Path
        Folder of ``all_reduce.csv`` and ``send_recv.csv``.

    Raises
    ------
    ArtifactError
        A table is missing or malformed, or has nothing of so many GPUs.
    """
    meta, mlp = profile.meta, profile.mlp
    degree, stages = meta.get("tensor_parallel", 1), meta.get("pipeline_parallel", 1)
    if mlp is None or profile.kernels is not None or degree * stages == 1:
        return profile
    needed = {}
    if degree > 1:
        needed["all_reduce"] = ALL_REDUCES, 2, degree, degree, f"limits.tensor_parallel={degree}"
    if stages > 1:
        needed["send_recv"] = SEND, 1, 2, degree * stages, f"limits.pipeline_parallel={stages}"
    token_bytes, tokens = hidden_size * (4 if meta.get("dtype") == "float32" else 2), mlp["num_tokens"].to_numpy()
    columns, hashes = {}, dict(meta.get("sha256", {}))
    for name, (op, calls, peers, gpus, setting) in needed.items():
        path = network / f"{name}.csv"
        rows = _collective(path, peers, gpus, setting)
        line = Grid(rows.assign(num_tokens=rows["size"] / token_bytes), ["num_tokens"], times_of(name), monotone=False)
        columns[times_of(op)] = calls * line.line().many(tokens.astype(float))
        hashes[path.name] = file_sha256(path)
    return replace(
        profile, mlp=mlp.assign(**columns), meta={**meta, "network": str(network.absolute()), "sha256": hashes}
    )


def _collective(path: Path, peers: int, gpus: int, setting: str) -> pd.DataFrame:
    """Of so many GPUs at a time, in one node if all `gpus` are."""
    if not path.is_file():
        known = ", ".join(sorted(one.parent.name for one in path.parent.parent.glob(f"*/{path.name}")))
        raise ArtifactError(
            f"no {path.name}, which {setting} needs: {path}; name a network by hardware.vidur_network_device"
            f"{f', such as {known}' if known else ''}"
        )
    name, integers = path.stem, ("size", "num_workers", "devices_per_node", "max_devices_per_node")
    frame = read_table(path.parent, _table(name, integers, column("collective", STR, "of Vidur")))
    _check(path, frame, [times_of(name)])
    in_node = np.where(frame["max_devices_per_node"] >= gpus, peers, 1)
    rows = frame[
        (frame["collective"] == name) & (frame["num_workers"] == peers) & (frame["devices_per_node"] == in_node)
    ]
    if rows.empty:
        found = ", ".join(map(str, sorted(set(frame["num_workers"]))))
        raise ArtifactError(f"no {name} of {peers} GPUs in a node, which {setting} needs: {path}: it has {found}")
    return rows
