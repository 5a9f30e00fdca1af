"""Where the difference between two runs comes from: predictor, harness or scheduling.

The predictor's time of every iteration of the *real* run separates what it gets wrong about a batch from what the
simulated scheduler batches differently.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.samples import Floats, Ints, ints
from gpu_simulate_test.io.tables import AT_REAL_SPEED, REAL_ITERATIONS, find_table, read_table

KINDS = ("prefill", "decode", "mixed")
HOST = "calibrated host time"
PARTS = (
    *(f"predictor, {kind} batches" for kind in KINDS),
    HOST,
    "between iterations",
    "knock-on",
    "dispatch lag",
    "scheduling",
)
METRICS = ("e2e", "ttft")
_ROUNDING = 1e-9  # of parts that cancel out, floats leave less
_END_OF = {"e2e": "completion_time_ns", "ttft": "first_token_time_ns"}
NEEDS = "Attribution needs the predictor's time of the real iterations: run vidur-sim with real_run_dir={path}."


@dataclass(frozen=True)
class Attribution:
    """What each part adds to the difference simulated - real.

    Attributes
    ----------
    per_request : dict of str to pandas.DataFrame of shape (n_pairs, n_parts)
        By metric (e2e, ttft); columns are those of `PARTS` that there are, ns. A row sums to the request's difference.
        Only requests whose difference is known, and no metric without one.
    """

    per_request: dict[str, pd.DataFrame]

    @property
    def parts(self) -> tuple[str, ...]:
        """All `PARTS`; without `HOST` where the simulation was not calibrated."""
        return tuple(map(str, next(iter(self.per_request.values())).columns))

    def table(self) -> pd.DataFrame:
        """Means over the requests.

        Returns
        -------
        pandas.DataFrame of shape (n_metrics * (n_parts + 1), 4)
            ``metric``, ``part`` (the last one is ``total``), ``mean_ns``, ``share`` of the total (NaN of a total of 0).
        """
        tables = []
        for metric, parts in self.per_request.items():
            means = parts.mean()
            total = float(means.sum())
            cancelled = abs(total) <= _ROUNDING * float(means.abs().max())
            tables.append(
                pd.DataFrame(
                    {
                        "metric": metric,
                        "part": [*self.parts, "total"],
                        "mean_ns": [*means, total],
                        "share": [np.nan if cancelled else value / total for value in (*means, total)],
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)


def attribute(comparison: Comparison, real: Run, sim: Run) -> Attribution | str:
    """Split the difference of every compared request, first repeat against simulation.

    Over a request's window in the real run, arrival to completion (or to first token), with iterations that overlap it
    partly counted in proportion:

    - predictor: ``sum of overlap * ((predicted - host) / duration - 1)``, by what the batch held. Only a calibrated
      predictor has host time;
    - calibrated host time: ``sum of overlap * host / duration``, and the constants that add to every request before
      the engine sees it and, of E2E with several tokens, after its first one;
    - dispatch lag: minus the time before submission in which no iteration ran;
    - between iterations: minus the rest of the time in which none ran, which the simulator does not have;
    - knock-on: who loses time in iterations, or between them, gets longer queues and larger batches. The simulation,
      minus another one whose iterations are as much slower than predicted as the real ones were at that time, minus
      what predictor, host time in iterations and time between them add themselves;
    - scheduling: what remains, that is other batches, or waiting for them, at the same speed.

    Parameters
    ----------
    comparison : Comparison
    real : Run
        The first repeat.
    sim : Run
        Its directory holds ``real_iterations.csv`` and ``at_real_speed.csv``: vidur-sim was given the real run.

    Returns
    -------
    Attribution or str
        A sentence that says what is missing, when something is.
    """
    timeline = _timeline(real, sim)
    if isinstance(timeline, str):
        return timeline
    latencies, other = comparison.real.latencies, comparison.sim.latencies
    arrival = ints(latencies["arrival_time_ns"])
    submit = _submit_times(real, latencies, arrival)
    then = read_table(sim.path, AT_REAL_SPEED).set_index("request_id").loc[latencies["request_id"]]
    per_request = {}
    for metric in METRICS:
        known = (latencies[f"{metric}_ns"].notna() & other[f"{metric}_ns"].notna()).to_numpy()
        if not known.any():
            continue
        of_real, of_sim = (ints(side.loc[known, f"{metric}_ns"]) for side in (latencies, other))
        since = arrival[known]
        at_real_speed = ints(then[_END_OF[metric]] - then["arrival_time_ns"])[known]
        tokens = ints(latencies.loc[known, "num_tokens"]) if metric == "e2e" else np.ones_like(since)
        per_request[metric] = timeline.parts(
            since, submit[known], since + of_real, of_sim - of_real, of_sim - at_real_speed, _beside(sim, tokens)
        )
    return Attribution(per_request)


@dataclass(frozen=True)
class _Timeline:
    """The real run's iterations as running totals, piecewise linear in time.

    Attributes
    ----------
    start, end, host, excess : ndarray of shape (n_iterations,)
        In order and without overlap; ``host``: calibrated time of the host in it, 0 where there is none; ``excess`` =
        predicted - host - measured duration, ns.
    kind : ndarray of shape (n_iterations,)
        Index into `KINDS`.
    """

    start: Ints
    end: Ints
    host: Ints
    excess: Ints
    kind: Ints

    def parts(
        self, arrival: Ints, submit: Ints, completion: Ints, difference: Ints, of_speed: Ints, beside: Ints | None
    ) -> pd.DataFrame:
        """Split `difference`, of which slower iterations make `of_speed`.

        Arguments have shape (n_requests,), ns. `beside`: what a calibration adds to a request outside iterations; None
        where there is none, and then no part for it.
        """
        columns: dict[str, Floats] = {}
        for index, kind in enumerate(KINDS):
            columns[f"predictor, {kind} batches"] = self._between(
                np.where(self.kind == index, self.excess, 0), arrival, completion
            )
        busy = self.end - self.start
        submit = np.minimum(submit, completion)
        lag: Floats = (submit - arrival) - self._between(busy, arrival, submit)
        idle: Floats = (completion - submit) - self._between(busy, submit, completion)
        columns["between iterations"] = -idle
        host = self._between(self.host, arrival, completion)
        columns["knock-on"] = of_speed - host - np.sum(list(columns.values()), axis=0)
        if beside is not None:
            columns[HOST] = host + beside
        columns["dispatch lag"] = -lag
        columns["scheduling"] = difference - np.sum(list(columns.values()), axis=0)
        return pd.DataFrame(columns, columns=[part for part in PARTS if part in columns])

    def _between(self, amount: Ints, since: Ints, until: Ints) -> Floats:
        """Total of `amount`, spread evenly over each iteration, from `since` to `until`."""
        zero = self.start[0]  # a wall clock's nanoseconds are beyond the reach of a float
        knots = np.column_stack([self.start, self.end]).ravel() - zero
        before = np.cumsum(amount) - amount
        total = np.column_stack([before, before + amount]).ravel()
        until_then: Floats = np.interp(until - zero, knots, total)
        since_then: Floats = np.interp(since - zero, knots, total)
        return until_then - since_then


def _timeline(real: Run, sim: Run) -> _Timeline | str:
    """The real run's iterations, and what was predicted of them; a sentence where something is missing."""
    if real.iterations is None or real.iterations.empty:
        return f"No attribution: {real.path} has no iteration records."
    if not (find_table(sim.path, REAL_ITERATIONS) and find_table(sim.path, AT_REAL_SPEED)):
        return NEEDS.format(path=real.path)
    iterations = real.iterations.sort_values("start_time_ns", kind="stable", ignore_index=True)
    predicted = read_table(sim.path, REAL_ITERATIONS).set_index("iteration_id")
    same_ids = predicted.index.is_unique and set(predicted.index) == set(iterations["iteration_id"])
    if not same_ids or not _made_from(real, sim):
        return "No attribution: the predicted iterations are not those of this real run. " + NEEDS.format(
            path=real.path
        )
    start, end = ints(iterations["start_time_ns"]), ints(iterations["end_time_ns"])
    if (start[1:] < end[:-1]).any():
        return "No attribution: iterations of the real run overlap, so its time cannot be divided among them."
    predicted = predicted.loc[iterations["iteration_id"]]
    calibrated = sim.meta.get("calibration") and "host_ns" in predicted
    host = ints(predicted["host_ns"]) if calibrated else np.zeros(len(start), np.int64)
    excess = ints(predicted["predicted_ns"]) - host - (end - start)
    return _Timeline(start, end, host, excess, _kind_of(iterations))


