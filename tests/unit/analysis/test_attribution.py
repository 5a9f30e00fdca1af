"""The parts of a difference add up to it, and each known cause shows up under its own name."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.analysis.attribution import HOST, PARTS, Attribution, attribute
from gpu_simulate_test.analysis.compare import compare
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.analysis.trace import trace_json
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Composition, Step
from gpu_simulate_test.io.tables import (
    AT_REAL_SPEED,
    ITERATION_METRICS,
    REAL_ITERATIONS,
    REQUEST_METRICS,
    TOKEN_METRICS,
    read_table,
    write_table,
)
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.real_bench.metrics import build_metrics
from gpu_simulate_test.real_bench.replay import replay
from tests.support.builders import MS, WORKLOAD_SHA256, calibration_on
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost, requests_of

LENGTHS = [(40, 6), (10, 12), (90, 3), (25, 8), (5, 1), (60, 9)]
BURST = [0] * len(LENGTHS)
SPACED = [i * 300 * MS for i in range(len(LENGTHS))]
Cost = Callable[[Composition], int]


def slower(composition: Composition) -> int:
    return affine_cost(composition) + 2 * MS


class PausingEngine(VirtualEngine):
    """Takes 3 ms between iterations, as if another process had the machine."""

    def step(self) -> Step:
        self.clock.time_ns += 3 * MS
        return super().step()


class LateClock(VirtualClock):
    """Wakes 1 ms late."""

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self.time_ns = max(self.time_ns, deadline_ns) + MS


def serve(path: Path, kind: str, engine: VirtualEngine, arrivals: Sequence[int], lengths: list[tuple[int, int]]) -> Run:
    prefill, decode = zip(*lengths, strict=True)
    ids = range(len(lengths))
    frame = pd.DataFrame({"request_id": ids, "num_prefill_tokens": prefill, "num_decode_tokens": decode})
    workload = Workload(path, {}, frame, ArrivalProcess.at(np.array(arrivals)))
    recording = replay(engine, requests_of(lengths), workload.arrivals, engine.clock)
    metrics = build_metrics(workload, recording, "virtual")
    path.mkdir()
    write_table(path, REQUEST_METRICS, metrics.requests)
    write_table(path, TOKEN_METRICS, metrics.tokens)
    write_table(path, ITERATION_METRICS, metrics.iterations)
    (path / "run_meta.json").write_text(json.dumps({"run_type": kind, "workload_sha256": WORKLOAD_SHA256}))
    return load_run(path, kind)


def write_predictions(folder: Path, real: Run, predict: Cost, host_ns: int | None = None) -> None:
    assert real.iterations is not None
    names = Composition._fields
    rows = real.iterations.to_dict("records")
    times = [predict(Composition(**{name: row[name] for name in names})) for row in rows]
    table = pd.DataFrame({"iteration_id": real.iterations["iteration_id"], "predicted_ns": times, "in_profile": True})
    write_table(folder, REAL_ITERATIONS, table if host_ns is None else table.assign(host_ns=host_ns))


def write_at_real_speed(
    folder: Path, real: VirtualEngine, sim: VirtualEngine, arrivals: Sequence[int], lengths: list[tuple[int, int]]
) -> None:
    """What the simulator's scheduler makes of the real engine's times."""
    engine = type(real)(VirtualClock(), real.cost, max_num_seqs=sim.max_num_seqs)
    with tempfile.TemporaryDirectory() as scratch:
        requests = serve(Path(scratch) / "run", "vidur", engine, arrivals, lengths).requests
    write_table(folder, AT_REAL_SPEED, requests[list(AT_REAL_SPEED.required)])


def attributed(
    real: VirtualEngine,
    sim: VirtualEngine,
    predict: Cost,
    arrivals: Sequence[int],
    lengths: list[tuple[int, int]] = LENGTHS,
    calibration: dict[str, Any] | None = None,
    host_ns: int | None = None,
    speed: float = 1.0,
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, Run]:
    """Parts of each request, the per-request comparison, and the real run."""
    with tempfile.TemporaryDirectory() as folder:
        of_real = serve(Path(folder) / "real", "real", real, arrivals, lengths)
        of_sim = serve(Path(folder) / "sim", "vidur", sim, arrivals, lengths)
        write_predictions(of_sim.path, of_real, predict, host_ns)
        write_at_real_speed(of_sim.path, real, sim, arrivals, lengths)
        if calibration:
            of_sim = delayed(of_sim, calibration, speed)
        comparison = compare(of_real, of_sim)
        found = attribute(comparison, of_real, of_sim)
    assert isinstance(found, Attribution)
    for metric, parts in found.per_request.items():
        assert np.allclose(parts.sum(axis=1), comparison.per_request[f"error_{metric}_ns"], rtol=0, atol=1e-3)
        assert list(parts) == [part for part in PARTS if calibration or part != HOST]
        total = found.table().set_index(["metric", "part"]).loc[(metric, "total")]
        assert total["mean_ns"] == pytest.approx(comparison.per_request[f"error_{metric}_ns"].mean())
    return found.per_request, comparison.per_request, of_real


def delayed(sim: Run, calibration: dict[str, Any], speed: float) -> Run:
    """The simulated run, with what a calibration adds to a request outside its iterations."""
    front, late = (
        round(speed * calibration["constants"][name]["value"]) for name in ("front_end_ns", "after_first_token_ns")
    )
    tokens, requests = read_table(sim.path, TOKEN_METRICS), read_table(sim.path, REQUEST_METRICS)
    tokens["token_time_ns"] += np.where(tokens["token_index"] > 0, front + late, front)
    tokens["token_latency_ns"] += np.where(tokens["token_index"] == 1, late, 0)
    then = read_table(sim.path, AT_REAL_SPEED)
    for table in (requests, then):
        several = requests["num_decode_tokens_actual"] > 1
        table["first_token_time_ns"] += front
        table["completion_time_ns"] += np.where(several, front + late, front)
    requests["ttft_ns"] += front
    write_table(sim.path, TOKEN_METRICS, tokens)
    write_table(sim.path, REQUEST_METRICS, requests)
    write_table(sim.path, AT_REAL_SPEED, then)
    return replace(load_run(sim.path, "vidur"), meta=sim.meta | {"calibration": calibration, "machine_speed": speed})


def share(parts: pd.DataFrame, prefix: str) -> float:
    columns = [name for name in parts if name.startswith(prefix)]
    return float(parts[columns].to_numpy().sum() / parts.to_numpy().sum())


@pytest.mark.parametrize("metric", ["e2e", "ttft"])
def test_a_predictor_that_is_2_ms_short_explains_the_difference(metric: str) -> None:
    parts, errors, _ = attributed(
        VirtualEngine(VirtualClock(), slower), VirtualEngine(VirtualClock()), affine_cost, BURST
    )
    assert (errors[f"error_{metric}_ns"] < 0).all()
    assert share(parts[metric], "predictor") == pytest.approx(1)
    assert (parts[metric]["scheduling"].abs() < 1).all(), "the same batches"


@pytest.mark.parametrize(
    ("real", "own"),
    [(VirtualEngine(VirtualClock(), slower), "predictor"), (PausingEngine(VirtualClock()), "between iterations")],
)
def test_a_queue_that_only_a_slower_engine_has_is_knock_on(real: VirtualEngine, own: str) -> None:
    arrivals = [i * 5 * MS for i in range(30)]
    parts, errors, _ = attributed(real, VirtualEngine(VirtualClock()), affine_cost, arrivals, [(20, 8)] * 30)
    assert errors["error_e2e_ns"].iloc[-1] < 3 * errors["error_e2e_ns"].iloc[0] < 0, "the queue grows"
    assert (parts["e2e"]["knock-on"].iloc[-10:] < 0).all()
    assert share(parts["e2e"], own) + share(parts["e2e"], "knock-on") == pytest.approx(1)
    # A request that comes while the engine pauses is handed over late; that pause is already counted.
    assert ((parts["e2e"]["scheduling"] + parts["e2e"]["dispatch lag"]).abs() < 1).all()


def test_the_hosts_time_of_a_calibrated_predictor_is_no_longer_the_predictors() -> None:
    """Kernels are predicted 2 ms too fast, and the calibration adds them."""
    real, sim = VirtualEngine(VirtualClock(), slower), VirtualEngine(VirtualClock(), slower)
    parts, errors, _ = attributed(real, sim, slower, SPACED, calibration=calibration_on(), host_ns=2 * MS)
    uncalibrated, _, _ = attributed(real, VirtualEngine(VirtualClock()), affine_cost, SPACED)
    assert (errors["error_e2e_ns"] == 0).all()
    for metric, found in parts.items():
        predictor = found.filter(like="predictor")
        assert (found[HOST] > 0).all()
        assert np.allclose(predictor.sum(axis=1), -found[HOST])
        assert np.allclose(predictor, uncalibrated[metric].filter(like="predictor"))
        assert (found[["knock-on", "between iterations", "dispatch lag", "scheduling"]].abs() < 1).all(axis=None)


@pytest.mark.parametrize("speed", [1.0, 1.25])
def test_what_a_calibration_adds_outside_iterations_is_the_hosts_too(speed: float) -> None:
    """A request of one token has none that comes later; a slow machine's host is slow as well."""
    calibration = calibration_on(front_end_ns=4 * MS, after_first_token_ns=MS)
    real, sim = VirtualEngine(VirtualClock()), VirtualEngine(VirtualClock())
    parts, _, _ = attributed(real, sim, affine_cost, SPACED, calibration=calibration, host_ns=0, speed=speed)
    assert parts["ttft"][HOST].tolist() == [speed * 4 * MS] * len(LENGTHS)
    assert parts["e2e"][HOST].tolist() == [speed * (4 if tokens == 1 else 5) * MS for _, tokens in LENGTHS]
    for found in parts.values():
        assert (found.drop(columns=HOST).abs() < 1).all(axis=None)


