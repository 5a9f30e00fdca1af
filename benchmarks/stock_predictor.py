"""How soon a profile gives its first prediction: our predictor, and Vidur's own forests on the same tables."""

from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir

from benchmarks.table import Row, Scale
from benchmarks.timing import seconds
from gpu_simulate_test.cli.app import typed_config
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import VidurSimConfig
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.profiling_root import load_profile
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.stock_predictor import train_stock
from gpu_simulate_test.vidur_ext.vidur_config import sim_settings

MEASURED = Path(__file__).parents[1] / "tests" / "data" / "cpu-qwen3-tiny"


def rows(scale: Scale) -> list[Row]:
    """On the profile that is in the repository; Vidur's takes tens of minutes, so only at full scale."""
    register_resolvers()
    overrides = ["experiment=cpu_demo", f"vidur.profiling.root={MEASURED / 'profile'}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = typed_config("vidur_sim", compose("vidur_sim", overrides=overrides))
    assert isinstance(config, VidurSimConfig)
    register_model(config.model)
    register_device(config.hardware)
    settings = sim_settings(config, None)
    (served,) = MEASURED.glob("real/*-r2/request_metrics.csv")
    requests = pd.read_csv(served)
    longest = int((requests["num_prefill_tokens"] + requests["num_decode_tokens"]).max())
    batch = Composition.of([ScheduledSeq(0, min(longest, settings.limits.max_num_batched_tokens), 0, True)])

    ours = seconds(lambda: Predictors.from_profile(load_profile(config)).model("iteration").step_ns(batch, 0.0))
    what = "first prediction from a fresh profile"
    if scale == "quick":
        return [Row(what, f"{ours:.3f} s")]
    stock = seconds(lambda: train_stock(load_profile(config), settings, longest).step_ns(batch, 0.0))
    return [
        Row(f"{what}, Vidur's own forests on the same tables against it", f"{stock:.0f} and {ours:.3f} s", stock / ours)
    ]
