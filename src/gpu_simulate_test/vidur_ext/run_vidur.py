"""Vidur's own command line, knowing our models, devices and predictor.

``python -m gpu_simulate_test.vidur_ext.run_vidur [any Vidur flag]``. Our predictor is
``--execution_time_predictor_config_type gsim
--gsim_execution_time_predictor_config_profiling_root <profiling root>``.
"""

import sys

from vidur.main import main as vidur_main

from gpu_simulate_test.config.base import read
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.schema import HardwareConfig
from gpu_simulate_test.errors import StageError
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_shipped_models
from gpu_simulate_test.vidur_ext.vidur_predictor import register_predictor


def register_all() -> None:
    """Register every shipped model and device, and our predictor."""
    register_shipped_models()
    for path in sorted((config_dir() / "hardware").glob("*.yaml")):
        if path.stem != "gpu":  # any device, which only the settings of a stage name
            register_device(read(HardwareConfig, path))
    register_predictor()


if __name__ == "__main__":
    register_all()
    try:
        vidur_main()
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
