"""Gates: what has to hold before the figures of a comparison mean anything."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.identity import HARDWARE, look_up
from gpu_simulate_test.analysis.load_metrics import Run, is_ok
from gpu_simulate_test.analysis.samples import Ints, ints
from gpu_simulate_test.analysis.verdict import MAX_FLOOR, VOID
from gpu_simulate_test.io.tables import share_outside_profile

PASSED, FLAGGED = "passed", "flagged"
COLUMNS = ("gate", "status", "value", "detail")
_MAX_FAILED = 0.05
_MAX_LAG = 0.05  # of the median TTFT
_MAX_OUTSIDE, _VOID_OUTSIDE = 0.01, 0.20
_MAX_HELD_OUT = 0.05
_MAX_SPEED = 0.05
_SETTINGS = (
    ("KV blocks", "num_blocks", "num_blocks"),
    ("KV block size", "block_size", "block_size"),
    ("requests in a batch", "max_num_seqs", "batch_cap"),
    ("tokens in a batch", "max_num_batched_tokens", "token_budget"),
)

Gate = tuple[str, str, str, str]


def check_gates(comparison: Comparison, repeats: Sequence[Run], sim: Run) -> pd.DataFrame:
    """Check whether the two runs can be compared, and what stands in the way.

    Parameters
    ----------
    comparison : Comparison
    repeats : sequence of Run
        The real runs, the first one first.
    sim : Run

    Returns
    -------
    pandas.DataFrame of shape (n_gates, 4)
        ``gate``, ``status`` (passed; flagged: read the figures with this in mind; void: they mean nothing),
        ``value``, ``detail``. What a run does not record is flagged.
    """
    real = repeats[0]
    gates = [
        _same("workload", real, sim, "workload_sha256", if_unknown=VOID),
        _same("model", real, sim, "model"),
        _same("hardware", real, sim, *HARDWARE),
        *_arrivals(real),
        _token_counts(comparison),
        _failures([*repeats, sim]),
        _dispatch_lag(comparison, repeats),
        *(_setting(name, real, sim, of_real, of_sim) for name, of_real, of_sim in _SETTINGS),
        _preemptions(repeats, sim),
        *_loop(sim),
        _profiled_range(sim),
        _held_out(sim),
        _repeats(comparison),
        _machine_speed(repeats, sim),
    ]
    return pd.DataFrame(gates, columns=list(COLUMNS))


def _not_recorded(gate: str, what: str, status: str = FLAGGED) -> Gate:
    return gate, status, "not recorded", what


def _percent(fraction: float, *, sign: bool = False) -> str:
    return f"{100 * fraction:+,.1f} %" if sign else f"{100 * fraction:,.1f} %"


def _same(gate: str, real: Run, sim: Run, *keys: str, if_unknown: str = FLAGGED) -> Gate:
    values = [look_up(run.meta, *keys) for run in (real, sim)]
    if not all(values):
        who = (
            "neither run names" if not any(values) else f"the {'simulated' if values[0] else 'real'} run does not name"
        )
        return _not_recorded(gate, f"{who} its {gate}", if_unknown)
    of_real, of_sim = (value[:12] if gate == "workload" else value for value in values)
    if values[0] != values[1]:
        return gate, VOID, f"{of_real}, {of_sim}", "the two runs differ"
    return gate, PASSED, of_real, "the same in both runs"


def _arrivals(real: Run) -> list[Gate]:
    """A gate only for a run that was recorded without them."""
    if real.meta.get("arrivals_recorded", True):
        return []
    return [_not_recorded("arrivals", "those of the workload were taken, so that queues need not be the real ones")]


def _token_counts(comparison: Comparison) -> Gate:
    frame = comparison.per_request
    made = frame[["real_num_decode_tokens_actual", "sim_num_decode_tokens_actual"]]
    cut = int((made.max(axis=1) != frame["num_tokens_compared"]).sum())
    if cut:
        return "token counts", FLAGGED, f"{cut:,} of {len(frame):,}", "requests cut to the tokens that every run made"
    return (
        "token counts",
        PASSED,
        f"{int(frame['num_tokens_compared'].sum()):,}",
        "output tokens, the same in both runs",
    )


def _failures(runs: Sequence[Run]) -> Gate:
    share = [1 - is_ok(run.requests).mean() for run in runs]
    failed = [int((~is_ok(run.requests)).sum()) for run in runs]
    worst = int(np.argmax(share))
    if not failed[worst]:
        return "failures", PASSED, "0", "every request of every run completed"
    status = VOID if share[worst] > _MAX_FAILED else FLAGGED
    detail = f"failed in {runs[worst].path.name}; above {_percent(_MAX_FAILED)} the rest is not the same workload"
    return "failures", status, f"{failed[worst]:,} of {len(runs[worst].requests):,}", detail


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


def _dispatch_lag(comparison: Comparison, repeats: Sequence[Run]) -> Gate:
    lags = [lag for lag in map(dispatch_lag, repeats) if lag is not None and len(lag)]
    table = comparison.percentiles
    median = float(table.loc[(table["metric"] == "ttft") & (table["statistic"] == "p50"), "real_ns"].iloc[0])
    if len(lags) < len(repeats) or not median > 0:
        return _not_recorded("dispatch lag", "the real run has no submission times, iterations or TTFT")
    p99 = max(float(np.percentile(lag, 99)) for lag in lags)
    status = FLAGGED if p99 > _MAX_LAG * median else PASSED
    detail = f"P99, {_percent(p99 / median)} of the median TTFT (flagged above {_percent(_MAX_LAG)})"
    return "dispatch lag", status, f"{p99 / 1e6:.3f} ms", detail


def _setting(gate: str, real: Run, sim: Run, of_real: str, of_sim: str) -> Gate:
    values = look_up(real.meta, f"engine.{of_real}"), look_up(sim.meta, f"settings.{of_sim}")
    if not all(values):
        return _not_recorded(gate, f"engine.{of_real} of the real run or settings.{of_sim} of the simulated run")
    if values[0] != values[1]:
        return gate, FLAGGED, f"{values[0]}, {values[1]}", "different engines: run vidur-sim with real_run_dir"
    return gate, PASSED, values[0], "the same in both runs"


def _preemptions(repeats: Sequence[Run], sim: Run) -> Gate:
    gate = "preemptions"
    unknown = any("num_preemptions" not in run.requests for run in repeats)
    if "num_preemptions" not in sim.requests:
        return _not_recorded(gate, f"{'neither run' if unknown else 'the simulated run'} records them")
    simulated = int(sim.requests["num_preemptions"].sum())
    if unknown:
        if simulated:
            return _not_recorded(gate, f"{simulated:,} simulated")
        return gate, PASSED, "0", "in the simulation, whose KV cache sufficed; the real run does not record them"
    real = float(np.mean([run.requests["num_preemptions"].sum() for run in repeats]))
    if simulated == real == 0:
        return gate, PASSED, "0", "in both runs"
    return gate, FLAGGED, f"{real:g}, {simulated}", "real, simulated; what is computed again differs between engines"


def _loop(sim: Run) -> list[Gate]:
    """Whether the simulation is what Vidur's own loop would have made."""
    loop = sim.meta.get("loop")
    if not loop:
        return []
    if loop.get("difference"):
        return [("simulated loop", FLAGGED, "Vidur's own", f"our core differs: {loop['difference']}")]
    if loop["name"] == "vidur":
        return [("simulated loop", PASSED, "Vidur's own", "nothing of ours schedules")]
    return [("simulated loop", PASSED, "our core", f"identical to Vidur's on the first {loop['checked']:,} requests")]


