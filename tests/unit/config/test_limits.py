"""Limits have one spelling; runs measured before that are read as well."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gpu_simulate_test.analysis.compare import compare
from gpu_simulate_test.analysis.gates import check_gates
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.config.limits import EngineLimits, with_limits
from gpu_simulate_test.io.run_dir import read_run_meta
from gpu_simulate_test.simulator.real_run import load_real_run
from tests.support.builders import write_run
from tests.unit.test_vidur_sim_prereqs import workload_of

LIMITS = {"max_num_seqs": 7, "max_num_batched_tokens": 99, "block_size": 8, "num_blocks": 50}
OF_REAL = {"name": "transformers", **LIMITS, "max_model_len": 4096, "dtype": "float32", "device": "cpu", "details": {}}
OF_SIM = {"scheduler": "sarathi", "batch_cap": 7, "token_budget": 99, "block_size": 8, "num_blocks": 50}


def test_a_real_run_written_before_limits_had_one_spelling_is_simulated(tmp_path: Path) -> None:
    path = write_run(tmp_path / "real", "real", [[5, 9, 12], [7]], engine=OF_REAL, backend="recorded")
    real = load_real_run(path, workload_of([(16, 3), (16, 1)]))
    assert real.limits == EngineLimits(**LIMITS, dtype="float32")


@pytest.mark.parametrize(
    ("engine", "params", "expected"),
    [
        ({"name": "sarathi"}, {}, {"watermark": 0.01}),
        ({"name": "recorded"}, {"backend": {"enable_prefix_caching": True}}, {"enable_prefix_caching": True}),
    ],
)
def test_what_such_a_run_left_unsaid_is_known_from_its_engine(
    engine: dict[str, Any], params: dict[str, Any], expected: dict[str, Any]
) -> None:
    read = with_limits({"engine": OF_REAL | engine, "params": params})
    assert EngineLimits(**read["engine"]["limits"]) == EngineLimits(**LIMITS, dtype="float32", **expected)
    assert read["engine"]["device"] == "cpu"


def test_such_runs_are_compared_with_each_other_and_with_new_ones(tmp_path: Path) -> None:
    rows = [[5, 9, 12], [10**9 + 7]]
    real = load_run(write_run(tmp_path / "r", "real", rows, engine=OF_REAL), "real")
    for number, settings in enumerate((OF_SIM, {"scheduler": "sarathi", "limits": LIMITS})):
        sim = load_run(write_run(tmp_path / str(number), "vidur", rows, settings=settings), "vidur")
        gates = check_gates(compare(real, sim), [real], sim).set_index("gate")
        for gate in ("KV blocks", "KV block size", "requests in a batch", "tokens in a batch"):
            assert gates.loc[gate, "status"] == "passed", gate


def test_new_metadata_is_left_as_it_is(tmp_path: Path) -> None:
    engine = {"name": "vllm", "limits": LIMITS, "details": {}}
    assert read_run_meta(write_run(tmp_path / "r", "real", [[5]], engine=engine))["engine"] == engine
    assert with_limits({"engine": None, "workload_sha256": "0"}) == {"engine": None, "workload_sha256": "0"}


def test_limits_no_engine_can_have_are_refused() -> None:
    for wrong in ({"max_num_seqs": 0}, {"watermark": 1.0}, {"watermark": float("nan")}, {"blocks": 1}):
        with pytest.raises(ValidationError):
            EngineLimits(**(LIMITS | wrong))  # type: ignore[arg-type]
