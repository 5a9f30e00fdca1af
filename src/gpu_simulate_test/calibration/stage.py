"""Calibrate a profile: constants from real runs, and what they are worth on what they were not learned from."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gpu_simulate_test.analysis.calibration import written
from gpu_simulate_test.calibration.estimate import Estimate, Flags, Observations, estimate
from gpu_simulate_test.calibration.observed import Observed, load_observed
from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.files import write_json, write_text
from gpu_simulate_test.io.provenance import SCHEMA_VERSION, git_state, now
from gpu_simulate_test.latency.calibration import NAMES, NOTHING, Constants
from gpu_simulate_test.profiles.bundle import CALIBRATION, Profile
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model

log = logging.getLogger(__name__)
LEVELS = (50, 90, 99)
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
        The real runs.

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
    with tqdm(bar_format="vidur-profile: {n} simulations, {elapsed}") as bar:
        runs = [
            load_observed(config, profile, Predictors.from_profile(profile).model("iteration"), path, number)
            for number, (profile, path) in enumerate(zip(profiles, paths, strict=True))
        ]
        if len({run.sha256 for run in runs}) < len(runs):
            raise ConfigError("the same run twice in calibration.real_run_dir; name each once")
        found, held_out, others = _learn(runs, lambda: bar.update(2))
    record = {
        "schema_version": SCHEMA_VERSION,
        "created_at": now(),
        **git_state(),
        "scheduler": config.vidur.scheduler.name,
        "async_scheduling": runs[0].loop.core.limits.async_scheduling,
        "constants": _record(found),
        "runs": [
            {
                "run_id": run.run_id,
                "path": str(run.path.absolute()),
                "sha256": run.sha256,
                "workload_sha256": run.workload_sha256,
                "window": [0, len(run.ok) - 1],
                "requests": int(run.ok.sum()) - (held_out["requests"] if held_out else 0),
                "learned_from": "requests" if run.iterations is None else "iterations",
            }
            for run in runs
        ],
        "held_out": held_out,
        "leave_one_out": others,
    }
    write_json(bundle / CALIBRATION, record)
    lines = told(record)
    write_text(bundle / "calibration.md", "\n".join(lines) + "\n")
    for line in lines:
        log.info(line)


def _learn(
    runs: Sequence[Observed], simulated: Callable[[], object]
) -> tuple[Estimate, dict[str, Any] | None, list[dict[str, Any]]]:
    """Constants of all runs; errors on what was held back of a single one, or of each by those of the others."""
    if len(runs) > 1:
        others = []
        for run in runs:
            constants = _estimate([other for other in runs if other is not run], simulated).constants
            others.append({"run_id": run.run_id, **_errors(run, constants, run.ok)})
        return _estimate(runs, simulated), None, others
    run = runs[0]
    if run.ok.sum() < _FEW:
        return _estimate(runs, simulated), None, []
    blocks = np.arange(len(run.ok)) * _BLOCKS // len(run.ok)
    learned = blocks % _HELD_BACK != _HELD_BACK - 1
    found = _estimate([run.part(learned)], simulated)
    return found, _errors(run, found.constants, run.ok & ~learned), []


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
        several = run.ok & (run.num_tokens > 1)
        real_ns = (run.e2e_ns - run.ttft_ns)[several] / (run.num_tokens - 1)[several]
        ttft_ns, e2e_ns = run.latencies(NOTHING)
        simulated_ns = (e2e_ns - ttft_ns)[several] / (run.num_tokens - 1)[several]
        if not several.any() or np.median(real_ns) < _SLOW * np.median(simulated_ns):
            return NOTHING
        found.append(float(np.median(real_ns)))
    return replace(NOTHING, step_ns=min(found))


def _errors(run: Observed, constants: Constants, chosen: Flags) -> dict[str, Any]:
    """Relative errors of percentiles over the `chosen` requests, with and without the constants."""
    return {
        "requests": int(chosen.sum()),
        "errors": _relative(run, constants, chosen),
        "without": _relative(run, NOTHING, chosen),
    }


def _relative(run: Observed, constants: Constants, chosen: Flags) -> dict[str, dict[str, float]]:
    ttft_ns, e2e_ns = run.latencies(constants)
    several = chosen & (run.num_tokens > 1)
    tokens = run.num_tokens[several] - 1
    pairs = {
        "ttft": (ttft_ns[chosen], run.ttft_ns[chosen]),
        "tpot": ((e2e_ns - ttft_ns)[several] / tokens, (run.e2e_ns - run.ttft_ns)[several] / tokens),
        "e2e": (e2e_ns[chosen], run.e2e_ns[chosen]),
    }
    return {
        name: {f"p{level}": float(np.percentile(sim, level) / np.percentile(real, level) - 1) for level in LEVELS}
        for name, (sim, real) in pairs.items()
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
    tables = [("held back", record["held_out"])] if record["held_out"] else []
    tables += [(one["run_id"], one) for one in record["leave_one_out"]]
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


_METRICS = ("ttft", "tpot", "e2e")
