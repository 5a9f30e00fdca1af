"""Of LLMServingSim's profiles what several GPUs and a mixture of experts need.

``hardware.yaml`` lies above the models of a device and has the collectives that were measured between so many GPUs;
``moe.csv`` a layer's experts, by the groups that share them (``ep``; one where there is no such column), the tokens and
the experts that are visited at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from omegaconf import OmegaConf
from pydantic import BaseModel

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import ModelConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.table_files import FLOAT, INT, STR, Table, column, read_table
from gpu_simulate_test.latency.grid import Grid
from gpu_simulate_test.latency.kernels import Kernels
from gpu_simulate_test.latency.operators import ALL_REDUCES, times_of

_LEVELS_UP = 4  # device / organisation / model / data types / tp<N>
_OLDER = frozenset({"ep"})  # what older tables do not have
_VOCAB_STEP = 64  # vLLM pads the vocabulary to a multiple of it


def kernel_table(name: str, columns: list[str], optional: frozenset[str] = frozenset()) -> Table:
    """The contract of one of the profiler's tables: a layer's name, times that end in ``_us``, and counts."""
    types = {one: STR if one == "layer" else FLOAT if one.endswith(("_us", "_key")) else INT for one in columns}
    schema = pa.schema([column(one, type_, "of the source") for one, type_ in types.items()])
    return Table(name, "kernels", "the profiler that wrote it", schema, optional)


def folder_of(path: Path, degree: int) -> Path:
    """The folder of the tables of so many GPUs: `path` itself, or one in it.

    Raises
    ------
    ConfigError
        There is none.
    """
    inside = {int(one.name[2:]): one for one in path.glob("tp*") if re.fullmatch(r"tp\d+", one.name)}
    if inside:
        if degree in inside:
            return inside[degree]
        found = ", ".join(f"tp{one}" for one in sorted(inside))
        raise ConfigError(f"limits.tensor_parallel={degree}: {path} has no tp{degree}; it has {found}")
    named = re.fullmatch(r"tp(\d+)", path.name)
    of = int(named[1]) if named else 1
    if of != degree:
        raise ConfigError(f"limits.tensor_parallel={degree}: the tables of {path} are of {of}; set it to that")
    return path


class _Sample(BaseModel):
    collective: str = "all_reduce"  # all that older files have
    bytes: int
    us: float


class _Measured(BaseModel):
    npus: int
    samples: list[_Sample]


@dataclass(frozen=True)
class Interconnect:
    """What was measured between the GPUs of a layer.

    Attributes
    ----------
    samples : mapping of str to pandas.DataFrame
        By collective: ``bytes``, ``us``.
    degree, width : int
        GPUs; bytes of a number.
    """

    samples: Mapping[str, pd.DataFrame]
    degree: int
    width: int

    @classmethod
    def read(cls, path: Path, limits: EngineLimits) -> "Interconnect":
        """Read ``hardware.yaml`` in or above the folder `path`.

        Raises
        ------
        ArtifactError
            There is none, it is malformed, or has no all-reduce of so many GPUs.
        """
        degree = limits.tensor_parallel
        places = [path, *path.absolute().parents[:_LEVELS_UP]]
        file = next((place / "hardware.yaml" for place in places if (place / "hardware.yaml").is_file()), None)
        needs = f"limits.tensor_parallel={degree} needs times of an all-reduce"
        if file is None:
            raise ArtifactError(
                f"{needs}: no hardware.yaml of the profiler in {path} or the {_LEVELS_UP} folders above"
            )
        try:
            said: Any = OmegaConf.to_container(OmegaConf.load(file))
            found = _Measured.model_validate(said["measured"]["interconnect"])
        except Exception as error:  # whatever the parser says of a file that is not ours
            raise ArtifactError(f"{needs}: {file} has no measured.interconnect that can be read") from error
        rows = pd.DataFrame([vars(sample) for sample in found.samples], columns=list(_Sample.model_fields))
        samples = {str(name): group for name, group in rows.groupby("collective")}
        if found.npus != degree or "all_reduce" not in samples:
            raise ArtifactError(f"{needs}: {file} has {', '.join(samples) or 'nothing'} of {found.npus} GPUs")
        return cls(samples, degree, 4 if limits.dtype == "float32" else 2)

    def _ms(self, collective: str, sizes: np.ndarray) -> np.ndarray:
        line = Grid(self.samples[collective], ["bytes"], "us").line()
        return line.many(sizes.astype(float)) / 1e3

    def linked(self, mlp: pd.DataFrame, kernels: Kernels, model: ModelConfig) -> tuple[pd.DataFrame, Kernels]:
        """Both with what the GPUs send one another.

        Two all-reduces a layer of tokens x hidden size, and one after the embedding; and, if it was measured, the
        logits of each request, gathered from each GPU's part of the vocabulary.
        """
        tokens, seqs = mlp["num_tokens"].to_numpy(), kernels.per_sequence["num_seqs"].unique()
        reduced = self._ms("all_reduce", tokens * model.hidden_size * self.width)
        once = pd.DataFrame({"op": "all_reduce", "num_tokens": tokens, "median_ms": reduced, "calls": 1})
        per_token, per_sequence = pd.concat([kernels.per_token, once]), kernels.per_sequence
        if "all_gather" in self.samples:
            part = -(-model.vocab_size // _VOCAB_STEP) * _VOCAB_STEP // self.degree
            gathered = self._ms("all_gather", seqs * part * self.width)
            logits = pd.DataFrame({"op": "logits_gather", "num_seqs": seqs, "median_ms": gathered})
            per_sequence = pd.concat([per_sequence, logits])
        linked = replace(kernels, per_token=per_token, per_sequence=per_sequence)
        return mlp.assign(**{times_of(ALL_REDUCES): 2 * reduced}), linked


def with_experts(kernels: Kernels, mlp: pd.DataFrame, experts: pd.DataFrame, model: ModelConfig) -> Kernels:
    """Kernels that have all layers' `experts` among them, and what else these have by tokens, `mlp`."""
    times = mlp.drop(columns="num_tokens").sum(axis=1)
    rest = pd.DataFrame({"op": "layer without experts", "num_tokens": mlp["num_tokens"], "median_ms": times})
    per_layer = pd.concat([rest, experts]).assign(calls=model.num_layers)
    return replace(kernels, per_token=pd.concat([kernels.per_token, per_layer], ignore_index=True))


