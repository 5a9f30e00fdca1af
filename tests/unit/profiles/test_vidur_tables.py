"""Vidur's own published tables are simulated from as they lie in a checkout of it, at any of their degrees."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from gpu_simulate_test.cli import vidur_sim, workload_spec
from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.latency.model import stages_of
from gpu_simulate_test.latency.operators import COMPUTE_OPS
from gpu_simulate_test.profiles.bundle import Profile
from gpu_simulate_test.profiles.predictors import Predictors
from gpu_simulate_test.profiles.vidur_tables import with_collectives
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.profiling_root import load_profile
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.stock_predictor import train_stock
from gpu_simulate_test.vidur_ext.vidur_config import sim_settings
from tests.support.configs import typed_config
from tests.unit.profiles.test_recorded import RECORD
from tests.unit.vidur_ext.test_stock_predictor import SMALL_GRID

MODEL = "meta-llama/Meta-Llama-3-8B"
LAYERS, HIDDEN = 4, 4096
DEGREES = (1, 2, 4)
SEND_MS = {1: 0.5, 2: 0.1}  # by GPUs in a node


def operator_us(tokens: float, degree: int) -> float:
    return 8 * tokens / degree


def prefill_us(chunk: float, cached: float, degree: int) -> float:
    return (chunk + 0.5 * cached) / degree


def decode_us(seqs: int, cached: float, degree: int) -> float:
    return seqs * cached / 64 / degree


def all_reduce_us(tokens: float, degree: int) -> float:
    return 10 * degree + tokens


def write_checkout(root: Path, hidden: int = HIDDEN) -> Path:
    """Tables of a simple truth, in Vidur's columns: an empty field where a row does not measure an operator."""
    compute = root / "data" / "profiling" / "compute" / "a100" / MODEL
    compute.mkdir(parents=True)
    of_model = {"n_head": 32, "n_kv_head": 8, "n_embd": hidden, "n_expanded_embd": 14336, "use_gated_mlp": True}
    mlp = [
        {
            f"time_stats.{op}.{kind}": operator_us(tokens, degree) / 1e3
            for op in COMPUTE_OPS
            for kind in ("median", "max")
        }
        | {**of_model, "vocab_size": 128256, "num_tokens": tokens, "num_tensor_parallel_workers": degree}
        for degree in DEGREES
        for tokens in (4096, 1024, 1, 1)
    ]
    pd.DataFrame(mlp).to_csv(compute / "mlp.csv", index=False)
    prompts = [(1, chunk, chunk * times) for chunk in (64, 128, 192, 1024) for times in range(4096 // chunk)]
    alone = [(1, length, 0) for length in (32, 96, 2048, 3000)]
    decoding = [(seqs, 0, cached) for seqs in (1, 2, 128) for cached in (64, 2048, 4032)]
    attention = [
        {
            "time_stats.attn_prefill.median": prefill_us(chunk, cached, degree) / 1e3 if chunk else None,
            "time_stats.attn_decode.median": None if chunk else decode_us(seqs, cached, degree) / 1e3,
            "time_stats.attn_kv_cache_save.median": 0.01,
            **{"n_q_head": 32, "n_kv_head": 8, "n_embd": hidden, "block_size": 16, "max_model_len": 4096},
            **{"batch_size": seqs, "prefill_chunk_size": chunk, "kv_cache_size": cached, "is_prefill": chunk > 0},
            **{"num_tensor_parallel_workers": degree, "attention_backend": "AttentionBackend.FLASHINFER"},
        }
        for degree in DEGREES
        for seqs, chunk, cached in prompts + alone + decoding
    ]
    pd.DataFrame(attention).to_csv(compute / "attention.csv", index=False)
    return write_network(root / "data" / "profiling" / "network" / "a100_dgx").parents[3]


def write_network(network: Path, in_node: int = 8) -> Path:
    """An index without a name, as theirs have; two GPUs of one node, and of two."""
    network.mkdir(parents=True)
    common = {"rank": 0, "max_devices_per_node": in_node}
    sizes = [tokens * HIDDEN * 2 for tokens in (1, 16, 8192)]
    reduce = [
        {"time_stats.all_reduce.median": (all_reduce_us(size / HIDDEN / 2, degree) + 900 * (here < degree)) / 1e3}
        | {**common, "num_workers": degree, "devices_per_node": here, "size": size, "collective": "all_reduce"}
        for size, (degree, here) in itertools.product(sizes, [(2, 1), (2, 2), (4, 4)])
    ]
    send = [
        {"time_stats.send_recv.median": took, **common, "num_workers": 2, "devices_per_node": here, "size": size}
        | {"collective": "send_recv"}
        for size, (here, took) in itertools.product(sizes, SEND_MS.items())
    ]
    pd.DataFrame(reduce).to_csv(network / "all_reduce.csv")
    pd.DataFrame(send).to_csv(network / "send_recv.csv")
    return network


def config_of(root: Path, *settings: str, stage: str = "vidur_sim") -> StageConfig:
    return typed_config(
        stage,
        *("model=llama_3_1_8b", "hardware=a100", "workload=synthetic", "vidur/predictor=operators_only"),
        *(f"model.id={MODEL}", f"model.num_layers={LAYERS}", f"vidur.profiling.root={root}", *settings),
    )


def predictors_of(root: Path, *settings: str) -> Predictors:
    return Predictors.from_profile(load_profile(config_of(root, *settings)))


BATCH = Composition.of([ScheduledSeq(0, 128, 256, True), ScheduledSeq(1, 1, 2048, False)])


@pytest.mark.parametrize("degree", DEGREES)
def test_a_batch_takes_the_operators_of_its_degree_and_two_all_reduces_a_layer(tmp_path: Path, degree: int) -> None:
    predictors = predictors_of(write_checkout(tmp_path), f"limits.tensor_parallel={degree}")
    operators = 9 * operator_us(129, degree) + prefill_us(128, 256, degree) + decode_us(1, 2048, degree)
    sent = 2 * all_reduce_us(129, degree) if degree > 1 else 0
    model = predictors.model("operators_only")
    assert model.step_ns(BATCH, 0.0) / 1e3 == pytest.approx(LAYERS * (operators + sent))


def test_a_chunk_is_priced_after_any_context_though_each_was_measured_after_multiples_of_itself(
    tmp_path: Path,
) -> None:
    model = predictors_of(write_checkout(tmp_path)).model("operators_only")
    for chunk, cached in ((64, 100), (96, 512), (150, 1000), (600, 300)):
        batch = Composition.of([ScheduledSeq(0, chunk, cached, True)])
        expected = LAYERS * (9 * operator_us(chunk, 1) + prefill_us(chunk, cached, 1))
        assert model.step_ns(batch, 0.0) / 1e3 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("in_node", "send_us"), [(8, 100), (2, 500)])
def test_the_stages_of_a_pipeline_share_the_layers_and_send_to_the_next(
    tmp_path: Path, in_node: int, send_us: float
) -> None:
    root = write_checkout(tmp_path)
    write_network(root / "data" / "profiling" / "network" / "mine", in_node)
    settings = ("limits.tensor_parallel=2", "limits.pipeline_parallel=2", "hardware.vidur_network_device=mine")
    first, last = stages_of(predictors_of(root, *settings).model("operators_only"))
    whole = predictors_of(root, *settings[::2]).model("operators_only").step_ns(BATCH, 0.0)
    assert last.step_ns(BATCH, 0.0) == pytest.approx(whole / 2)
    assert first.step_ns(BATCH, 0.0) == pytest.approx(whole / 2 + send_us * 1e3)


def test_what_the_tables_cover_is_known(tmp_path: Path) -> None:
    predictors = predictors_of(write_checkout(tmp_path))
    batches = [BATCH, BATCH._replace(max_kv_decode=5000), BATCH._replace(num_decode_seqs=200)]
    assert predictors.cover(pd.DataFrame(batches)).tolist() == [True, False, False]
    assert predictors.noise is None


def test_whole_iterations_were_not_measured_and_what_can_be_had_is_named(tmp_path: Path) -> None:
    predictors = predictors_of(write_checkout(tmp_path))
    with pytest.raises(ArtifactError, match="predictor=iteration needs them; take operators_only or stock"):
        predictors.model("iteration")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("limits.tensor_parallel=8",), r"no operators of limits\.tensor_parallel=8: .*mlp\.csv: it has 1, 2, 4"),
        (("limits.block_size=32",), r"limits\.block_size=32: .*attention\.csv: it has 16"),
        (("model.num_kv_heads=4",), r"model\.num_kv_heads=4: .*: it has 8"),
        (("model.head_dim=64",), "profile of another head_dim"),
        (("+model.num_experts=8",), "profile of another num_experts"),
        (("+model.quantization=fp8",), "profile of another quantization"),
        (("limits.dtype=float32",), "profile of another dtype"),
        (("limits.pipeline_parallel=3",), "does not divide the 4 layers"),
        (("model.id=meta-llama/other",), f"no profile of meta-llama/other on a100: .*{MODEL}"),
        (
            ("limits.tensor_parallel=2", "hardware.vidur_network_device=none"),
            r"no all_reduce\.csv, which limits\.tensor_parallel=2 needs: .*, such as a100_dgx",
        ),
    ],
)
def test_what_the_tables_do_not_have_is_refused_in_one_line(
    tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises((ArtifactError, ConfigError), match=said) as caught:
        load_profile(config_of(write_checkout(tmp_path), *settings))
    assert "\n" not in str(caught.value)


def test_a_network_without_the_degree_is_refused(tmp_path: Path) -> None:
    root = write_checkout(tmp_path)
    path = root / "data" / "profiling" / "network" / "a100_dgx" / "all_reduce.csv"
    table = pd.read_csv(path, index_col=0)
    table[table["num_workers"] != 4].to_csv(path)
    with pytest.raises(ArtifactError, match=r"no all_reduce of 4 GPUs in a node, which limits.*: it has 2$"):
        load_profile(config_of(root, "limits.tensor_parallel=4"))


@pytest.mark.parametrize("table", ["mlp.csv", "attention.csv"])
def test_a_table_without_an_operator_or_with_gaps_in_it_is_refused(tmp_path: Path, table: str) -> None:
    root = write_checkout(tmp_path)
    path = root / "data" / "profiling" / "compute" / "a100" / MODEL / table
    whole = pd.read_csv(path)
    op = "time_stats.attn_pre_proj.median" if table == "mlp.csv" else "time_stats.attn_decode.median"
    whole.drop(columns=op).to_csv(path, index=False)
    with pytest.raises(ArtifactError, match=f"columns missing: .*{table}: {op}"):
        load_profile(config_of(root))
    whole.assign(**{op: None}).to_csv(path, index=False)
    with pytest.raises(ArtifactError, match=f"no times in some of the rows: .*{table}: .*{op}"):
        load_profile(config_of(root))


def test_a_measured_profile_of_several_gpus_takes_the_collectives_that_lie_beside_it(tmp_path: Path) -> None:
    network = write_network(tmp_path / "network" / "a100_dgx")
    mlp = pd.DataFrame({"num_tokens": [1, 129]} | {f"time_stats.{op}.median": [0.1, 0.1] for op in COMPUTE_OPS})
    attention = load_profile(config_of(write_checkout(tmp_path / "checkout"))).attention
    meta = {"num_layers": LAYERS, "tensor_parallel": 2}
    measured = Profile(tmp_path, meta, mlp, attention, iteration=None, noise=None, kernels=None)
    sums = [
        Predictors.from_profile(profile).model("operators_only").step_ns(BATCH, 0.0)
        for profile in (measured, with_collectives(measured, network, HIDDEN))
    ]
    assert (sums[1] - sums[0]) / 1e3 == pytest.approx(LAYERS * 2 * all_reduce_us(129, 2))
    with pytest.raises(ArtifactError, match=r"no all_reduce\.csv"):
        with_collectives(measured, tmp_path / "nothing", HIDDEN)


def test_vidurs_own_forests_are_trained_at_the_degree_with_its_all_reduces(tmp_path: Path) -> None:
    root = write_checkout(tmp_path)
    batch = Composition.of([ScheduledSeq(0, 64, 0, True)])

    def stock_us(*settings: str) -> float:
        config = config_of(root, *settings)
        register_model(config.model)
        register_device(config.hardware)
        return (
            train_stock(load_profile(config), sim_settings(config, None), 128, **SMALL_GRID).step_ns(batch, 0.0) / 1e3
        )

    degree = "limits.tensor_parallel=2"
    took = stock_us(degree)
    path = root / "data" / "profiling" / "network" / "a100_dgx" / "all_reduce.csv"
    slower = pd.read_csv(path, index_col=0)
    slower["time_stats.all_reduce.median"] += 7.0
    slower.to_csv(path)
    assert stock_us(degree) - took == pytest.approx(LAYERS * 2 * 7000, rel=1e-3)
    with pytest.raises(ConfigError, match="stock is trained on one stage; take operators_only"):
        stock_us(degree, "limits.pipeline_parallel=2")


def test_a_simulation_says_whose_tables_it_is_from(tmp_path: Path) -> None:
    root = write_checkout(tmp_path / "vidur")
    settings = (f"output.root={tmp_path}", "workload.num_requests=3", "limits.tensor_parallel=2")
    workload_spec.run(config_of(root, *settings, stage="workload_spec"), RECORD)
    run = vidur_sim.run(config_of(root, *settings), RECORD)
    meta = read_json(run / "run_meta.json")
    assert meta["profile_source"].startswith("Vidur's published tables, ")
    assert meta["profile_held_out"] is meta["profile_sources"] is None
    assert "- profile: Vidur's published tables" in (run / "summary.md").read_text()
