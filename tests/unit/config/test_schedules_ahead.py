"""Whether a recorded engine scheduled a step ahead, and whom it admitted, follows from its version."""

import pytest

from tests.support.configs import typed_config

LIMITS = ("limits.max_num_seqs=8", "limits.max_num_batched_tokens=64", "limits.num_blocks=100")


@pytest.mark.parametrize(
    ("engine", "version", "hardware", "ahead"),
    [
        ("vllm", "0.15.1", "h100", True),
        ("vllm", "0.14.0rc1", "h100", True),
        ("vllm", "1.0.0", "h100", True),
        ("vllm", "0.13.2", "h100", False),
        ("vllm", "0.15.1", "cpu", False),
        ("vllm", "null", "h100", False),
        ("sglang", "0.15.1", "h100", False),
        ("null", "null", "h100", False),
    ],
)
def test_vllm_on_gpus_does_since_0_14(engine: str, version: str, hardware: str, ahead: bool) -> None:
    said = (f"backend.engine={engine}", f"backend.engine_version={version}")
    config = typed_config("vidur_sim", "backend=recorded", f"hardware={hardware}", *LIMITS, *said)
    assert config.limits.async_scheduling is ahead


@pytest.mark.parametrize(
    ("engine", "version", "whole"),
    [("vllm", "0.19.0", True), ("vllm", "0.18.1", False), ("vllm", "null", True), ("sglang", "0.5.0", True)],
)
def test_vllm_admits_prompts_as_a_whole_since_0_19(engine: str, version: str, whole: bool) -> None:
    said = (f"backend.engine={engine}", f"backend.engine_version={version}")
    assert typed_config("vidur_sim", "backend=recorded", *LIMITS, *said).limits.reserve_whole_prompt is whole


def test_an_engine_that_is_not_named_is_that_of_the_operator_database() -> None:
    unnamed = ("backend=recorded", "hardware=h100", *LIMITS)
    assert typed_config("vidur_sim", *unnamed, "profile=operator_db").limits.async_scheduling
    assert not typed_config("vidur_sim", *unnamed).limits.async_scheduling


def test_what_the_user_says_stands() -> None:
    config = typed_config("vidur_sim", "backend=recorded", *LIMITS, "limits.async_scheduling=true")
    assert config.limits.async_scheduling
