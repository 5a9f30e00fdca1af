"""An engine is not started with limits that it cannot be told."""

import pytest

from gpu_simulate_test.config.schema import RealBenchConfig
from gpu_simulate_test.engine import MonotonicClock
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.real_bench import backends
from tests.support.configs import typed_config


@pytest.mark.parametrize(
    ("backend", "limit"),
    [
        ("transformers", "enable_prefix_caching=true"),
        ("transformers", "reserve_whole_prompt=false"),
        ("sarathi", "enable_prefix_caching=true"),
        ("vllm", "async_scheduling=true"),
        ("vllm", "watermark=0.1"),
        ("vllm", "tensor_parallel=2"),
    ],
)
def test_what_it_cannot_have_is_refused_before_it_is_looked_for(backend: str, limit: str) -> None:
    config = typed_config("real_bench", "experiment=cpu_demo", f"backend={backend}", f"limits.{limit}")
    assert isinstance(config, RealBenchConfig)
    with pytest.raises(ConfigError, match=rf"limits\.{limit.partition('=')[0]}=.*: backend={backend} serves with"):
        backends.create_engine(config.backend, config.limits, config.model, config.hardware, MonotonicClock())


def test_vllm_can_have_prefix_caching() -> None:
    config = typed_config("real_bench", "backend=vllm", "limits.enable_prefix_caching=true")
    backends._check_limits(config.backend, config.limits)
