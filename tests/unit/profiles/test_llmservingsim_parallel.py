"""LLMServingSim's profiles of several GPUs and of mixtures of experts, and its newer tables."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import yaml

from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.profiles.bundle import Contents, read_bundle, served, write_bundle
from gpu_simulate_test.profiles.llmservingsim import fill
from gpu_simulate_test.profiles.predictors import Predictors
from tests.support.configs import typed_config
from tests.unit.profiles.test_recorded import LAYERS, overrides, write_profile

HIDDEN, VOCAB = 4096, 128256
MIXTURE = ("+model.num_experts=8", "+model.num_experts_per_tok=2")
TWO = "limits.tensor_parallel=2"
BATCH = Composition.of([ScheduledSeq(0, 16, 16, True), ScheduledSeq(1, 1, 16, False)])
ATTENTION_US = 0.01 * (16 * (16 + 16 / 2) + 16)
DECODING = Composition.of([ScheduledSeq(number, 1, 16, False) for number in range(8)])
BYTES = (4096, 65536, 2**24)


def reduce_us(tokens: int) -> float:
    return 10 + tokens * HIDDEN * 2 / 1e4


def gather_us(seqs: int) -> float:
    return 5 + seqs * VOCAB / 2 * 2 / 1e4


def write_hardware(path: Path, *, npus: int = 2, older: bool = False) -> None:
    reduced = [{"bytes": size, "us": 10 + size / 1e4} for size in BYTES]
    gathered = [{"collective": "all_gather", "bytes": size, "us": 5 + size / 1e4, "us_graphed": 1.0} for size in BYTES]
    samples = reduced if older else [{"collective": "all_reduce", **one} for one in reduced] + gathered
    text = yaml.safe_dump({"hardware": "X", "measured": {"interconnect": {"npus": npus, "samples": samples}}})
    (path / "hardware.yaml").write_text(text, encoding="utf-8")


def write_variant(root: Path, *degrees: int) -> Path:
    """The folder of a model's tables at each degree, where the profiler puts it."""
    variant = root / "GPU" / "meta-llama" / "Llama-3.1-8B" / "bf16"
    variant.mkdir(parents=True)
    (variant / "meta.yaml").write_text("vllm_version: 0.19.0\n", encoding="utf-8")
    for degree in degrees:
        write_profile(variant / f"tp{degree}")
    return variant


def write_mixture(root: Path, *degrees: int, groups: tuple[int, ...] = ()) -> Path:
    """10 us an expert that is visited and 1 us a token, ten times as long in groups; measured at one degree alone."""
    variant = write_variant(root, *degrees)
    for folder in variant.glob("tp*"):
        dense = pd.read_csv(folder / "dense.csv")
        dense[~dense["layer"].isin(["gate_up_proj", "act_fn", "down_proj"])].to_csv(folder / "dense.csv", index=False)
    rows = [
        {**({"ep": ep} if groups else {}), "tokens": tokens, "activated_experts": visited}
        | {"time_us": (10.0 * visited + tokens) * (10 if ep > 1 else 1)}
        for ep, tokens, visited in itertools.product(groups or (1,), (1, 8, 64, 512), (1, 2, 4, 8))
        if visited <= 8 / ep
    ]
    pd.DataFrame(rows).to_csv(variant / "tp1" / "moe.csv", index=False)
    return variant


def config_of(folder: Path, *settings: str) -> VidurProfileConfig:
    common = overrides(folder.parent / "out", folder / "none", f"profile.folder={folder}")
    config = typed_config("vidur_profile", *common, *settings)
    assert isinstance(config, VidurProfileConfig)
    return config


def contents_of(folder: Path, *settings: str) -> Contents:
    return fill(config_of(folder, *settings))


def model_of(folder: Path, *settings: str, predictor: str = "iteration") -> LatencyModel:
    """That of a bundle that went to disk and back."""
    path = folder / "-".join(["bundle", *settings]).replace("/", "")
    write_bundle(path, config_of(folder, *settings), contents_of(folder, *settings))
    return Predictors.from_profile(read_bundle(path)).model(predictor)


