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
from gpu_simulate_test.io.tables import REQUEST_METRICS, find_table

_NS_PER_US = 1e3
_CONSTANTS = {
    "step_ns": "an iteration",
    "sequence_ns": "a sequence",
    "kernel_factor": "kernels",
    "front_end_ns": "front end",
    "after_first_token_ns": "tokens after the first",
}


@dataclass(frozen=True)
class Calibration:
    """The calibration of a simulated run, and what of it is compared.

    Attributes
    ----------
    record : dict
        The bundle's ``calibration.json``.
    compared : tuple of str
        Those of its runs that are among the real runs of the comparison: it is in-sample with any.
    """

    record: dict[str, Any]
    compared: tuple[str, ...] = ()

    @property
    def in_sample(self) -> bool:
        """Whether the simulation is held against a run that its constants come from."""
        return bool(self.compared)

    @property
    def runs(self) -> str:
        """The runs that its constants come from."""
        return ", ".join(str(one["run_id"]) for one in self.record["runs"])

    @property
    def held_out(self) -> tuple[float, int] | None:
        """Error of the median E2E on the requests that were held back, and how many they are; None without any."""
        held = self.record.get("held_out")
        return (_e2e_p50(held), int(held["requests"])) if held else None

    @property
    def left_out(self) -> tuple[float, int] | None:
        """Median absolute error of the median E2E of runs left out in turn, and how many; None where none were."""
        errors = [abs(_e2e_p50(one)) for one in self.record.get("leave_one_out") or []]
        return (float(np.median(errors)), len(errors)) if errors else None

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
    """
    record = sim.meta.get("calibration")
    if not record:
        return None
    files = [find_table(run.path, REQUEST_METRICS) for run in repeats]
    compared = {file_sha256(file) for file in files if file}
    return Calibration(record, tuple(str(one["run_id"]) for one in record["runs"] if one["sha256"] in compared))


def of_calibration(calibration: Calibration | None, sim: Run) -> list[Finding]:
    """Whether the comparison can prove anything; nothing of a simulation that was not calibrated."""
    if calibration is None:
        return []
    differing = _other_engine(calibration.record, sim)
    if calibration.in_sample:
        value = IN_SAMPLE
        told = f"the constants come from {', '.join(calibration.compared)}, compared here; {calibration.proof()}"
    else:
        value = "another engine" if differing else "other runs"
        same = [str(one["run_id"]) for one in calibration.record["runs"] if _same_workload(one, sim)]
        told = f"{_constants(calibration.record['constants'])}; from {calibration.runs}"
        told += f"; {', '.join(same)} served the same workload" if same else ""
    holds = not (calibration.in_sample or differing)
    return [Finding("calibration", holds, sim=value, detail="; ".join([*differing, told]))]


def _other_engine(record: dict[str, Any], sim: Run) -> list[str]:
    """How the engine that was simulated schedules otherwise than the one that the constants are of."""
    differing = []
    scheduler = look_up(sim.meta, "settings.scheduler")
    if scheduler and scheduler != record["scheduler"]:
        differing.append(f"calibrated with the scheduler {record['scheduler']}, simulated with {scheduler}")
    ahead = look_up(sim.meta, "settings.limits.async_scheduling")
    if ahead and (ahead == "True") != record["async_scheduling"]:
        words = ("with", "without") if record["async_scheduling"] else ("without", "with")
        differing.append("calibrated {} asynchronous scheduling, simulated {} it".format(*words))
    return differing


def _same_workload(run: dict[str, Any], sim: Run) -> bool:
    served = run.get("workload_sha256")
    return bool(served) and served == sim.meta.get("workload_sha256")


def _constants(constants: dict[str, Any]) -> str:
    """The constants that were found, with their intervals, and those that were not, at what they are then."""
    told = {key: f"{name} {_written(key, constants[key])}" for key, name in _CONSTANTS.items()}
    found = [text for key, text in told.items() if constants[key]["found"]]
    rest = [text for key, text in told.items() if not constants[key]["found"]]
    noise = [f"not told from noise: {', '.join(rest)}"] if rest else []
    return "; ".join([*([", ".join(found)] if found else []), *noise])


def _written(key: str, constant: dict[str, Any]) -> str:
    factor = key == "kernel_factor"
    if not constant["found"]:
        return "x 1" if factor else "0"
    figures = np.array([constant[name] for name in ("value", "low", "high")], dtype=np.float64)
    large = np.abs(figures).max() >= NS_PER_MS
    scale, digits, unit = (1, 3, "") if factor else (NS_PER_MS, 3, "ms") if large else (_NS_PER_US, 1, "µs")
    value, low, high = figures / scale
    interval = between(number(low, digits), number(high, digits))
    return f"{'x ' if factor else ''}{number(value, digits, unit)} ({interval})"


def _e2e_p50(one: dict[str, Any]) -> float:
    """Relative error, simulated / real - 1."""
    return float(one["errors"]["e2e"]["p50"])
