"""Host time is added where an engine schedules step by step, and hidden behind the kernels where it schedules ahead."""

from dataclasses import replace

import numpy as np
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.calibration import NOTHING, Calibrated, Constants
from gpu_simulate_test.latency.model import decode_run
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.simulator.engine import run_core
from gpu_simulate_test.timeline import Timeline
from tests.support.latency import Costs
from tests.support.virtual_engine import affine_cost

MS = 1_000_000
BATCH = Composition(0, 0, 3, 0, 300, 0, 150)  # takes 1.33 ms
STEP_BY_STEP = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)
AHEAD = STEP_BY_STEP.model_copy(update={"async_scheduling": True})
HOST = Constants(step_ns=2 * MS, sequence_ns=0.1 * MS, kernel_factor=1.5)
ARRIVALS = np.array([0, 3 * MS, 4 * MS, 30 * MS])
PROMPTS, OUTPUTS = np.array([20, 70, 5, 33]), np.array([6, 9, 1, 4])


@pytest.mark.parametrize(("limits", "took_ms"), [(STEP_BY_STEP, 1.5 * 1.33 + 2.3), (AHEAD, 2.3)])
def test_a_step_is_the_sum_of_kernels_and_host_or_the_longer_of_the_two(limits: EngineLimits, took_ms: float) -> None:
    model = Calibrated(Costs(affine_cost), HOST, limits)
    assert model.step_ns(BATCH, 0.0) == pytest.approx(took_ms * MS)
    assert model.host_ns(BATCH, 0.0) == pytest.approx((took_ms - 1.5 * 1.33) * MS)


@pytest.mark.parametrize("limits", [STEP_BY_STEP, AHEAD])
def test_a_run_of_decode_steps_takes_what_each_of_them_takes(limits: EngineLimits) -> None:
    model = Calibrated(Costs(affine_cost), HOST, limits)
    times = model.decode_run_ns(BATCH, 20)
    assert times is not None
    assert times.tolist() == [model.step_ns(batch, 0.0) for batch in decode_run(BATCH, 20)]


def served(constants: Constants, limits: EngineLimits = STEP_BY_STEP, scheduler: str = "vllm_v1") -> Timeline:
    core = Core(limits, (ArrivalProcess.at(ARRIVALS), PROMPTS, OUTPUTS), scheduler, constants=constants)
    return core.run(Calibrated(Costs(affine_cost), constants, limits))


def test_no_constants_are_no_calibration() -> None:
    plain = run_core(
        STEP_BY_STEP, Costs(affine_cost), ArrivalProcess.at(ARRIVALS), PROMPTS, OUTPUTS, scheduler="vllm_v1"
    )
    assert served(NOTHING).difference(plain) is None


def test_the_front_end_shifts_a_run_and_changes_nothing_else() -> None:
    plain, shifted = served(NOTHING), served(Constants(front_end_ns=7 * MS))
    assert (shifted.out_ns - plain.out_ns == 7 * MS).all()
    assert (np.array(shifted.submit_ns) - ARRIVALS == 7 * MS).all()


def test_a_host_that_works_ahead_delays_tokens_by_its_sequences_and_not_the_iterations() -> None:
    plain, delayed = served(NOTHING, AHEAD), served(replace(NOTHING, sequence_ns=0.1 * MS), AHEAD)
    assert delayed.end_ns.tolist() == plain.end_ns.tolist()
    assert (delayed.out_ns >= delayed.end_ns + 100_000 * delayed.num_seqs).all()
    assert (np.diff(delayed.out_ns) >= 0).all(), "tokens come out in the order in which they are made"


def test_every_replica_delivers_its_own_tokens_in_order() -> None:
    two = AHEAD.model_copy(update={"data_parallel": 2})
    line = served(replace(NOTHING, sequence_ns=0.1 * MS), two)
    assert len(line.begins) == 2
    for piece in np.split(line.out_ns, line.begins[1:]):
        assert (np.diff(piece) >= 0).all()