def expert_times(path: Path, model: ModelConfig, limits: EngineLimits) -> pd.DataFrame:
    """A layer's experts by tokens in the batch: ``op``, ``num_tokens``, ``median_ms``.

    So many of a GPU's experts are visited as it is to be expected of tokens that choose theirs evenly.

    Raises
    ------
    ConfigError
        The experts are shared in another way than they were measured.
    ArtifactError
        There is no such table, or it is malformed or of another model.
    """
    groups = limits.expert_parallel
    if groups != limits.tensor_parallel:
        raise ConfigError(
            f"limits.expert_parallel={groups}: experts were measured whole, not split over the GPUs of a layer; "
            f"set it to limits.tensor_parallel, {limits.tensor_parallel}"
        )
    file = path / "moe.csv"
    if not file.is_file():
        file = path.parent / "tp1" / "moe.csv"  # measured once, for all degrees
    table = read_table(file.parent, kernel_table("moe", ["ep", "tokens", "activated_experts", "time_us"], _OLDER))
    degrees = table["ep"] if "ep" in table else pd.Series(1, table.index)
    rows = table[degrees == groups]
    if rows.empty:
        found = ", ".join(map(str, sorted(set(degrees))))
        raise ArtifactError(f"no experts of limits.expert_parallel={groups}: {file}: it has {found}")
    own = model.num_experts / groups
    if rows["activated_experts"].max() > own:
        raise ArtifactError(
            f"experts of another model: {file}: {rows['activated_experts'].max()} are visited, of {own:g} on a GPU"
        )
    by_tokens = dict(list(rows.sort_values("activated_experts").groupby("tokens")))
    tokens = np.array(list(by_tokens), dtype=float)
    visited = own * (1 - (1 - model.num_experts_per_tok / model.num_experts) ** tokens)
    times = [
        np.interp(count, near["activated_experts"], near["time_us"]) / 1e3
        for count, near in zip(visited, by_tokens.values(), strict=True)
    ]
    return pd.DataFrame({"op": "moe", "num_tokens": tokens.astype(int), "median_ms": times})
