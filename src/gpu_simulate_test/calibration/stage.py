"""Calibrate a profile: constants from real runs, and what they are worth on what they were not learned from."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_simulate_test.analysis.calibration import written
from gpu_simulate_test.calibration.estimate import MOST_STEPS, Estimate, Observations, estimate
from gpu_simulate_test.calibration.observed import Observed, load_observed
from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.files import write_json, write_text
from gpu_simulate_test.io.progress import progress
from gpu_simulate_test.io.provenance import SCHEMA_VERSION, git_state, now
from gpu_simulate_test.io.run_dir import read_run_meta, repeat_dirs
from gpu_simulate_test.latency.calibration import NAMES, NOTHING, Constants
from gpu_simulate_test.profiles.bundle import CALIBRATION, Profile
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model

log = logging.getLogger(__name__)
_METRICS, _LEVELS = ("ttft", "tpot", "e2e"), (50, 90, 99)
_BLOCKS, _HELD_BACK = 12, 3  # of that many blocks of neighbours every third one is held back
_FEW = 24  # requests of which nothing is held back
_SLOW = 1.5  # times the kernels' time: then the host is what a step waits for
_TOLD = {
    "step_ns": "host time a step",
    "sequence_ns": "host time a scheduled sequence",
    "kernel_factor": "kernel time",
    "front_end_ns": "before the engine sees a request",
    "after_first_token_ns": "after the first token",
}


def calibrate(config: VidurProfileConfig, profiles: Sequence[Profile], paths: Sequence[Path]) -> None:
    """Learn constants from real runs and write ``calibration.json`` into the bundle.

    Parameters
    ----------
    profiles : sequence of Profile
        The bundle, as each of the runs needs it.
    paths : sequence of Path
        The real runs, each with its repeats.

    Raises
    ------
    ConfigError
        It is calibrated already and ``overwrite`` is false, a run is named twice, or cannot be simulated.
    ArtifactError
        A run is missing, incomplete or contradicts itself, or lacks what is needed.
    """
    bundle = profiles[0].path
    if profiles[0].calibration is not None and not config.overwrite:
        raise ConfigError(f"already calibrated: {bundle / CALIBRATION}; set overwrite=true to calibrate it again")
    register_model(config.model)
    register_device(config.hardware)
    groups = _load(config, profiles, paths)
    if len({runs[0].sha256 for runs in groups}) < len(groups):
        raise ConfigError("the same run twice in calibration.real_run_dir; name each once")
    with progress("calibration", _most_simulations(groups), "simulations at most") as bar:
        learned, found, held_out, others = _learn(groups, lambda: bar.update(2))
    record = {
        "schema_version": SCHEMA_VERSION,
        "created_at": now(),
        **git_state(),
        "scheduler": config.vidur.scheduler.name,
        "async_scheduling": learned[0].loop.core.limits.async_scheduling,
        "constants": _record(found),
        "runs": [
            {
                "run_id": run.run_id,
                "path": str(run.path.absolute()),
                "sha256": run.sha256,
                "workload_sha256": run.workload_sha256,
                "window": [0, len(run.ok) - 1],
                "requests": int(run.ok.sum()),
                "learned_from": "requests" if run.iterations is None else "iterations",
            }
            for run in learned
        ],
        "held_out": held_out,
        "leave_one_out": others,
    }
    write_json(bundle / CALIBRATION, record)
    write_text(bundle / "calibration.md", "\n".join(told(record)) + "\n")
    for line in _in_short(record):
        log.info(line)


def _load(config: VidurProfileConfig, profiles: Sequence[Profile], paths: Sequence[Path]) -> list[list[Observed]]:
    """The repeats of each run: how fast the machine was in one of them is chance."""
    groups: list[list[Observed]] = []
    for profile, path in zip(profiles, paths, strict=True):
        kernels, before = Predictors.from_profile(profile).model("iteration"), sum(map(len, groups))
        repeats = repeat_dirs(path, read_run_meta(path))
        groups.append([load_observed(config, profile, kernels, one, before + n) for n, one in enumerate(repeats)])
    return groups


def _learn(
    groups: Sequence[Sequence[Observed]], simulated: Callable[[], object]
) -> tuple[Sequence[Observed], Estimate, dict[str, Any] | None, list[dict[str, Any]]]:
    """What was learned from, the constants, errors on what was held back, or of each run by the constants of others."""
    every = [run for runs in groups for run in runs]
    if len(groups) > 1:
        others = []
        for runs in groups:
            constants = _estimate([run for run in every if run not in runs], simulated).constants
            others.append({"run_id": runs[0].run_id, **_errors(runs, constants)})
        return every, _estimate(every, simulated), None, others
    count = len(every[0].ok)
    if count < _FEW:
        return every, _estimate(every, simulated), None, []
    held_back = np.arange(count) * _BLOCKS // count % _HELD_BACK == _HELD_BACK - 1
    learned = [run.part(~held_back) for run in every]
    found = _estimate(learned, simulated)
    return learned, found, _errors([run.part(held_back) for run in every], found.constants), []


def _most_simulations(groups: Sequence[Sequence[Observed]]) -> int:
    """Of `_learn`: two a run and step."""
    count = sum(map(len, groups))
    others = sum(count - len(runs) for runs in groups)  # 0 of one group alone
    return 2 * MOST_STEPS * (count + others)


def _estimate(runs: Sequence[Observed], simulated: Callable[[], object]) -> Estimate:
    def problem(constants: Constants) -> list[Observations]:
        observed = []
        for run in runs:
            observed += run.observations(constants)
            simulated()
        return observed

    return estimate(problem, _start(runs))


def _start(runs: Sequence[Observed]) -> Constants:
    """Nothing; but where a host beside the kernels is what a step waits for, that: from nothing no way leads there."""
    if not all(run.loop.core.limits.async_scheduling for run in runs):
        return NOTHING
    found = []
    for run in runs:
        simulated_ns, real_ns = run.pairs(NOTHING)["tpot"]
        if not len(real_ns) or np.median(real_ns) < _SLOW * np.median(simulated_ns):
            return NOTHING
        found.append(float(np.median(real_ns)))
    return replace(NOTHING, step_ns=min(found))


def _errors(runs: Sequence[Observed], constants: Constants) -> dict[str, Any]:
    """Relative errors of percentiles over the requests of all repeats, with and without the constants."""
    return {
        "requests": sum(int(run.ok.sum()) for run in runs),
        "errors": _relative(runs, constants),
        "without": _relative(runs, NOTHING),
    }


def _relative(runs: Sequence[Observed], constants: Constants) -> dict[str, dict[str, float]]:
    found = [run.pairs(constants) for run in runs]
    both = {
        metric: [np.concatenate(side) for side in zip(*(one[metric] for one in found), strict=True)]
        for metric in _METRICS
    }
    return {
        metric: {f"p{level}": float(np.percentile(sim, level) / np.percentile(real, level) - 1) for level in _LEVELS}
        for metric, (sim, real) in both.items()
        if len(real)
    }


def _record(found: Estimate) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "value": float(getattr(found.constants, name)),
            "low": float(found.low[place]),
            "high": float(found.high[place]),
            "found": name in found.found,
        }
        for place, name in enumerate(NAMES)
    }


def told(record: dict[str, Any]) -> list[str]:
    """A calibration as Markdown: its constants, and the errors on what it was not learned from."""
    lines = ["# Calibration", "", f"- learned from {', '.join(run['run_id'] for run in record['runs'])}"]
    for name, one in record["constants"].items():
        lines.append(f"- {_TOLD[name]}: {written(name, one)}{'' if one['found'] else ', not told from noise'}")
    tables = _predicted(record)
    if not tables:
        return [*lines, "- nothing was held back: too few requests"]
    lines += [
        "",
        "Errors of P50, P90, P99 in % on what the constants were not learned from, and with none of them:",
        "",
    ]
    lines += ["| requests | TTFT | TPOT | E2E |", "| --- | --- | --- | --- |"]
    for name, one in tables:
        for what, kind in ((name, "errors"), ("not calibrated", "without")):
            cells = (
                " ".join(f"{100 * error:+.1f}" for error in one[kind].get(metric, {}).values()) for metric in _METRICS
            )
            lines.append(f"| {one['requests']}, {what} | {' | '.join(cells)} |")
    return lines


def _predicted(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What the constants were not learned from: its name and the errors on it."""
    held_out = [("held back", record["held_out"])] if record["held_out"] else []
    return held_out + [(one["run_id"], one) for one in record["leave_one_out"]]


def _in_short(record: dict[str, Any]) -> list[str]:
    """A calibration in a few lines."""
    known = [f"{_TOLD[name]} {written(name, one)}" for name, one in record["constants"].items() if one["found"]]
    noise = [_TOLD[name] for name, one in record["constants"].items() if not one["found"]]
    lines = [f"calibrated: {'; '.join(known) or 'nothing'}"]
    lines += [f"not told from noise: {', '.join(noise)}"] if noise else []
    for name, one in _predicted(record):
        medians = (
            ", ".join(
                f"{metric.upper()} {100 * one[kind][metric]['p50']:+.1f} %"
                for metric in _METRICS
                if metric in one[kind]
            )
            for kind in ("errors", "without")
        )
        lines.append(f"errors of medians, {one['requests']} requests {name}: {'; not calibrated: '.join(medians)}")
    return lines
