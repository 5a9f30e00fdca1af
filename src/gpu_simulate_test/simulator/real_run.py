"""A finished real run as a simulation of the same workload sees it, and how slow its machine was, and when."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import COMPOSITION
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.run_dir import read_run_meta, repeat_dirs
from gpu_simulate_test.io.tables import ITERATION_METRICS, REQUEST_METRICS, read_table
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.calibration import Calibrated
from gpu_simulate_test.latency.model import LatencyModel, batches_of

_NEIGHBOURS = 15  # iterations

Cover = Callable[[pd.DataFrame], np.ndarray]
"""Which batches of a table the profile covers."""


@dataclass(frozen=True)
class RealRun:
    """What the simulation takes from a real run of the same workload."""

    path: Path
    meta: dict[str, Any]
    limits: EngineLimits
    num_decode_actual: np.ndarray
    presence: tuple[np.ndarray, np.ndarray]  # arrivals and completions of the requests that completed, ns
    reference_ns: float | None  # of the machine while it served, the mean of its repeats
    iterations: pd.DataFrame | None  # None: they were not recorded, or not whole


def load_real_run(path: Path, workload: Workload) -> RealRun:
    """Read a real run's engine settings and output lengths.

    Raises
    ------
    ArtifactError
        Incomplete, or of another workload.
    """
    meta = read_run_meta(path)
    if meta.get("workload_sha256") != workload.sha256:
        raise ArtifactError(f"real run of another workload: {path}; it served {meta.get('workload_dir')}")
    limits = limits_of(path, meta)
    requests = read_table(path, REQUEST_METRICS)
    # A request that failed in the real run has no length to learn from: it is simulated as asked.
    actual = requests["num_decode_tokens_actual"].where(requests["status"] == "ok", requests["num_decode_tokens"])
    repeats = [read_run_meta(one) for one in repeat_dirs(path, meta)]
    bursts = [repeat["reference_ns"] for repeat in repeats if "reference_ns" in repeat]
    iterations = None
    if meta.get("backend") != "recorded":
        iterations = read_table(path, ITERATION_METRICS)
        if not set(COMPOSITION) <= set(iterations):  # written before a column was added
            iterations = None
    done = requests[requests["status"] == "ok"]
    ends = done["completion_time_ns"] if "completion_time_ns" in done else done["first_token_time_ns"]
    presence = done["arrival_time_ns"].to_numpy(), ends.to_numpy(dtype=np.int64)
    burst = float(np.mean(bursts)) if bursts else None
    return RealRun(path, meta, limits, actual.to_numpy(), presence, burst, iterations)


def limits_of(path: Path, meta: Mapping[str, Any]) -> EngineLimits:
    """The engine's limits, of a real run's metadata.

    Raises
    ------
    ArtifactError
        It does not say them.
    """
    try:
        return EngineLimits.model_validate(meta["engine"]["limits"])
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(f"no engine settings in run_meta.json: {path}; leave real_run_dir out") from error


def machine_speed(profiled_ns: float | None, real: RealRun | None) -> float:
    """How much slower the machine was during the real run than while it was profiled.

    1 without a real run or without reference bursts on both sides. It knows nothing of the workload: it
    is one fixed burst, timed on both occasions.
    """
    if real is None or real.reference_ns is None or not profiled_ns:
        return 1.0
    return real.reference_ns / profiled_ns


def predicted_iterations(iterations: pd.DataFrame, latency: LatencyModel, cover: Cover) -> pd.DataFrame:
    """The latency model on the real run's own iterations, for the attribution of the error: ``real_iterations.csv``."""
    batches = batches_of(iterations)
    table = pd.DataFrame(
        {
            "iteration_id": iterations["iteration_id"],
            "predicted_ns": [round(latency.step_ns(batch, 0.0)) for batch in batches],
            "in_profile": cover(iterations),
        }
    )
    if isinstance(latency, Calibrated):
        table.insert(2, "host_ns", [round(latency.host_ns(batch, 0.0)) for batch in batches])
    return table


def slowness_record(real: RealRun, iterations: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """How much slower than predicted a run's iterations were, by the time since it began.

    Over a few neighbours, for the batch that is simulated at that time may be of another kind.
    """
    start = iterations["start_time_ns"]
    took, expected = (
        one.rolling(_NEIGHBOURS, center=True, min_periods=1).sum()
        for one in (until_the_next(real, iterations), predicted["predicted_ns"])
    )
    return pd.DataFrame({"time_ns": start.mask(start == start.min(), 0), "ratio": took / expected})


def until_the_next(real: RealRun, iterations: pd.DataFrame) -> "pd.Series[float]":
    """What each iteration took, ns: until the next one began, unless no request was left; in order of their start."""
    start, end = iterations["start_time_ns"], iterations["end_time_ns"]
    arrivals, completions = (np.sort(times) for times in real.presence)
    left = np.searchsorted(arrivals, end, side="right") > np.searchsorted(completions, end, side="right")
    return (start.shift(-1).fillna(end.iloc[-1]) - start).where(left, end - start)


def sent_as_recorded(requests: pd.DataFrame, size: int, path: Path) -> ArrivalProcess:
    """When a closed loop sent its requests: whoever learns from their latencies takes that as given.

    Raises
    ------
    ConfigError
        Some are missing, or they were not sent in the order of their ids.
    """
    arrival_ns = requests["arrival_time_ns"].to_numpy(dtype=np.int64)
    if len(arrival_ns) != size or (np.diff(arrival_ns) < 0).any():
        raise ConfigError(f"a run that did not send its requests in their order: {path}; calibrate on another")
    return ArrivalProcess.at(arrival_ns)
