"""Whatever source fills a bundle, the same reader and the same predictors take it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.profiles import llmservingsim, measured
from gpu_simulate_test.profiles.bundle import Contents, read_bundle, served, write_bundle
from gpu_simulate_test.profiles.predictors import Predictors
from tests.support.configs import typed_config
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost
from tests.unit.profiles.test_recorded import model_of, overrides, write_profile

BATCHES = [
    Composition.of([ScheduledSeq(0, 40, 0, True), ScheduledSeq(1, 1, 50, False)]),
    Composition.of([ScheduledSeq(0, 1, 20, False), ScheduledSeq(1, 1, 50, False)]),
]


def written(root: Path, contents: Contents, *settings: str) -> tuple[Predictors, dict[str, object]]:
    """The predictors of a bundle that went to disk and back, and its metadata."""
    config = typed_config("vidur_profile", *settings)
    meta = write_bundle(root, config, contents)
    profile = read_bundle(root)
    assert profile.meta == meta
    return Predictors.from_profile(profile), meta


def test_an_engine_served_with_bursts_is_predicted_as_it_is(tmp_path: Path) -> None:
    settings = ("experiment=cpu_demo", "vidur.profiling.repeats=2")
    lengths = pd.DataFrame({"num_prefill_tokens": [20, 60, 90], "num_decode_tokens": [5, 9, 3]})
    workload = Workload(
        tmp_path, {}, lengths.assign(request_id=range(3), prompt_id="a"), ArrivalProcess.at(np.zeros(3, dtype=np.int64))
    )
    clock = VirtualClock()
    contents = measured.fill(
        typed_config("vidur_profile", *settings), workload, VirtualEngine(clock), clock, tmp_path / "kept"
    )
    predictors, meta = written(tmp_path / "root", contents, *settings)
    for batch in BATCHES:
        assert predictors.iterations.step_ns(batch, 0.0) == pytest.approx(affine_cost(batch), rel=0.02)
    assert meta["held_out"]["median_abs_error"] < 0.02
    assert predictors.noise is not None
    assert predictors.operators is None, "this engine's cannot be called by themselves"


def test_a_folder_of_kernels_is_predicted_as_its_tables_say(tmp_path: Path) -> None:
    folder = write_profile(tmp_path / "profile")
    settings = overrides(tmp_path, tmp_path / "none", f"profile.folder={folder}")
    predictors, _ = written(tmp_path / "root", llmservingsim.fill(typed_config("vidur_profile", *settings)), *settings)
    for batch in BATCHES:
        assert predictors.iterations.step_ns(batch, 0.0) == pytest.approx(model_of(folder).step_ns(batch, 0.0))
    assert predictors.noise is None


@pytest.mark.parametrize(
    ("said", "engine"),
    [
        ("profiler_version: 1\nvllm_version: '0.19.0'\n", {"engine": "vllm", "engine version": "0.19.0"}),
        ("vllm_version: 0.20.1rc1\n", {"engine": "vllm", "engine version": "0.20.1rc1"}),
        ("profiler_version: 1\n", {}),
        (None, {}),
    ],
)
def test_kernels_are_of_the_engine_that_their_folder_names_whatever_the_settings_say(
    tmp_path: Path, said: str | None, engine: dict[str, str]
) -> None:
    folder = write_profile(tmp_path / "profile")
    if said is not None:
        (folder / "meta.yaml").write_text(said, encoding="utf-8")
    settings = overrides(tmp_path, tmp_path / "none", f"profile.folder={folder}")
    _, meta = written(tmp_path / "root", llmservingsim.fill(typed_config("vidur_profile", *settings)), *settings)
    assert served(meta) == engine
