"""From the engine to the report's table: a delay that was put in comes out, exactly."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.compare import compare
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.io.files import write_json
from gpu_simulate_test.io.run_dir import RUN_META
from gpu_simulate_test.io.tables import ITERATION_METRICS, REQUEST_METRICS, TOKEN_METRICS, write_table
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.real_bench.metrics import build_metrics
from gpu_simulate_test.real_bench.replay import replay
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost, requests_of

MS = 1_000_000
LENGTHS = [(20 + 3 * index, 5 + index % 4) for index in range(12)]
ARRIVALS = ArrivalProcess.at(np.arange(12) * 500 * MS)  # far apart: a delay cannot pile up


def serve(path: Path, run_type: str, prefill_delay: int, decode_delay: int) -> Run:
    def cost(batch: Composition) -> int:
        return affine_cost(batch) + (prefill_delay if batch.num_prefill_seqs else decode_delay)

    frame = pd.DataFrame(LENGTHS, columns=["num_prefill_tokens", "num_decode_tokens"])
    frame.insert(0, "request_id", range(len(frame)))
    clock = VirtualClock()
    recording = replay(VirtualEngine(clock, cost), requests_of(LENGTHS), ARRIVALS, clock)
    metrics = build_metrics(Workload(path, {}, frame, ARRIVALS), recording, "virtual")
    path.mkdir()
    write_table(path, REQUEST_METRICS, metrics.requests)
    write_table(path, TOKEN_METRICS, metrics.tokens)
    write_table(path, ITERATION_METRICS, metrics.iterations)
    write_json(path / RUN_META, {"run_type": run_type, "run_id": run_type, "workload_sha256": "5a"})
    return load_run(path, run_type)


def errors(tmp_path: Path, prefill_delay: int, decode_delay: int) -> dict[tuple[str, str], float]:
    real = serve(tmp_path / "real", "real", 0, 0)
    sim = serve(tmp_path / "sim", "vidur", prefill_delay, decode_delay)
    table = compare(real, sim).percentiles
    return {(row["metric"], row["statistic"]): row["error_ns"] for row in table.to_dict("records")}


STATISTICS = ("p50", "p90", "p99", "mean")


def test_ten_milliseconds_in_the_prompt_are_ten_milliseconds_of_ttft_and_e2e_and_none_of_tbt(tmp_path: Path) -> None:
    error = errors(tmp_path, 10 * MS, 0)
    for statistic in STATISTICS:
        assert error["ttft", statistic] == pytest.approx(10 * MS, abs=1e-6)
        assert error["e2e", statistic] == pytest.approx(10 * MS, abs=1e-6)
        assert error["tbt", statistic] == pytest.approx(0, abs=1e-6)


def test_ten_milliseconds_in_every_decode_step_are_ten_milliseconds_of_tbt_and_none_of_ttft(tmp_path: Path) -> None:
    error = errors(tmp_path, 0, 10 * MS)
    for statistic in STATISTICS:
        assert error["tbt", statistic] == pytest.approx(10 * MS, abs=1e-6)
        assert error["tpot", statistic] == pytest.approx(10 * MS, abs=1e-6)
        assert error["ttft", statistic] == pytest.approx(0, abs=1e-6)


def test_no_delay_is_no_difference(tmp_path: Path) -> None:
    assert set(errors(tmp_path, 0, 0).values()) == {0.0}
