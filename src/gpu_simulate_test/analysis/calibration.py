"""What a simulation with a calibrated predictor can prove: against a run that its constants come from, nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_simulate_test.analysis.findings import Finding, look_up
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import NS_PER_MS, between, count, number, percent
from gpu_simulate_test.analysis.verdict import IN_SAMPLE
from gpu_simulate_test.config.ids import file_sha256
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.run_dir import RUN_META
from gpu_simulate_test.io.tables import REQUEST_METRICS, find_table

_NS_PER_US = 1e3
_FACTOR = "kernel_factor"
_CONSTANTS = {
    "step_ns": "an iteration",
    "sequence_ns": "a sequence",
    "kernel_factor": "kernels",
    "front_end_ns": "front end",
    "after_first_token_ns": "tokens after the first",
}


@dataclass(frozen=True)
class Calibration:
    """What a simulated run says of its calibration, and what of it is compared.

    Attributes
    ----------
    runs : tuple of str
        Those that its constants come from.
    compared : tuple of str
        Those of them that are among the real runs of the comparison: it is in-sample with any.
    same_workload : tuple of str
        Those of them that served the workload of the simulated run.
    constants : str
        In words, with their intervals.
    scheduler : str
    async_scheduling : bool
        Of the engine that they are of.
    held_out : (float, int) or None
        Relative error of the median E2E on the requests that were held back, and how many they are.
    left_out : (float, int) or None
        Median absolute error of the median E2E of runs left out in turn, and how many they are.
    """

    runs: tuple[str, ...]
    compared: tuple[str, ...]
    same_workload: tuple[str, ...]
    constants: str
    scheduler: str
    async_scheduling: bool
    held_out: tuple[float, int] | None
    left_out: tuple[float, int] | None

    @property
    def in_sample(self) -> bool:
        """Whether the simulation is held against a run that its constants come from."""
        return bool(self.compared)

    def proof(self) -> str:
        """Say how far it was off on what its constants do not come from."""
        told = []
        if self.held_out:
            error, requests = self.held_out
            told.append(f"E2E P50 {percent(error, sign=True)} on {count(requests, 'request')} held back")
        if self.left_out:
            error, runs = self.left_out
            told.append(f"E2E P50 {percent(error)} off on runs left out in turn (median of {count(runs)})")
        return ", ".join(told) or "nothing was held back"


def calibration_of(sim: Run, repeats: Sequence[Run] = ()) -> Calibration | None:
    """What the simulated run says of its calibration; None where it was not calibrated.

    A real run is one of the calibration's when its table of requests has the same content, whatever its name.

    Raises
    ------
    ArtifactError
        The record is malformed.
    """
    record = sim.meta.get("calibration")
    if not record:
        return None
    files = [find_table(run.path, REQUEST_METRICS) for run in repeats]
    hashes = {file_sha256(file) for file in files if file}
    try:
        runs = [(str(one["run_id"]), one) for one in record["runs"]]  # two may have one name
        held, others = record["held_out"], [abs(_e2e_p50(one)) for one in record["leave_one_out"]]
        workload = sim.meta.get("workload_sha256")
        return Calibration(
            tuple(name for name, _ in runs),
            tuple(name for name, one in runs if one["sha256"] in hashes),
            tuple(name for name, one in runs if workload and one["workload_sha256"] == workload),
            _constants(record["constants"]),
            str(record["scheduler"]),
            bool(record["async_scheduling"]),
            (_e2e_p50(held), int(held["requests"])) if held else None,
            (float(np.median(others)), len(others)) if others else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"malformed calibration: {sim.path / RUN_META}: {error!r}; run vidur-sim again") from error


def of_calibration(calibration: Calibration | None, sim: Run) -> list[Finding]:
    """Whether the comparison can prove anything; nothing of a simulation that was not calibrated."""
    if calibration is None:
        return []
    differing = _other_engine(calibration, sim)
    if calibration.in_sample:
        value = IN_SAMPLE
        told = [f"the constants come from {', '.join(calibration.compared)}, compared here", calibration.proof()]
    else:
        value = "another engine" if differing else "other runs"
        told = [calibration.constants, f"from {', '.join(calibration.runs)}"]
        if calibration.same_workload:
            told.append(f"{', '.join(calibration.same_workload)} served the same workload")
    holds = not (calibration.in_sample or differing)
    return [Finding("calibration", holds, sim=value, detail="; ".join([*differing, *told]))]


def _other_engine(calibration: Calibration, sim: Run) -> list[str]:
    """How the engine that was simulated schedules otherwise than the one that the constants are of."""
    differing = []
    scheduler = look_up(sim.meta, "settings.scheduler")
    if scheduler and scheduler != calibration.scheduler:
        differing.append(f"calibrated with the scheduler {calibration.scheduler}, simulated with {scheduler}")
    ahead = look_up(sim.meta, "settings.limits.async_scheduling")
    if ahead and (ahead == "True") != calibration.async_scheduling:
        words = ("with", "without") if calibration.async_scheduling else ("without", "with")
        differing.append("calibrated {} asynchronous scheduling, simulated {} it".format(*words))
    return differing


def _constants(constants: dict[str, Any]) -> str:
    """The constants that were found, with their intervals, and those that were not, at what they are then."""
    found = [f"{name} {written(key, constants[key])}" for key, name in _CONSTANTS.items() if constants[key]["found"]]
    rest = [
        f"{name} {'x 1' if key == _FACTOR else '0'}" for key, name in _CONSTANTS.items() if not constants[key]["found"]
    ]
    noise = [f"not told from noise: {', '.join(rest)}"] if rest else []
    return "; ".join([*([", ".join(found)] if found else []), *noise])


def written(key: str, constant: dict[str, Any]) -> str:
    """A constant of a calibration with its interval: ``3.1 ms (2.9 to 3.3)``."""
    scale, digits, unit = _unit(key, constant)
    value, low, high = (constant[name] / scale for name in ("value", "low", "high"))
    interval = between(number(low, digits), number(high, digits))
    return f"{'x ' if key == _FACTOR else ''}{number(value, digits, unit)} ({interval})"


def _unit(key: str, constant: dict[str, Any]) -> tuple[float, int, str]:
    """What it is divided by, its decimals, and what it is then in."""
    if key == _FACTOR:
        return 1.0, 3, ""
    large = max(abs(constant[name]) for name in ("value", "low", "high")) >= NS_PER_MS
    return (NS_PER_MS, 3, "ms") if large else (_NS_PER_US, 1, "µs")


def _e2e_p50(one: dict[str, Any]) -> float:
    """Relative error, simulated / real - 1."""
    return float(one["errors"]["e2e"]["p50"])