def test_the_degree_picks_the_folder_and_meta_lies_above(tmp_path: Path) -> None:
    variant = write_variant(tmp_path, 1, 2)
    tables = contents_of(variant)
    assert served(tables.meta) == {"engine": "vllm", "engine version": "0.19.0"}
    assert "- source: bf16/tp1" in tables.lines
    assert contents_of(variant / "tp1").meta["source"] == tables.meta["source"]


@pytest.mark.parametrize(
    ("name", "degree", "said"),
    [
        ("", 4, r"limits\.tensor_parallel=4: .*bf16 has no tp4; it has tp1, tp2"),
        ("tp2", 1, r"limits\.tensor_parallel=1: the tables of .*tp2 are of 2; set it to that"),
        ("tp1", 2, r"limits\.tensor_parallel=2: the tables of .*tp1 are of 1"),
    ],
)
def test_a_folder_of_another_degree_is_refused(tmp_path: Path, name: str, degree: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        contents_of(write_variant(tmp_path, 1, 2) / name, f"limits.tensor_parallel={degree}")


def test_several_gpus_reduce_twice_a_layer_and_after_the_embedding_and_gather_the_logits(tmp_path: Path) -> None:
    variant = write_variant(tmp_path, 1, 2)
    write_hardware(tmp_path / "GPU")
    layer = 8 * 17 + 2 * reduce_us(17)
    once = 2 * 17 + reduce_us(17) + 2 * 5 * 2 + gather_us(2)
    took = model_of(variant, TWO).step_ns(BATCH, 0.0)
    assert took / 1e3 == pytest.approx(LAYERS * (layer + ATTENTION_US) + once)
    operators = model_of(variant / "tp2", TWO, predictor="operators_only").step_ns(DECODING, 0.0)
    assert operators / 1e3 == pytest.approx(LAYERS * (8 * 8 + 2 * reduce_us(8) + 0.01 * 8 * 16))


def test_what_older_files_did_not_measure_is_left_out_and_said(tmp_path: Path) -> None:
    variant = write_variant(tmp_path, 2)
    write_hardware(variant, older=True)
    assert any("gathering of the logits was not measured" in line for line in contents_of(variant, TWO).lines)
    once = 2 * 17 + reduce_us(17) + 2 * 5 * 2
    took = model_of(variant, TWO).step_ns(BATCH, 0.0)
    assert took / 1e3 == pytest.approx(LAYERS * (8 * 17 + 2 * reduce_us(17) + ATTENTION_US) + once)


def test_without_a_measured_all_reduce_of_so_many_gpus_nothing_is_simulated(tmp_path: Path) -> None:
    variant = write_variant(tmp_path, 2)
    with pytest.raises(
        ArtifactError, match=r"limits\.tensor_parallel=2 needs times of an all-reduce: no hardware\.yaml"
    ):
        contents_of(variant, TWO)
    write_hardware(variant, npus=4)
    with pytest.raises(ArtifactError, match=r"needs .*hardware\.yaml has all_gather, all_reduce of 4 GPUs"):
        contents_of(variant, TWO)
    for text in ("measured: {interconnect: null}\n", "a: [\n", "", "measured: {interconnect: {npus: 2, samples: 3}}\n"):
        (variant / "hardware.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ArtifactError, match=r"no measured\.interconnect that can be read") as caught:
            contents_of(variant, TWO)
        assert "\n" not in str(caught.value)


def test_experts_cost_what_as_many_as_an_even_choice_visits_do(tmp_path: Path) -> None:
    variant = write_mixture(tmp_path, 1)
    visited = 8 * (1 - 0.75**8)
    layer = 5 * 8 + 0.01 * 8 * 16 + 10 * visited + 8
    model = model_of(variant, *MIXTURE)
    assert model.step_ns(DECODING, 0.0) / 1e3 == pytest.approx(LAYERS * layer + 2 * 8 + 2 * 5 * 8)
    one = Composition.of([ScheduledSeq(0, 1, 16, False)])
    assert model.step_ns(one, 0.0) / 1e3 == pytest.approx(LAYERS * (5 + 0.01 * 16 + 10 * 2 + 1) + 2 + 2 * 5)
    with pytest.raises(ArtifactError, match="no operator tables: vidur/predictor=operators_only needs them"):
        model_of(variant / "tp1", *MIXTURE, predictor="operators_only")


def test_experts_that_gpus_share_are_those_of_one_of_them(tmp_path: Path) -> None:
    variant = write_mixture(tmp_path, 1, 2, groups=(1, 2))
    write_hardware(variant)
    visited = 4 * (1 - 0.75**8)
    layer = 5 * 8 + 0.01 * 8 * 16 + 10 * (10 * visited + 8) + 2 * reduce_us(8)
    once = 2 * 8 + reduce_us(8) + 2 * 5 * 8 + gather_us(8)
    took = model_of(variant, *MIXTURE, TWO, "limits.expert_parallel=2").step_ns(DECODING, 0.0)
    assert took / 1e3 == pytest.approx(LAYERS * layer + once)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((*MIXTURE, TWO), r"limits\.expert_parallel=1: experts were measured whole.*set it to .*, 2"),
        ((*MIXTURE, TWO, "limits.expert_parallel=2"), r"no experts of limits\.expert_parallel=2: .*it has 1"),
        (("+model.num_experts=4", "+model.num_experts_per_tok=2"), r"experts of another model: .*8 are visited, of 4"),
        ((), r"layers missing: .*a mixture of experts has model\.num_experts"),
    ],
)
def test_experts_that_were_not_measured_so_are_refused(tmp_path: Path, settings: tuple[str, ...], said: str) -> None:
    variant = write_mixture(tmp_path, 1, 2)
    write_hardware(variant)
    with pytest.raises((ArtifactError, ConfigError), match=said) as caught:
        contents_of(variant, *settings)
    assert "\n" not in str(caught.value)


