"""Simulations with noise are the same in this process and in several, and leave none behind."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.calibration import NO_DOUBT, Constants
from gpu_simulate_test.latency.noise import Noise
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.simulator.samples import Samples
from tests.support.latency import Costs
from tests.support.virtual_engine import affine_cost

LIMITS = EngineLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=16, num_blocks=4096)
OUTPUTS = np.array([40, 30, 50, 1, 20] * 8)
ARRIVALS = ArrivalProcess.at(np.arange(len(OUTPUTS)) * 3_000_000)
CORE = Core(LIMITS, (ARRIVALS, np.full(len(OUTPUTS), 30), OUTPUTS))


def samples(root: Path, count: int, *constants: Constants, noisy: bool = True) -> Samples:
    lengths = {"request_id": np.arange(len(OUTPUTS)), "num_prefill_tokens": 30, "num_decode_tokens": OUTPUTS}
    workload = Workload(Path("nowhere"), {"workload_sha256": "x"}, pd.DataFrame(lengths), ARRIVALS)
    record = pd.DataFrame({"time_ns": np.arange(50) * 10_000_000, "ratio": np.linspace(0.5, 2, 50)})
    folders = [root / str(number) for number in range(count)]
    return Samples(folders, workload, LIMITS, Costs(affine_cost), Noise(record) if noisy else None, *constants)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.csv"))}


@pytest.mark.parametrize("replicas", [1, 2])
def test_in_two_processes_they_are_what_they_are_in_one(tmp_path: Path, replicas: int) -> None:
    told: list[int] = []
    limits = LIMITS.model_copy(update={"data_parallel": replicas})
    core = replace(CORE, limits=limits, router="least_outstanding")

    here = samples(tmp_path / "here", 3).here(core.run_with, lambda _count: None)
    apart = samples(tmp_path / "apart", 3).apart(core, 2, told.append)
    assert np.array_equal(here, apart)
    assert files(tmp_path / "here") == files(tmp_path / "apart")
    assert len({content for name, content in files(tmp_path / "here").items() if "request" in name}) == 3
    assert sum(told) == 3 * len(OUTPUTS)


def test_constants_are_drawn_as_well_as_they_are_known(tmp_path: Path) -> None:
    constants, deviation = Constants(front_end_ns=9e6, step_ns=2e6), replace(NO_DOUBT, front_end_ns=1e6)
    spread = [
        samples(tmp_path / name, 40, constants, doubt, noisy=False).here(CORE.run_with, lambda _count: None)
        for name, doubt in (("doubted", deviation), ("sure", NO_DOUBT))
    ]
    ttft = np.array(spread)[:, :, 0, 0]  # P50, ms
    assert ttft[0].std() == pytest.approx(1.0, rel=0.4)
    assert ttft[0].mean() == pytest.approx(ttft[1].mean(), abs=0.6)
    assert ttft[1].std() == 0


def test_an_interrupt_ends_them_all(tmp_path: Path) -> None:
    def interrupt(_finished: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        samples(tmp_path, 50).apart(CORE, 2, interrupt)
    assert not multiprocessing.active_children()
    assert len(files(tmp_path)) < 50 * 2
