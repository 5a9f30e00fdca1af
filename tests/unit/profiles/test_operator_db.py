"""A profile from the operator database says what the database says, of any model, GPU and split over GPUs."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.latency.kernels import KernelModel, Kernels, pipeline
from gpu_simulate_test.profiles.bundle import Contents, read_bundle, write_bundle
from gpu_simulate_test.profiles.operator_db import _routed, _undisturbed, fill
from gpu_simulate_test.profiles.predictors import Predictors
from tests.support.configs import typed_config

pytest.importorskip("aiconfigurator_core", reason="the operator database is not installed")

LLAMA = ("model=hf", "model.id=meta-llama/Meta-Llama-3.1-70B", "limits.tensor_parallel=4")
MIXTRAL = ("model=hf", "model.id=mistralai/Mixtral-8x7B-v0.1", "limits.tensor_parallel=2")


def config_of(*settings: str) -> VidurProfileConfig:
    config = typed_config("vidur_profile", "profile=operator_db", "hardware=h100", *settings)
    assert isinstance(config, VidurProfileConfig)
    return config


@cache
def contents_of(*settings: str) -> Contents:
    return fill(config_of(*settings))


def model_of(*settings: str) -> KernelModel:
    frames = {table.name.removeprefix("kernels_"): frame for table, frame in contents_of(*settings).tables.items()}
    return KernelModel(None, Kernels(**frames), config_of(*settings).model.num_layers)


def prompt(tokens: int, cached: int = 0) -> Composition:
    return Composition.of([ScheduledSeq(0, tokens, cached, True)])


def decoding(seqs: int, context: int) -> Composition:
    return Composition.of([ScheduledSeq(number, 1, context, False) for number in range(seqs)])


def step_ms(batch: Composition, *settings: str) -> float:
    return model_of(*settings).step_ns(batch, 0.0) / 1e6


def their_engine(model: str, degree: int) -> Any:
    from aiconfigurator_core.sdk.engine import EngineHandle

    return EngineHandle.compile(model, "h100_sxm", "vllm", backend_version="current", tp_size=degree)


def test_a_request_alone_takes_what_the_database_itself_says_of_a_dense_model() -> None:
    theirs = their_engine("meta-llama/Meta-Llama-3.1-70B", 4)
    assert step_ms(decoding(1, 1000), *LLAMA) == pytest.approx(theirs.predict_decode_latency(1, 999, 2), rel=0.03)
    assert step_ms(prompt(1024), *LLAMA) == pytest.approx(theirs.predict_prefill_latency(1, 1024, 0), rel=0.03)


def test_a_batch_of_both_takes_its_operators_once_and_each_attention() -> None:
    both = Composition.of([ScheduledSeq(0, 512, 0, True), ScheduledSeq(1, 1, 700, False)])
    added = step_ms(both, *LLAMA) - step_ms(prompt(512), *LLAMA)
    assert 0 < added < 0.3 * step_ms(decoding(1, 700), *LLAMA)


def test_experts_are_loaded_evenly_so_more_tokens_never_take_less() -> None:
    times = [step_ms(decoding(seqs, 500), *MIXTRAL) for seqs in (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)]
    assert times == sorted(times)


def test_tokens_meet_at_experts_so_few_of_them_read_fewer_weights_than_balanced_ones() -> None:
    tokens, full = [1, 2, 4, 8, 16, 32, 64, 1024], 8.0
    balanced = np.array([1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 9.0, 100.0])  # as many as weights are read, then computing
    took, sources = _routed(balanced, ["measured"] * len(tokens), tokens, full)
    assert took[0] == 1.0, "one visits as many as ever"
    visited = 8 * (1 - (1 - 1 / 8) ** np.array(tokens))
    assert took[:6] == pytest.approx(visited[:6], rel=0.02)
    assert took[-1] == pytest.approx(100.0)
    assert (np.diff(took) > 0).all()
    assert (sources[0], sources[3], sources[-1]) == ("measured", "interpolated", "measured")


def test_a_figure_far_above_those_of_more_tokens_was_disturbed() -> None:
    disturbed = np.array([25.0, 5.1, 26.0, 5.2, 5.3, 25.0, 5.4, 5.5, 5.6, 6.0, 7.0])
    assert _undisturbed(disturbed).tolist() == [5.3, 5.1, 5.4, 5.2, 5.3, 5.6, 5.4, 5.5, 5.6, 6.0, 7.0]
    for kept in ([6.0, 5.5, 5.0, 5.2, 5.1, 5.0], [1.0, 2.0, 4.0, 8.0, 16.0], [8.0, 9.0, 8.5, 4.0, 8.0, 9.0, 9.5, 9.9]):
        assert _undisturbed(np.array(kept)).tolist() == kept, "scatter stays, what grows, and one figure far below"


def test_the_cache_is_quantised_where_somebody_says_so_not_wherever_the_weights_are() -> None:
    moe = ("model=hf", "model.id=Qwen/Qwen3-235B-A22B-FP8", "hardware=h200", "limits.tensor_parallel=4")
    auto, fp8 = (contents_of(*moe, f"limits.kv_cache_dtype={dtype}").meta["kv_tokens"] for dtype in ("auto", "fp8"))
    assert fp8 == pytest.approx(2 * auto, rel=0.01)


def test_static_fp8_can_be_asked_for() -> None:
    said = ("model=hf", "model.id=nvidia/Llama-3.1-70B-Instruct-FP8", "limits.tensor_parallel=4")
    asked = (*LLAMA, "model.quantization=fp8_static", "limits.kv_cache_dtype=fp8")
    assert step_ms(decoding(8, 100), *asked) == pytest.approx(step_ms(decoding(8, 100), *said))


def test_many_kv_heads_cost_what_as_many_sequences_of_fewer_heads_do(tmp_path: Path) -> None:
    heads = {"num_q_heads": 32, "num_kv_heads": 32, "num_layers": 1}
    many = ("model=llama_3_1_8b", *(f"model.{key}={value}" for key, value in heads.items()))
    few = ("model=llama_3_1_8b", "model.num_q_heads=8", "model.num_kv_heads=8", "model.num_layers=1")
    attention = [contents_of(*settings).tables for settings in (many, few)]
    of_many, of_few = (
        next(frame for table, frame in tables.items() if table.name == "kernels_attention") for tables in attention
    )
    assert took(of_many, 16, 1024) == took(of_few, 64, 1024)


def took(attention: pd.DataFrame, seqs: int, context: int) -> float:
    (row,) = attention[(attention["batch_size"] == seqs) & (attention["decode_kv"] == context)].itertuples()
    return float(row.median_ms)


def test_attention_is_never_cheaper_than_from_memory() -> None:
    """A benchmark reads a small KV cache from the L2 cache; a model, whose other layers run in between, does not."""
    (attention,) = (frame for table, frame in contents_of(*LLAMA).tables.items() if table.name == "kernels_attention")
    for seqs in (8, 64):
        rows = attention[attention["batch_size"] == seqs]
        slopes = np.diff(rows["median_ms"]) / np.diff(rows["decode_kv"])
        assert (np.diff(slopes) <= 1e-12).all(), "more context never costs more than the context before it did"


@pytest.mark.parametrize("batch", [prompt(2048), decoding(64, 1000)])
def test_more_gpus_gain_but_less_than_their_number(batch: Composition) -> None:
    times = [step_ms(batch, *LLAMA[:2], f"limits.tensor_parallel={degree}") for degree in (4, 8)]
    assert 1 < times[0] / times[1] < 2


@pytest.mark.parametrize("batch", [prompt(2048), decoding(64, 1000)])
def test_the_stages_of_a_pipeline_share_the_layers_and_cost_what_the_whole_does(batch: Composition) -> None:
    tables = contents_of(*LLAMA, "limits.pipeline_parallel=4").tables
    kernels = Kernels(**{table.name.removeprefix("kernels_"): frame for table, frame in tables.items()})
    whole = pipeline(kernels, 4, 80)
    first, *middle, last = (stage.step_ns(batch, 0.0) for stage in whole.stages)
    assert whole.step_ns(batch, 0.0) == pytest.approx(KernelModel(None, kernels, 80).step_ns(batch, 0.0))
    sends = kernels.per_token[kernels.per_token["op"] == "p2p"].set_index("num_tokens")["median_ms"]
    send = sends[batch.num_prefill_tokens + batch.num_decode_seqs] * 1e6
    assert middle[0] == middle[1] < min(first, last + send), "the first has the embedding, the last the LM head"
    assert whole.step_ns(batch, 0.0) == pytest.approx(step_ms(batch, *LLAMA) * 1e6 + 3 * send)


def test_a_pipeline_leaves_more_room_for_the_cache() -> None:
    alone, two = (contents_of(*LLAMA, f"limits.pipeline_parallel={stages}").meta["kv_tokens"] for stages in (1, 2))
    assert two > 2 * alone, "each stage has half of the layers' weights and of their cache"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("limits.pipeline_parallel=3", "limits.pipeline_parallel=3 does not divide the 80 layers of meta-llama/"),
        ("limits.expert_parallel=3", "limits.expert_parallel=3 does not divide"),
    ],
)
def test_a_split_that_does_not_come_out_even_is_refused(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        contents_of(*LLAMA, setting)


def test_quantised_weights_take_less_time_and_leave_more_room() -> None:
    plain, quantised = contents_of(*LLAMA), contents_of(*LLAMA, "model.quantization=fp8", "limits.kv_cache_dtype=fp8")
    assert step_ms(decoding(8, 100), *LLAMA, "model.quantization=fp8", "limits.kv_cache_dtype=fp8") < 0.8 * step_ms(
        decoding(8, 100), *LLAMA
    )
    assert quantised.meta["kv_tokens"] > 2 * plain.meta["kv_tokens"]


def test_quantisation_is_read_from_the_models_own_config() -> None:
    asked = contents_of("model=hf", "model.id=nvidia/Llama-3.1-70B-Instruct-FP8", "limits.tensor_parallel=4")
    assert asked.meta["kv_tokens"] > 2 * contents_of(*LLAMA).meta["kv_tokens"]


def test_the_profile_says_how_its_figures_are_known(tmp_path: Path) -> None:
    contents = contents_of(*LLAMA)
    for shares in contents.meta["sources"].values():
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["measured"] > 0.8
    assert any("measured" in line for line in contents.lines)
    assert contents.meta["engine"]["details"] == {"vllm": "0.24.0"}
    meta = write_bundle(tmp_path / "root", config_of(*LLAMA), contents)
    profile = read_bundle(tmp_path / "root")
    assert profile.meta == meta
    predictors = Predictors.from_profile(profile)
    assert predictors.operators is None
    assert predictors.iterations.step_ns(prompt(100), 0.0) / 1e6 == pytest.approx(step_ms(prompt(100), *LLAMA))


def test_any_decoder_is_read_from_its_config(tmp_path: Path) -> None:
    said = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "max_position_embeddings": 8192,
        "eos_token_id": [2, 3],
    }
    (tmp_path / "My-Mistral").mkdir()
    (tmp_path / "My-Mistral" / "config.json").write_text(json.dumps(said))
    config = config_of("model=hf", f"model.config={tmp_path / 'My-Mistral'}")
    assert (config.model.id, config.model.name, config.model.architecture) == ("My-Mistral", "my_mistral", "mistral")
    assert (config.model.head_dim, config.model.num_experts, config.model.eos_token_id) == (128, 0, 2)
    assert fill(config).meta["kv_tokens"] > 100_000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("hardware=cpu",), "does not know cpu"),
        (("hardware=gpu", "hardware.name=l4"), "no operator times of vllm on l4"),
        (("profile.version=0.1",), "it has 0.24.0"),
        (("model=hf", "model.id=deepseek-ai/DeepSeek-V3"), "DeepSeek-V3, a deepseek_v3, cannot be simulated"),
        ((*LLAMA[:2],), "does not fit on 1 h100_sxm"),
        ((*MIXTRAL, "limits.expert_parallel=3"), "does not divide"),
        ((*MIXTRAL, "hardware=a100"), "cannot price mistralai/Mixtral-8x7B-v0.1, a mixtral, on a100_sxm"),
        (("hardware=a100", "model.quantization=fp8"), "missing system flops"),
        ((*LLAMA[:2], "limits.tensor_parallel=3"), "64 should be divisible by tp_size 3"),
    ],
)
def test_what_cannot_be_priced_is_refused_in_one_line(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        fill(config_of(*settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "model.id is missing"),
        (("model.id=nobody/nothing",), "is not among the [0-9]+ models"),
        (("model.config=/nowhere",), "no such file: /nowhere"),
        (("model.id=moonshotai/Kimi-K2.5",), "KimiK25ForConditionalGeneration is no decoder"),
    ],
)
def test_a_model_without_a_readable_config_is_refused(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(Exception, match=said):
        config_of("model=hf", *settings)