def test_a_mixture_without_its_table_or_with_layers_that_are_not_alike_is_refused(tmp_path: Path) -> None:
    variant = write_mixture(tmp_path, 1)
    dense = variant / "tp1" / "dense.csv"
    dense.write_text(dense.read_text() + "down_proj,1,3.0\ndown_proj,512,3.0\n")
    with pytest.raises(ArtifactError, match=r"which layers have experts is not said: .* has down_proj as well"):
        contents_of(variant, *MIXTURE)
    other = write_mixture(tmp_path / "other", 1)
    (other / "tp1" / "moe.csv").unlink()
    with pytest.raises(ArtifactError, match=r"cannot read: .*moe\.csv"):
        contents_of(other, *MIXTURE)


def test_newer_tables_of_attention_say_the_same_of_one_prompt(tmp_path: Path) -> None:
    older, newer = write_profile(tmp_path / "older", skew=False), write_profile(tmp_path / "newer")
    table = pd.read_csv(newer / "attention.csv")
    table["prefill_key"] = table.pop("kv_prefill") + table["prefill_chunk"] / 2
    table = table.assign(layer="attention", decode_q_len=1)
    several = table[table["prefill_chunk"] == 512].assign(prefill_key=16.0, time_us=1e9)
    drafted = table[table["n_decode"] > 0].assign(decode_q_len=4, time_us=1e9)
    pd.concat([table, several, drafted]).to_csv(newer / "attention.csv", index=False)
    (newer / "skew.csv").write_text("layer,requests_json,t_skew_us\nattention,[],3.0\n")
    ours, theirs = model_of(older), model_of(newer)
    for batch in (BATCH, DECODING, BATCH._replace(kv_tokens_prefill=100, prefill_pairs=1728)):
        assert theirs.step_ns(batch, 0.0) == pytest.approx(ours.step_ns(batch, 0.0))
    table.assign(layer="indexer").to_csv(newer / "attention.csv", index=False)
    with pytest.raises(ArtifactError, match=r"attention of no dense decoder: .*indexer"):
        contents_of(newer)
    table.drop(columns="prefill_key").to_csv(newer / "attention.csv", index=False)
    with pytest.raises(ArtifactError, match=r"columns missing: .*attention\.csv: kv_prefill, or prefill_key"):
        contents_of(newer)