def test_it_says_which_kind_of_batch_the_predictor_gets_wrong() -> None:
    def slow_decode(composition: Composition) -> int:
        return affine_cost(composition) + (0 if composition.num_prefill_seqs else 5 * MS)

    parts, _, _ = attributed(
        VirtualEngine(VirtualClock(), slow_decode), VirtualEngine(VirtualClock()), affine_cost, SPACED
    )
    assert share(parts["e2e"], "predictor, decode batches") == pytest.approx(1)


def test_time_in_which_the_engine_ran_nothing_is_between_iterations() -> None:
    parts, _, _ = attributed(PausingEngine(VirtualClock()), VirtualEngine(VirtualClock()), affine_cost, BURST)
    assert share(parts["e2e"], "between iterations") == pytest.approx(1)
    assert (parts["ttft"]["between iterations"] <= -3 * MS).all()


def test_a_harness_that_wakes_late_is_dispatch_lag() -> None:
    parts, _, _ = attributed(VirtualEngine(LateClock()), VirtualEngine(VirtualClock()), affine_cost, SPACED)
    assert parts["e2e"]["dispatch lag"].tolist() == pytest.approx([0, *[-MS] * (len(LENGTHS) - 1)])
    assert share(parts["ttft"], "dispatch lag") == pytest.approx(1)


