"""A real run as a calibration sees it, and what a simulation with given constants says of the same things."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.calibration.estimate import Flags, Observations
from gpu_simulate_test.config.ids import file_sha256
from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.tables import REQUEST_METRICS, find_table
from gpu_simulate_test.io.workload import Workload, load_workload
from gpu_simulate_test.latency.calibration import Calibrated, Constants
from gpu_simulate_test.latency.model import LatencyModel, Slowed, batches_of
from gpu_simulate_test.profiles.bundle import Profile
from gpu_simulate_test.run_tables import first_and_last_tokens
from gpu_simulate_test.simulator.real_run import RealRun, load_real_run, machine_speed, sent_as_recorded, until_the_next
from gpu_simulate_test.spans import Floats, Ints
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext.sim_runner import make_loop
from gpu_simulate_test.vidur_ext.simulation import Loop
from gpu_simulate_test.vidur_ext.vidur_config import check_limits, sim_settings

MOST_REQUESTS = 20_000  # of a run, the first ones: a simulation of them takes seconds
_FEWEST = 4


@dataclass(frozen=True)
class Iterations:
    """What a run recorded of its iterations.

    Attributes
    ----------
    start_ns : numpy.ndarray of shape (n_iterations,)
        When it began, ascending.
    kernels_ns, seqs : numpy.ndarray of shape (n_iterations,)
        Of its batch, the kernels' time and the sequences.
    took_ns : numpy.ndarray of shape (n_iterations,)
        What it took, until the next one began.
    """

    start_ns: Ints
    kernels_ns: Floats
    seqs: Floats
    took_ns: Floats

    def observations(self, constants: Constants, speed: float, run: int) -> Observations:
        """What constants make of them on a machine that slow."""
        host, nothing = np.full(len(self.seqs), speed), np.zeros(len(self.seqs))
        slopes = np.column_stack([host, host * self.seqs, self.kernels_ns, nothing, nothing])
        slowed = constants.slowed(speed)
        predicted = slopes[:, 2] * slowed.kernel_factor + slowed.step_ns + slowed.sequence_ns * self.seqs
        return Observations(predicted, self.took_ns, predicted, slopes, slopes, run)


@dataclass(frozen=True, eq=False)
class Observed:
    """A real run, one repeat of it, beside its simulation.

    Attributes
    ----------
    number : int
        Of the run, among several.
    ok : numpy.ndarray of shape (n_requests,), bool
        Requests that completed.
    arrival_ns, ttft_ns, e2e_ns : numpy.ndarray of shape (n_requests,)
        Of the real run; 0 for those that failed.
    iterations : Iterations or None
        None where they were not recorded, or batches are scheduled ahead: then the host's share does not show in them.
    loop, beside : Loop
        What serves the same requests; the same with each a little sooner or later.
    kernels : LatencyModel
        As fast as the machine was during the run.
    speed : float
        How much slower that was than while it was profiled.
    """

    number: int
    path: Path
    run_id: str
    sha256: str
    workload_sha256: str
    ok: Flags
    arrival_ns: Ints
    ttft_ns: Ints
    e2e_ns: Ints
    num_tokens: Ints
    iterations: Iterations | None
    loop: Loop
    beside: Loop
    kernels: LatencyModel
    speed: float

    def part(self, learned: Flags) -> "Observed":
        """The same with these requests alone, and the iterations that ran while they arrived."""
        iterations = self.iterations
        if iterations is not None:
            arrived = np.maximum(np.searchsorted(self.arrival_ns, iterations.start_ns, side="right") - 1, 0)
            chosen = learned[arrived]
            iterations = Iterations(*(values[chosen] for values in vars(iterations).values()))
        return replace(self, ok=self.ok & learned, iterations=iterations)

    def simulate(self, constants: Constants, loop: Loop) -> Timeline:
        """Serve the requests; the front end is left out, for it only shifts everything."""
        slowed = replace(constants.slowed(self.speed), front_end_ns=0.0)
        latency = Calibrated(self.kernels, slowed, loop.core.limits)
        return loop.calibrated(slowed).run(latency, lambda _count: None)

    def latencies(self, constants: Constants) -> tuple[Floats, Floats]:
        """TTFT and E2E of a simulation, ns, shape (n_requests,)."""
        line, slowed = self.simulate(constants, self.loop), constants.slowed(self.speed)
        first, last = first_and_last_tokens(line)
        out_ns: Floats = line.out_ns + np.float64(slowed.front_end_ns)
        later_ns = slowed.after_first_token_ns * (last > first)
        return out_ns[first] - self.arrival_ns, out_ns[last] + later_ns - self.arrival_ns

    def pairs(self, constants: Constants) -> dict[str, tuple[Floats, Floats]]:
        """Simulated and real TTFT, TPOT and E2E of the requests that completed, ns, by metric."""
        sim_ttft, sim_e2e = self.latencies(constants)
        ttft, e2e = self.ttft_ns.astype(np.float64), self.e2e_ns.astype(np.float64)
        several = self.ok & (self.num_tokens > 1)
        sim_tpot, tpot = ((one / (self.num_tokens - 1).clip(1))[several] for one in (sim_e2e - sim_ttft, e2e - ttft))
        return {
            "ttft": (sim_ttft[self.ok], ttft[self.ok]),
            "tpot": (sim_tpot, tpot),
            "e2e": (sim_e2e[self.ok], e2e[self.ok]),
        }

    def observations(self, constants: Constants) -> list[Observations]:
        """TTFT, and the iterations where they were recorded, else the time from the first token to the last."""
        line = self.simulate(constants, self.loop)
        of_ttft, of_rest = self._slopes(line, constants, self.loop)
        others = self._slopes(self.simulate(constants, self.beside), constants, self.beside)
        first, last = first_and_last_tokens(line)
        out_ns: Floats = line.out_ns.astype(np.float64)
        predicted = out_ns[first] - self.arrival_ns + self.speed * constants.front_end_ns
        found = [self._observations(predicted, self.ttft_ns, of_ttft, others[0], self.ok)]
        if self.iterations is not None:
            return [*found, self.iterations.observations(constants, self.speed, self.number)]
        predicted = out_ns[last] - out_ns[first] + self.speed * constants.after_first_token_ns
        several = self.ok & (self.num_tokens > 1)
        return [*found, self._observations(predicted, self.e2e_ns - self.ttft_ns, of_rest, others[1], several)]

    def _observations(
        self, predicted_ns: Floats, observed_ns: Ints, slopes: Floats, instruments: Floats, chosen: Flags
    ) -> Observations:
        """Of requests. Either side has its own chance, when iterations begin: neither may decide what one weighs."""
        predicted, observed = predicted_ns[chosen], observed_ns[chosen].astype(np.float64)
        typical = (predicted + observed) / 2
        return Observations(predicted, observed, typical, slopes[chosen], instruments[chosen], self.number)

    def _slopes(self, line: Timeline, constants: Constants, loop: Loop) -> tuple[Floats, Floats]:
        """Of TTFT and of the time from the first token to the last, shape (n_requests, 5)."""
        limits, arrival_ns = loop.core.limits, loop.core.requests[0].known_ns
        shares = _Shares.of(line, constants.slowed(self.speed), limits.async_scheduling)
        first, last = first_and_last_tokens(line)
        ones, none = np.ones(len(first)), np.zeros(len(first))
        ttft = np.column_stack([shares.until_out(first) - shares.at(line, arrival_ns), ones, none])
        rest = np.column_stack([shares.until_out(last) - shares.until_out(first), none, ones])
        scale = np.array([self.speed, self.speed, 1.0, self.speed, self.speed])  # of `Constants.slowed`
        return ttft * scale, rest * scale


@dataclass(frozen=True)
class _Shares:
    """How much of `step_ns`, `sequence_ns` and `kernel_factor` there is in the iterations of a timeline.

    With its batches given: that they would be others is left to the next simulation.

    Attributes
    ----------
    each, before, out : numpy.ndarray of shape (n_iterations, 3)
        In the time of an iteration; in all before it; in the time until its tokens come out, after it ended.
    """

    each: Floats
    before: Floats
    out: Floats

    @classmethod
    def of(cls, line: Timeline, constants: Constants, beside: bool) -> "_Shares":
        took = (line.end_ns - line.start_ns).astype(np.float64)
        seqs = line.num_seqs.astype(np.float64)
        host = constants.step_ns + constants.sequence_ns * seqs
        ones = np.ones(len(took))
        if beside:
            waits = took <= host + 1.0  # for the host, not for the kernels
            each = np.column_stack([waits, seqs * waits, np.where(waits, 0.0, took) / constants.kernel_factor])
            out = np.column_stack([0 * ones, seqs, 0 * ones])
        else:
            each = np.column_stack([ones, seqs, (took - host) / constants.kernel_factor])
            out = np.zeros((len(took), 3))
        return cls(each, np.cumsum(each, axis=0) - each, out)

    def until_out(self, iterations: Ints) -> Floats:
        """In all until the tokens of these iterations come out, shape (n, 3)."""
        return (self.before + self.each + self.out)[iterations]

    def at(self, line: Timeline, times_ns: Ints) -> Floats:
        """In all until these times, shape (n, 3); of an iteration in progress the part that has passed."""
        start, end = line.start_ns, line.end_ns
        found = np.empty((len(times_ns), 3))
        served_by = np.zeros(len(times_ns), dtype=np.int64) if line.replica is None else np.array(line.replica)
        for replica, (begin, stop) in enumerate(pairwise([*(line.begins or [0]), len(end)])):
            own = served_by == replica
            times = times_ns[own]
            now = np.minimum(begin + np.searchsorted(end[begin:stop], times, side="right"), stop - 1)
            passed = np.clip((times - start[now]) / np.maximum(1, end[now] - start[now]), 0.0, 1.0)
            found[own] = self.before[now] + self.each[now] * passed[:, None]
        return found


def load_observed(config: StageConfig, profile: Profile, kernels: LatencyModel, path: Path, number: int) -> Observed:
    """Read a real run and what it served.

    Raises
    ------
    ArtifactError
        A run or its workload is missing, incomplete or contradicts itself, or its first tokens were not recorded.
    ConfigError
        The settings cannot simulate it, or too few of its requests completed.
    """
    run = load_run(path, "real").without_tokens()
    if "workload_dir" not in run.meta:
        raise ArtifactError(f"a run that does not say what it served: {path}; name a run that real-bench wrote")
    workload = load_workload(Path(run.meta["workload_dir"]), config.model.id)
    real = replace(load_real_run(path, workload), reference_ns=run.meta.get("reference_ns"))  # its own, of no repeat
    settings = sim_settings(config, real, profile.kv_tokens(real.limits))
    check_limits(workload, settings)
    if settings.limits.pipeline_parallel > 1:
        raise ConfigError("calibration does not know stages of a pipeline; set limits.pipeline_parallel=1")
    count = min(len(workload), MOST_REQUESTS)
    requests = run.requests[run.requests["request_id"] < count]
    ok = np.zeros(count, dtype=bool)
    ok[requests["request_id"]] = is_ok(requests)
    if ok.sum() < _FEWEST:
        raise ConfigError(
            f"too few requests to learn from: {path}: {ok.sum()} completed; at least {_FEWEST} are needed"
        )
    if requests["first_token_time_ns"].isna().to_numpy(dtype=bool)[is_ok(requests)].any():
        raise ArtifactError(f"first tokens not recorded, as when answers are not streamed: {path}; name another run")
    if not workload.arrivals.is_open:
        workload = replace(workload, arrivals=sent_as_recorded(run.requests, len(workload), path))
    times = np.zeros((count, 2), dtype=np.int64)
    for column, name in enumerate(("first_token_time_ns", "completion_time_ns")):
        since = (requests[name] - requests["arrival_time_ns"]).to_numpy(dtype=np.int64, na_value=0)
        times[requests["request_id"], column] = since
    num_tokens = real.num_decode_actual[:count]
    speed = machine_speed(profile.meta.get("reference_ns"), real)
    latency = kernels if speed == 1 else Slowed(kernels, speed)
    table = find_table(path, REQUEST_METRICS)
    assert table is not None  # it was read
    return Observed(
        number=number,
        path=path,
        run_id=str(run.meta.get("run_id", path.name)),
        sha256=file_sha256(table),
        workload_sha256=workload.sha256,
        ok=ok,
        arrival_ns=workload.arrivals.known_ns[:count],
        ttft_ns=times[:, 0],
        e2e_ns=times[:, 1],
        num_tokens=num_tokens,
        iterations=None if settings.limits.async_scheduling else _iterations(real, latency),
        loop=make_loop(config, settings, workload, real, latency, count=count),
        beside=make_loop(config, settings, _jittered(workload, ok, times, num_tokens), real, latency, count=count),
        kernels=latency,
        speed=speed,
    )


def _jittered(workload: Workload, ok: Flags, times_ns: Ints, num_tokens: Ints) -> Workload:
    """Requests that arrive up to the time of an iteration sooner or later, in the same order."""
    ttft_ns, e2e_ns = times_ns[ok].T
    step_ns = float(np.median((e2e_ns - ttft_ns) / np.maximum(1, num_tokens[ok] - 1)))
    moved = np.random.default_rng(0).uniform(-step_ns, step_ns, len(workload))
    arrival_ns = np.maximum(0, np.rint(workload.arrivals.known_ns + moved)).astype(np.int64)
    return replace(workload, arrivals=ArrivalProcess.at(np.sort(arrival_ns)))


def _iterations(real: RealRun, latency: LatencyModel) -> Iterations | None:
    if real.iterations is None or len(real.iterations) < _FEWEST:
        return None
    table = real.iterations.sort_values("start_time_ns", kind="stable")
    batches = batches_of(table)
    return Iterations(
        table["start_time_ns"].to_numpy(dtype=np.int64),
        np.array([latency.step_ns(batch, 0.0) for batch in batches]),
        np.asarray(table["num_prefill_seqs"] + table["num_decode_seqs"], dtype=np.float64),
        np.asarray(until_the_next(real, table), dtype=np.float64),
    )
