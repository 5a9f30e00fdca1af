"""vidur-sim with Vidur's own predictor; in this process, for its own grid takes tens of minutes to train."""

import json
from functools import partial
from pathlib import Path

import pytest

from gpu_simulate_test.cli.vidur_sim import run
from gpu_simulate_test.config.schema import HydraRecord, VidurSimConfig
from gpu_simulate_test.io.tables import ITERATION_METRICS, REAL_ITERATIONS, read_table
from gpu_simulate_test.vidur_ext import sim_runner
from gpu_simulate_test.vidur_ext.stock_predictor import train_stock
from tests.support.commands import SMALL
from tests.support.configs import typed_config
from tests.unit.vidur_ext.test_stock_predictor import SMALL_GRID


def test_the_stage_simulates_and_attributes_with_it(
    root: Path, real: Path, profile: Path, sim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim_runner, "train_stock", partial(train_stock, **SMALL_GRID))
    overrides = (*SMALL, f"output.root='{root}'", "vidur/predictor=stock", f"real_run_dir='{real}'")
    config = typed_config("vidur_sim", *overrides)
    assert isinstance(config, VidurSimConfig)
    path = run(config, HydraRecord("vidur_sim", "", []))
    assert path != sim
    assert json.loads((path / "run_meta.json").read_text())["predictor"] == "stock"
    of_real = read_table(real, ITERATION_METRICS)
    simulated = read_table(path, ITERATION_METRICS)
    assert simulated["num_prefill_tokens"].sum() == of_real["num_prefill_tokens"].sum()
    predicted = read_table(path, REAL_ITERATIONS)
    assert predicted["iteration_id"].tolist() == of_real["iteration_id"].tolist()
    assert (predicted["predicted_ns"] > 0).all()
