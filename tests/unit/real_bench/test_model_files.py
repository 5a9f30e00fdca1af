"""What a model lacks is said in one line, before an engine starts."""

import pytest

from gpu_simulate_test.errors import ConfigError
from tests.support.configs import typed_config

pytest.importorskip("torch", reason="torch is not installed")


def test_random_weights_are_of_models_that_the_settings_say_in_full() -> None:
    from gpu_simulate_test.real_bench.backends.model import dummy_config

    config = typed_config("real_bench", "experiment=cpu_demo", "model.architecture=mixtral")
    with pytest.raises(ConfigError, match="for llama and qwen3, not for mixtral"):
        dummy_config(config.model)


def test_a_pretrained_model_needs_its_folder() -> None:
    from gpu_simulate_test.real_bench.backends.model import model_folder

    config = typed_config("real_bench", "model=llama_3_1_8b")
    with pytest.raises(ConfigError, match=r"model\.path is missing"):
        model_folder(config.model)