def _profiled_range(sim: Run) -> Gate:
    gate = "profiled range"
    if sim.iterations is None or "in_profile" not in sim.iterations or sim.iterations.empty:
        return _not_recorded(gate, "the simulated run does not say which iterations the profile covers")
    outside = share_outside_profile(sim.iterations)
    status = VOID if outside > _VOID_OUTSIDE else FLAGGED if outside > _MAX_OUTSIDE else PASSED
    return gate, status, _percent(outside), "of the simulated engine time is extrapolated"


def _held_out(sim: Run) -> Gate:
    gate = "predictor"
    held_out = sim.meta.get("profile_held_out") or {}
    median, total = held_out.get("median_error"), held_out.get("total_error")
    if median is None or total is None:
        return _not_recorded(gate, "the profile has no held-out error")
    status = FLAGGED if abs(median) > _MAX_HELD_OUT else PASSED
    detail = f"median error on iterations held out of the profile, {_percent(total, sign=True)} of their total time"
    return gate, status, _percent(median, sign=True), detail


def _repeats(comparison: Comparison) -> Gate:
    n, table = comparison.num_repeats, comparison.percentiles
    if n == 1:
        return "repeats", FLAGGED, "1", "no noise floor: run real-bench with repeats=5 or more"
    floor = float(table.loc[(table["metric"] == "e2e") & (table["statistic"] == "p50"), "floor"].iloc[0])
    if floor > MAX_FLOOR:
        return "repeats", FLAGGED, str(n), f"real runs too far apart to judge: E2E P50 floor {_percent(floor)}"
    return "repeats", PASSED, str(n), f"real runs, E2E P50 floor {_percent(floor)}"


def _machine_speed(repeats: Sequence[Run], sim: Run) -> Gate:
    gate, profiled = "machine speed", sim.meta.get("reference_ns")
    bursts = [run.meta["reference_ns"] for run in repeats if run.meta.get("reference_ns")]
    if not bursts or not profiled:
        return _not_recorded(gate, "no burst was timed on the machine when it was measured and when it was profiled")
    slower = float(np.mean(bursts)) / profiled
    scaled = float(sim.meta.get("machine_speed") or 1.0)
    status = FLAGGED if abs(slower / scaled - 1) > _MAX_SPEED else PASSED
    detail = "time of one fixed burst when measured, against when profiled"
    if scaled != 1:
        detail += f"; simulated times corrected by {_percent(scaled - 1, sign=True)}"
    return gate, status, _percent(slower - 1, sign=True), detail
