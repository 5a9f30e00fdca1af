"""The jobs of a sweep as points of its charts: which belong to one setting, which are best."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.io.run_dir import RUN_META
from gpu_simulate_test.studies.jobs import Outcome
from gpu_simulate_test.studies.settings import load_key, settings_of, shortened, swept

INTERACTIVITY, THROUGHPUT = "interactivity_tokens_per_s", "output_tokens_per_s_per_gpu"
ATTAINMENT = SloConfig().attainment  # where a run does not say
NAMED = 24  # settings that a chart can tell apart
NUM_COLOURS = 7
_LIMITS = ("ttft_ms", "tbt_ms", "e2e_ms", "attainment")


@dataclass(frozen=True)
class Group:
    """Jobs that differ in nothing but the load.

    Attributes
    ----------
    label : str
        Its settings; empty where there are none that differ.
    jobs : tuple of int
        Rows of the table, by ascending load.
    looks : (int, int) or None
        Which colour and which mark it has; None where there are too many settings to tell them apart.
    code : str
        One or two letters that stand for it in the charts; empty likewise.
    """

    label: str
    jobs: tuple[int, ...]
    looks: tuple[int, int] | None
    code: str


@dataclass(frozen=True)
class Sweep:
    """A sweep as its page needs it.

    Attributes
    ----------
    table : pandas.DataFrame
        `gpu_simulate_test.studies.table.sweep_table`.
    keys : dict of str to str
        The settings that differ, each with its short name.
    load : str or None
        The one of them that is along the charts: how much is asked of the deployment.
    common : dict of str to value
        Overrides that all jobs were given alike.
    groups : list of Group
    slo : list of dict
        Of each job, ``ttft_ms``, ``tbt_ms``, ``e2e_ms`` where there is such an objective, and ``attainment``.
    meets : ndarray of shape (n_jobs,)
        1 where a job meets its objectives, 0 where it does not, NaN where that is not known.
    front : list of int
        Rows that no other surpasses in interactivity and in throughput per GPU, by ascending interactivity.
    best : int or None
        The row of most throughput per GPU, of those that meet their objectives where any job has some.
    """

    table: pd.DataFrame
    keys: dict[str, str]
    load: str | None
    common: dict[str, Any]
    groups: list[Group]
    slo: list[dict[str, float]]
    meets: npt.NDArray[np.float64]
    front: list[int]
    best: int | None


def sweep_of(outcomes: Sequence[Outcome], root: Path, table: pd.DataFrame) -> Sweep:
    """Look at the jobs of a sweep.

    Parameters
    ----------
    outcomes : sequence of Outcome of length n_jobs
    root : Path
        ``output.root``: the objectives of a job that were not overridden are read from its run.
    table : pandas.DataFrame of shape (n_jobs, n_columns)
    """
    settings = [settings_of(outcome.overrides) for outcome in outcomes]
    keys = swept(settings)
    slo = [_objectives(outcome, given, root) for outcome, given in zip(outcomes, settings, strict=True)]
    attained = table["slo_attainment"].to_numpy()
    wanted = np.array([one.get("attainment", ATTAINMENT) for one in slo], dtype=np.float64)
    meets = np.where(np.isnan(attained), np.nan, attained >= wanted)
    front = pareto_front(table[INTERACTIVITY].to_numpy(), table[THROUGHPUT].to_numpy())
    best = _best(table[THROUGHPUT].to_numpy(), meets)
    load = _along(table, keys)
    named = {*front, *([] if best is None else [best])}
    return Sweep(
        table=table,
        keys=(names := shortened(keys)),
        load=load,
        common={key: value for given in settings[:1] for key, value in given.items() if key not in keys},
        groups=_groups(table, {key: name for key, name in names.items() if key != load}, load, named),
        slo=slo,
        meets=meets,
        front=front,
        best=best,
    )


def _along(table: pd.DataFrame, keys: Sequence[str]) -> str | None:
    """The load; of many jobs without one the number that takes most values, for they are too many for a row each."""
    numbers = [key for key in keys if pd.api.types.is_numeric_dtype(table[key])]
    if (load := load_key(numbers)) is not None or len(table) <= NAMED:
        return load
    return max(numbers, key=lambda key: table[key].nunique(), default=None)


def pareto_front(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[int]:
    """Points that no other surpasses in one coordinate without falling behind in the other, by ascending x.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        More is better; a point with a NaN is left out. Of equal points the first is taken.
    """
    known = np.flatnonzero(~np.isnan(x) & ~np.isnan(y))
    order = known[np.lexsort((known, -y[known], -x[known]))]
    front: list[int] = []
    for index in order:
        if not front or y[index] > y[front[-1]]:
            front.append(int(index))
    return front[::-1]


def _best(throughput: npt.NDArray[np.float64], meets: npt.NDArray[np.float64]) -> int | None:
    able = ~np.isnan(throughput)
    if not np.isnan(meets).all():
        able &= meets == 1
    return int(np.argmax(np.where(able, throughput, -np.inf))) if able.any() else None


def _groups(table: pd.DataFrame, keys: dict[str, str], load: str | None, named: set[int]) -> list[Group]:
    values = [tuple(written(table[key].iloc[row]) for key in keys) for row in range(len(table))]
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    shown = list(rows)
    if len(rows) > NAMED:  # those with most points on the front
        of_value = Counter(values[row] for row in named)
        told = {value for value, _ in of_value.most_common(NAMED)}
        shown = [value for value in rows if value in told]
    looks, codes = _looks(shown), dict(zip(shown, codes_of(len(shown)), strict=True)) if len(rows) > 1 else {}
    along = np.zeros(len(table)) if load is None else table[load].astype("float64").to_numpy()
    groups = []
    for value, jobs in rows.items():
        jobs = [jobs[index] for index in np.argsort(along[jobs], kind="stable")]
        label = ", ".join(f"{name}={one}" for name, one in zip(keys.values(), value, strict=True))
        groups.append(Group(label, tuple(jobs), looks.get(value), codes.get(value, "")))
    return groups


def _looks(values: list[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """A mark each, and a colour: for each value of the first setting, where there are enough colours."""
    first = list(dict.fromkeys(value[:1] for value in values))
    few = 1 < len(first) <= NUM_COLOURS
    return {value: (first.index(value[:1]) if few else index, index) for index, value in enumerate(values)}


def load_of(sweep: Sweep, row: int, *, bare: bool = False) -> str:
    """The load of a job with its name, or without; empty where it has none."""
    load = "" if sweep.load is None else written(sweep.table[sweep.load].iloc[row])
    return load if bare or sweep.load is None or not load else f"{sweep.keys[sweep.load]}={load}"


def codes_of(n: int) -> list[str]:
    """A, B, ..., Z, AA, AB, ...: n of them."""
    letters = ("".join(word) for length in count(1) for word in product(ascii_uppercase, repeat=length))
    return list(islice(letters, n))


def written(value: Any) -> str:
    """A setting's value as text; empty where a job was not given it."""
    return "" if pd.isna(value) else f"{value:.15g}" if isinstance(value, float) else str(value)


def _objectives(outcome: Outcome, given: dict[str, Any], root: Path) -> dict[str, float]:
    try:
        meta = read_json(root / outcome.run_dir / RUN_META) if outcome.run_dir else {}
    except ArtifactError:
        meta = {}
    params = meta.get("params")
    recorded = params.get("slo") if isinstance(params, dict) else None
    said = dict(recorded) if isinstance(recorded, dict) else {}
    said |= {name: given[f"slo.{name}"] for name in _LIMITS if f"slo.{name}" in given}
    return {name: float(said[name]) for name in _LIMITS if isinstance(said.get(name), int | float)}
