"""Gates: what has to hold before the figures of a comparison mean anything."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.calibration import Calibration, of_calibration
from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.findings import Finding, look_up
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import count, ms, percent, short
from gpu_simulate_test.analysis.samples import Ints, ints
from gpu_simulate_test.analysis.verdict import MAX_FLOOR, VOID

PASSED, FLAGGED = "passed", "flagged"
COLUMNS = ("gate", "status", "value", "detail")
NAMES = (  # every gate, in the order in which they are listed
    "workload",
    "model",
    "hardware",
    "arrivals",
    "token counts",
    "failures",
    "dispatch lag",
    "KV blocks",
    "KV block size",
    "requests in a batch",
    "tokens in a batch",
    "GPUs",
    "prefix caching",
    "asynchronous scheduling",
    "preemptions",
    "cached tokens",
    "simulated loop",
    "profile",
    "measured share",
    "profiled range",
    "predictor",
    "calibration",
    "repeats",
    "machine speed",
)
_SPLIT = {"TP": "tensor_parallel", "PP": "pipeline_parallel", "DP": "data_parallel"}
_MAX_FAILED = 0.05
_MAX_LAG = 0.05  # of the median TTFT
_MAX_SPEED = 0.05
_MAX_CACHED = 0.05


def check_gates(
    comparison: Comparison, repeats: Sequence[Run], sim: Run, calibration: Calibration | None = None
) -> pd.DataFrame:
    """Check whether the two runs can be compared, and what stands in the way.

    Parameters
    ----------
    comparison : Comparison
    repeats : sequence of Run
        The real runs, the first one first.
    sim : Run
    calibration : Calibration, optional
        Of the simulated run, held against these real runs.

    Returns
    -------
    pandas.DataFrame of shape (n_gates, 4)
        ``gate``, ``status`` (passed; flagged: read the figures with this in mind; void: they mean nothing),
        ``value``, ``detail``. What a run does not record is flagged.
    """
    found = [
        *comparison.findings,
        *_split(repeats[0], sim),
        _token_counts(comparison),
        _failures([*repeats, sim]),
        _dispatch_lag(comparison, repeats),
        _preemptions(repeats, sim),
        *_cached_tokens(repeats, sim),
        *of_calibration(calibration, sim),
        _repeats(comparison),
        _machine_speed(repeats, sim),
    ]
    found.sort(key=lambda one: NAMES.index(one.name))
    return pd.DataFrame([(one.name, _status(one), one.value, one.detail) for one in found], columns=list(COLUMNS))


def _status(finding: Finding) -> str:
    return PASSED if finding.holds else VOID if finding.grave else FLAGGED


def _split(real: Run, sim: Run) -> list[Finding]:
    """Over how many GPUs the model is split, and how often it is there; nothing where that is one everywhere."""
    of_real, of_sim = (
        " ".join(f"{way} {look_up(run.meta, f'{where}.limits.{key}') or 1}" for way, key in _SPLIT.items())
        for run, where in ((real, "engine"), (sim, "settings"))
    )
    if {of_real, of_sim} == {" ".join(f"{way} 1" for way in _SPLIT)}:
        return []
    holds = of_real == of_sim
    return [
        Finding("GPUs", holds, of_real, of_sim, "the same in both runs" if holds else "the model is split differently")
    ]


def _token_counts(comparison: Comparison) -> Finding:
    name, frame = "token counts", comparison.per_request
    made = frame[["real_num_decode_tokens_actual", "sim_num_decode_tokens_actual"]]
    cut = int((made.max(axis=1) != frame["num_tokens_compared"]).sum())
    if cut:
        share = f"{count(cut)} of {count(len(frame))}"
        return Finding(name, False, share, detail="requests cut to the tokens that every run made")
    tokens = count(frame["num_tokens_compared"].sum())
    return Finding(name, True, tokens, detail="output tokens, the same in both runs")


def _failures(runs: Sequence[Run]) -> Finding:
    share = [1 - is_ok(run.requests).mean() for run in runs]
    worst = runs[int(np.argmax(share))]
    failed = int((~is_ok(worst.requests)).sum())
    if not failed:
        return Finding("failures", True, "0", detail="every request of every run completed")
    detail = f"failed in {worst.path.name}; above {percent(_MAX_FAILED)} the rest is not the same workload"
    value = f"{count(failed)} of {count(len(worst.requests))}"
    return Finding("failures", False, value, detail=detail, grave=max(share) > _MAX_FAILED)


def dispatch_lag(run: Run) -> Ints | None:
    """How late each request was handed over, beyond the engine step that was running when it arrived.

    Returns
    -------
    ndarray of shape (n_ok,) or None
        ``submit - max(arrival, end of the iteration in progress at arrival)``, ns, 0 where the engine took the request
        in the middle of its step; None when the run records no submission or no iterations.
    """
    if "submit_time_ns" not in run.requests or run.iterations is None or run.iterations.empty:
        return None
    done = run.requests[is_ok(run.requests)]
    arrival, submit = ints(done["arrival_time_ns"]), ints(done["submit_time_ns"])
    iterations = run.iterations.sort_values("start_time_ns", kind="stable")
    start, end = ints(iterations["start_time_ns"]), ints(iterations["end_time_ns"])
    last = np.searchsorted(start, arrival, side="right") - 1
    in_progress = (last >= 0) & (end[last] > arrival)
    lag: Ints = np.maximum(submit - np.where(in_progress, end[last], arrival), 0)
    return lag


def _dispatch_lag(comparison: Comparison, repeats: Sequence[Run]) -> Finding:
    name, lags = "dispatch lag", [lag for lag in map(dispatch_lag, repeats) if lag is not None and len(lag)]
    median = comparison.figure("ttft", "p50", "real_ns")
    if len(lags) < len(repeats) or not median > 0:
        return Finding(name, None, detail="the real run has no submission times, iterations or TTFT")
    p99 = max(float(np.percentile(lag, 99)) for lag in lags)
    detail = f"P99, {percent(p99 / median)} of the median TTFT (flagged above {percent(_MAX_LAG)})"
    return Finding(name, p99 <= _MAX_LAG * median, f"{ms(p99)} ms", detail=detail)


def _preemptions(repeats: Sequence[Run], sim: Run) -> Finding:
    name = "preemptions"
    unknown = any("num_preemptions" not in run.requests for run in repeats)
    if "num_preemptions" not in sim.requests:
        return Finding(name, None, detail=f"{'neither run' if unknown else 'the simulated run'} records them")
    simulated = int(sim.requests["num_preemptions"].sum())
    if unknown:
        if simulated:
            return Finding(name, None, sim=count(simulated), detail=f"{count(simulated)} simulated")
        detail = "in the simulation, whose KV cache sufficed; the real run does not record them"
        return Finding(name, True, sim="0", detail=detail)
    real = float(np.mean([run.requests["num_preemptions"].sum() for run in repeats]))
    if simulated == real == 0:
        return Finding(name, True, "0", detail="in both runs")
    detail = "real, simulated; what is computed again differs between engines"
    return Finding(name, False, f"{short(real)}, {count(simulated)}", detail=detail)


def _cached_tokens(repeats: Sequence[Run], sim: Run) -> list[Finding]:
    """Prompt tokens that were found in the KV cache; nothing where there are none or a run does not record them."""
    column = "num_cached_tokens"
    if not all(column in run.requests and run.requests[column].notna().any() for run in (*repeats, sim)):
        return []
    real = float(np.mean([run.requests[column].sum() for run in repeats]))
    simulated = int(sim.requests[column].sum())
    if simulated == real == 0:
        return []
    detail = f"prompt tokens found in the KV cache; flagged when more than {percent(_MAX_CACHED)} apart"
    holds = abs(simulated - real) <= _MAX_CACHED * real
    return [Finding("cached tokens", holds, count(round(real)), count(simulated), detail)]


def _repeats(comparison: Comparison) -> Finding:
    name, n = "repeats", comparison.num_repeats
    if n == 1:
        return Finding(name, False, "1", detail="no noise floor: run real-bench with repeats=5 or more")
    floor = comparison.figure("e2e", "p50", "floor")
    if floor > MAX_FLOOR:
        detail = f"real runs too far apart to judge: E2E P50 floor {percent(floor)}"
        return Finding(name, False, count(n), detail=detail)
    return Finding(name, True, count(n), detail=f"real runs, E2E P50 floor {percent(floor)}")


def _machine_speed(repeats: Sequence[Run], sim: Run) -> Finding:
    name, profiled = "machine speed", sim.meta.get("reference_ns")
    bursts = [run.meta["reference_ns"] for run in repeats if run.meta.get("reference_ns")]
    if not bursts or not profiled:
        detail = "no burst was timed on the machine when it was measured and when it was profiled"
        return Finding(name, None, detail=detail)
    slower = float(np.mean(bursts)) / profiled
    scaled = float(sim.meta.get("machine_speed") or 1.0)
    detail = "time of one fixed burst when measured, against when profiled"
    if scaled != 1:
        detail += f"; simulated times corrected by {percent(scaled - 1, sign=True)}"
    holds = abs(slower / scaled - 1) <= _MAX_SPEED
    return Finding(name, holds, percent(slower - 1, sign=True), detail=detail)