@pytest.mark.parametrize("cap", [1, 2])
def test_other_batches_are_scheduling(cap: int) -> None:
    sim = VirtualEngine(VirtualClock(), max_num_seqs=cap)
    parts, _, _ = attributed(VirtualEngine(VirtualClock()), sim, affine_cost, BURST)
    assert share(parts["e2e"], "scheduling") == pytest.approx(1)
    assert parts["e2e"]["scheduling"].abs().mean() > MS


@settings(max_examples=int(os.environ.get("GST_EXAMPLES", "10")))
@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(1, 8)), min_size=1, max_size=6),
    st.data(),
)
def test_the_parts_are_what_a_plain_loop_over_iterations_finds(
    lengths: list[tuple[int, int]], data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.integers(0, 60 * MS), min_size=len(lengths), max_size=len(lengths)))
    arrivals = np.cumsum(gaps).tolist()
    real = PausingEngine(LateClock(), slower)
    sim = VirtualEngine(VirtualClock(), max_num_seqs=2)
    calibrated = data.draw(st.booleans())
    host_ns, front_ns, late_ns = data.draw(st.tuples(*[st.integers(0, MS)] * 3)) if calibrated else (0, 0, 0)
    calibration = calibration_on(front_end_ns=front_ns, after_first_token_ns=late_ns) if calibrated else None
    parts, _, run = attributed(real, sim, affine_cost, arrivals, lengths, calibration, host_ns if calibrated else None)
    assert run.iterations is not None
    for position, request in enumerate(run.requests.to_dict("records")):
        predictor, idle = 0.0, float(request["completion_time_ns"] - request["arrival_time_ns"])
        host = float(front_ns + late_ns * (request["num_decode_tokens_actual"] > 1))
        for row in run.iterations.to_dict("records"):
            since = max(row["start_time_ns"], request["arrival_time_ns"])
            overlap = max(0, min(row["end_time_ns"], request["completion_time_ns"]) - since)
            predictor += overlap * (-(2 * MS + host_ns) / (row["end_time_ns"] - row["start_time_ns"]))
            host += overlap * host_ns / (row["end_time_ns"] - row["start_time_ns"])
            idle -= overlap
        found = parts["e2e"].iloc[position]
        assert found.filter(like="batches").sum() == pytest.approx(predictor, abs=1)
        assert found.get(HOST, 0) == pytest.approx(host, abs=1)
        assert -(found["between iterations"] + found["dispatch lag"]) == pytest.approx(idle, abs=1)


