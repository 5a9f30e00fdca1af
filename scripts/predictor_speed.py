#!/usr/bin/env python3
"""How soon a fresh profile gives its first prediction: our predictor, and Vidur's own on the same tables.

Takes the overrides of vidur-sim, whose workload and profile must exist (``vidur.profiling.root=`` names another
profile). Run it alone on the machine: ``python scripts/predictor_speed.py experiment=cpu_demo``. Vidur's own takes
tens of minutes.
"""

import argparse
import logging
import time
from collections.abc import Callable

from hydra import compose, initialize_config_dir

from gpu_simulate_test.cli.app import typed_config
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import VidurSimConfig
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.io.workload import load_workload, workload_path
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.profiling_root import load_profile
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.sim_runner import sim_settings
from gpu_simulate_test.vidur_ext.stock_predictor import train_stock


def seconds(first_prediction: Callable[[], float]) -> float:
    """How long a call takes, imports excluded."""
    start = time.perf_counter()
    first_prediction()
    return time.perf_counter() - start


def main() -> None:
    """Time both, print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = typed_config("vidur_sim", compose("vidur_sim", overrides=arguments.overrides))
    assert isinstance(config, VidurSimConfig)
    register_model(config.model)
    register_device(config.hardware)
    settings = sim_settings(config, None)
    lengths = load_workload(workload_path(config), config.model.id).lengths
    longest = int((lengths["num_prefill_tokens"] + lengths["num_decode_tokens"]).max())
    batch = Composition.of([ScheduledSeq(0, min(longest, settings.limits.max_num_batched_tokens), 0, True)])

    ours = seconds(lambda: Predictors.from_profile(load_profile(config)).iterations.step_ns(batch, 0.0))
    print(f"ours: {ours:.3f} s", flush=True)
    stock = seconds(lambda: train_stock(load_profile(config), settings, longest).predict_ns(batch))
    print(f"Vidur's own: {stock:.1f} s\nratio: {stock / ours:.0f}")


if __name__ == "__main__":
    main()