def _beside(sim: Run, tokens: Ints) -> Ints | None:
    """What a calibration adds outside iterations until so many tokens of each request are out, ns; None without one."""
    if not sim.meta.get("calibration"):
        return None
    speed = float(sim.meta.get("machine_speed") or 1.0)  # the host is as slow as the rest
    front, late = (
        round(speed * sim.meta["calibration"]["constants"][name]["value"])
        for name in ("front_end_ns", "after_first_token_ns")
    )
    beside: Ints = np.where(tokens > 1, front + late, front)
    return beside


def _made_from(real: Run, sim: Run) -> bool:
    """False when the simulated run says it was given another real run, or this one before it was measured again."""
    given, started, ended = sim.meta.get("real_run_dir"), sim.meta.get("started_at"), real.meta.get("ended_at")
    if given and Path(given).name not in (real.path.name, real.meta.get("run_id")):
        return False
    return not (started and ended) or datetime.fromisoformat(ended) <= datetime.fromisoformat(started)


def _kind_of(iterations: pd.DataFrame) -> Ints:
    prefill, decode = (ints(iterations[f"num_{kind}_seqs"]) > 0 for kind in ("prefill", "decode"))
    kinds: Ints = np.select([prefill & decode, decode], [KINDS.index("mixed"), KINDS.index("decode")], 0)
    return kinds


def _submit_times(real: Run, latencies: pd.DataFrame, arrival: Ints) -> Ints:
    """Submission of each compared request; its arrival where the run does not record it."""
    if "submit_time_ns" not in real.requests:
        return arrival
    return ints(real.requests.set_index("request_id").loc[latencies["request_id"], "submit_time_ns"])