def test_without_predictions_of_this_run_it_says_what_to_do(tmp_path: Path) -> None:
    real = serve(tmp_path / "real", "real", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    sim = serve(tmp_path / "sim", "vidur", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    comparison = compare(real, sim)
    advice = f"run vidur-sim with real_run_dir={tmp_path / 'real'}"
    assert advice in str(attribute(comparison, real, sim))
    write_predictions(sim.path, real, affine_cost)
    assert advice in str(attribute(comparison, real, sim))
    write_at_real_speed(sim.path, VirtualEngine(VirtualClock()), VirtualEngine(VirtualClock()), BURST, LENGTHS)
    path = sim.path / REAL_ITERATIONS.filename
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    found = attribute(comparison, real, sim)
    assert isinstance(found, str)
    assert found.startswith("No attribution: the predicted iterations are not those of this real run.")
    assert advice in found


@pytest.mark.parametrize(
    ("of_real", "of_sim"),
    [
        ({}, {"real_run_dir": "/elsewhere/real_other"}),
        ({"ended_at": "2026-01-02T00:00:00+00:00"}, {"started_at": "2026-01-01T00:00:00+00:00"}),
    ],
)
def test_predictions_of_another_measurement_are_not_used(
    tmp_path: Path, of_real: dict[str, str], of_sim: dict[str, str]
) -> None:
    real = serve(tmp_path / "real", "real", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    sim = serve(tmp_path / "sim", "vidur", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    write_predictions(sim.path, real, affine_cost)
    write_at_real_speed(sim.path, VirtualEngine(VirtualClock()), VirtualEngine(VirtualClock()), BURST, LENGTHS)
    comparison = compare(real, sim)
    assert isinstance(attribute(comparison, real, sim), Attribution)
    real.meta.update(of_real)
    sim.meta.update(of_sim)
    assert "not those of this real run" in str(attribute(comparison, real, sim))


def test_the_table_has_every_part_and_shares_that_add_up() -> None:
    frame = pd.DataFrame([[1.0, 2, 3, 1, 3, 5, 5, 6], [1, 2, 3, 1, 3, 5, 5, 6]], columns=list(PARTS))
    table = Attribution({"e2e": frame}).table()
    assert table["part"].tolist() == [*PARTS, "total"]
    assert table["mean_ns"].tolist() == [1, 2, 3, 1, 3, 5, 5, 6, 26]
    assert table["share"].iloc[:-1].sum() == pytest.approx(1)


def test_parts_that_cancel_out_have_no_shares() -> None:
    frame = pd.DataFrame([[0.1, 0.2, 0, -0.3, 0, 0, 0, 0]], columns=list(PARTS))
    assert frame.sum(axis=1).item() != 0, "as floats are"
    assert Attribution({"e2e": frame}).table()["share"].isna().all()


def test_the_trace_shows_both_engines_and_every_phase_of_a_request(tmp_path: Path) -> None:
    real = serve(tmp_path / "real", "real", VirtualEngine(VirtualClock(), slower), BURST, LENGTHS)
    sim = serve(tmp_path / "sim", "vidur", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    events = json.loads(trace_json(real, sim))["traceEvents"]
    spans = pd.DataFrame([event for event in events if event["ph"] == "X"])
    for pid, run in ((1, real), (2, sim)):
        assert run.iterations is not None
        of_run = spans[spans["pid"] == pid]
        assert (of_run["tid"] == 0).sum() == len(run.iterations)
        of_requests = of_run[of_run["tid"] > 0].groupby("tid")["dur"].sum() * 1000
        assert of_requests.tolist() == pytest.approx(
            (run.requests["completion_time_ns"] - run.requests["arrival_time_ns"]).tolist()
        )
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {"real", "sim", "engine iterations", "request 0"} <= names


def test_iterations_that_overlap_lie_side_by_side_in_the_trace(tmp_path: Path) -> None:
    real = serve(tmp_path / "real", "real", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    sim = serve(tmp_path / "sim", "vidur", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    assert sim.iterations is not None
    sim.iterations["start_time_ns"] -= 1000  # each begins before the one before it has ended
    events = json.loads(trace_json(real, sim))["traceEvents"]
    of_engine = [event for event in events if event["pid"] == 2 and event["name"].startswith("iteration ")]
    assert len(of_engine) == len(sim.iterations)
    assert len({event["tid"] for event in of_engine}) == 2
    for thread in {event["tid"] for event in of_engine}:
        times = sorted((event["ts"], event["ts"] + event["dur"]) for event in of_engine if event["tid"] == thread)
        assert all(end <= start for (_, end), (start, _) in pairwise(times))
