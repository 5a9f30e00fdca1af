"""A closed loop sends a request when another ends, the same in reality and in every simulation."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.latency.calibration import Calibrated, Constants
from gpu_simulate_test.real_bench.replay import replay
from gpu_simulate_test.run_tables import first_and_last_tokens
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.timeline import Timeline
from gpu_simulate_test.vidur_ext.simulation import simulate
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings
from tests.support.latency import Costs
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost, requests_of

MS = 1_000_000
FEW = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)
SETTINGS = SimSettings("gsim/qwen3-tiny", "cpu", "cpu_node", "sarathi", FEW)
EXAMPLES = int(os.environ.get("GST_EXAMPLES", "60"))
LENGTHS = st.lists(st.tuples(st.integers(1, 150), st.integers(1, 10)), min_size=1, max_size=16)
pytestmark = pytest.mark.usefixtures("demo_in_vidur")


@st.composite
def processes(draw: st.DrawFn, size: int) -> ArrivalProcess:
    """Closed loops, and conversations that begin at known times or when others are over."""
    if draw(st.booleans()):
        times = st.sampled_from([0, 0, 3 * MS, 7_654_321])
        return ArrivalProcess.closed_loop(size, draw(st.integers(1, 6)), draw(times), draw(times))
    known, follows, delay = np.full((3, size), -1, dtype=np.int64)
    heads: list[int] = []
    for one in range(size):
        delay[one] = draw(st.integers(0, 20 * MS))
        ends = [head for head in heads if head not in follows]
        if ends and draw(st.booleans()):
            follows[one] = draw(st.sampled_from(ends))
        elif not heads or draw(st.booleans()):
            known[one] = max(known.max(), 0) + draw(st.integers(0, 20 * MS))
        heads.append(one)
    return ArrivalProcess(known, follows, delay)


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[tuple[int, int]], ArrivalProcess]:
    lengths = draw(LENGTHS)
    return lengths, draw(processes(len(lengths)))


def core(
    lengths: list[tuple[int, int]],
    process: ArrivalProcess,
    limits: EngineLimits = FEW,
    scheduler: str = "sarathi",
    constants: Constants | None = None,
) -> Timeline:
    costs, constants = Costs(affine_cost), constants or Constants()
    one = Core(limits, (process, *np.array(lengths).T), scheduler, constants=constants)
    return one.run(Calibrated(costs, constants, limits))


def test_a_user_alone_sends_when_the_answer_is_there_and_has_been_thought_over() -> None:
    lengths, process = [(10, 3)] * 4, ArrivalProcess.closed_loop(4, 1, think_ns=5 * MS)
    iteration = [affine_cost(batch) for batch in core(lengths[:1], process.first(1)).batches]
    took = sum(iteration)
    sent = [number * (took + 5 * MS) for number in range(4)]
    ends = [one + took for one in sent]
    clock = VirtualClock()
    real = replay(VirtualEngine(clock), requests_of(lengths), process, clock)
    for line in (real, core(lengths, process), core(lengths, process, scheduler="vllm_v1")):
        assert line.arrival_ns.tolist() == sent
        assert line.end_ns[first_and_last_tokens(line)[1]].tolist() == ends


def test_as_many_are_under_way_as_there_are_users() -> None:
    lengths, process = [(20, 5 + number % 7) for number in range(40)], ArrivalProcess.closed_loop(40, 3)
    line = core(lengths, process)
    sent, ends = np.array(line.arrival_ns), line.end_ns[first_and_last_tokens(line)[1]]
    assert (sent[:3] == 0).all()
    assert sorted(sent[3:]) == sorted(ends)[:37], "each end sends one"
    for moment in sent[3:]:
        assert ((sent <= moment) & (ends > moment)).sum() == 3


@settings(max_examples=EXAMPLES, deadline=None)
@given(asked())
def test_an_engine_its_simulation_and_vidurs_loop_send_and_serve_alike(
    case: tuple[list[tuple[int, int]], ArrivalProcess],
) -> None:
    lengths, process = case
    clock = VirtualClock()
    real = replay(VirtualEngine(clock), requests_of(lengths), process, clock)
    simulated = core(lengths, process)
    vidur = simulate(SETTINGS, Costs(affine_cost), process, *np.array(lengths).T)
    assert simulated.difference(vidur) is None
    assert simulated.arrival_ns == vidur.arrival_ns == real.arrival_ns
    assert simulated.token_times_ns() == real.token_times_ns()


@settings(max_examples=EXAMPLES, deadline=None)
@given(asked(), st.booleans(), st.integers(0, 3))
def test_however_many_iterations_are_simulated_at_once(
    case: tuple[list[tuple[int, int]], ArrivalProcess], ahead: bool, host: int
) -> None:
    class OneByOne(Calibrated):
        def decode_run_ns(self, batch: object, count: int) -> None:
            return None

    lengths = [(prompt, 20 * output) for prompt, output in case[0]]
    constants = Constants(sequence_ns=100_000.0 * host, front_end_ns=2e6 * host, after_first_token_ns=3e6 * host)
    limits = FEW.model_copy(update={"async_scheduling": ahead})
    together, single = (
        Core(limits, (case[1], *np.array(lengths).T), "vllm_v1", constants=constants).run(
            model(Costs(affine_cost), constants, limits)
        )
        for model in (Calibrated, OneByOne)
    )
    assert together.difference(single) is None
    assert together.arrival_ns == single.arrival_ns


@settings(max_examples=EXAMPLES, deadline=None)
@given(asked(), st.integers(2, 3), st.sampled_from(["round_robin", "least_outstanding"]))
def test_replicas_send_and_serve_as_vidurs_cluster(
    case: tuple[list[tuple[int, int]], ArrivalProcess], replicas: int, router: str
) -> None:
    lengths, process = case
    limits = FEW.model_copy(update={"data_parallel": replicas})
    mine = Core(limits, (process, *np.array(lengths).T), router=router).run(Costs(affine_cost))
    vidur = simulate(replace(SETTINGS, limits=limits, router=router), Costs(affine_cost), process, *np.array(lengths).T)
    assume(len(set(vidur.end_ns.tolist())) == vidur.num_iterations)  # or the order of two ends decides
    assert mine.arrival_ns == vidur.arrival_ns
    assert mine.difference(vidur) is None


@pytest.mark.parametrize("ahead", [False, True])
def test_a_client_answers_when_it_sees_the_answer_and_the_engine_sees_that_later(ahead: bool) -> None:
    constants = Constants(sequence_ns=50_000.0, front_end_ns=4e6, after_first_token_ns=1e6)
    limits = FEW.model_copy(update={"async_scheduling": ahead})
    line = core([(10, 5), (10, 1), (10, 5)], ArrivalProcess.closed_loop(3, 1), limits, "vllm_v1", constants)
    _, last = first_and_last_tokens(line)
    out = line.out_ns[last] + np.array([1, 0, 1]) * MS
    assert line.arrival_ns.tolist() == [0, *out[:2].tolist()]
    assert (np.array(line.submit_ns) - np.array(line.arrival_ns) == 4 * MS).all()


def test_a_refused_request_is_an_end_as_well() -> None:
    clock = VirtualClock()
    engine = VirtualEngine(clock, refuse=frozenset({0, 1}), fail=frozenset({2}))
    line = replay(engine, requests_of([(10, 3)] * 5), ArrivalProcess.closed_loop(5, 1), clock)
    assert sorted(line.failures) == [0, 1, 2]
    assert line.token_counts()[3:].tolist() == [3, 3]
