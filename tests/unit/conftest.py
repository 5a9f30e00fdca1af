"""What several rooms' tests begin with."""

import pytest

from tests.support.configs import typed_config


@pytest.fixture(scope="session")
def demo_in_vidur() -> None:
    """Vidur knows the demo's model and device."""
    from gpu_simulate_test.vidur_ext.device_config import register_device
    from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model

    config = typed_config("vidur_sim", "experiment=cpu_demo")
    register_model(config.model)
    register_device(config.hardware)
