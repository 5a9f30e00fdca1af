"""A run and a profile that somebody else measured are taken in, and simulated from kernels."""

import itertools
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.compare import compare
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.cli import real_bench, vidur_profile, vidur_sim, workload_spec
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.schema import HydraRecord
from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import read_recorded
from gpu_simulate_test.latency.kernels import KernelModel
from gpu_simulate_test.latency.operators import OperatorModel
from gpu_simulate_test.profiles.llmservingsim import read_recorded_profile
from tests.support.configs import typed_config

RECORD = HydraRecord("test", "", [])
PUBLIC = Path(os.environ.get("GST_SHARED_DATA", project_root().parent / "shared" / "data"))
RTX = PUBLIC / "gpu-public" / "rtxpro6000-llama-3.1-8b"
LAYERS = 32


def write_requests(path: Path, **change: object) -> Path:
    """Three requests; the second came last."""
    names = ("input_toks", "output_toks", "queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
    rows = [
        (30, 4, 100.0, 100.001, 100.02, 100.05),
        (20, 3, 100.5, 100.501, 100.52, 100.55),
        (10, 1, 100.25, 100.251, 100.27, 100.27),
    ]
    records: list[dict[str, object]] = [dict(zip(names, row, strict=True)) for row in rows]
    records[1] |= change
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_profile(path: Path, *, skew: bool = True) -> Path:
    """Kernels of a simple truth, us: 1 a token and dense layer, 5 a sequence, 0.01 a query-key pair or context."""
    path.mkdir()
    layers = ["layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj"]
    dense = [(name, n, float(n)) for name in [*layers, "embedding", "final_layernorm"] for n in (1, 8, 64, 512)]
    pd.DataFrame(dense, columns=["layer", "tokens", "time_us"]).to_csv(path / "dense.csv", index=False)
    heads = [(name, n, 5.0 * n) for name in ("lm_head", "sampler") for n in (1, 16, 256)]
    pd.DataFrame(heads, columns=["layer", "sequences", "time_us"]).to_csv(path / "per_sequence.csv", index=False)
    axes = itertools.product((0, 16, 512), (0, 16, 4096), (0, 1, 256), (0, 16, 4096))
    attention = [
        (chunk, cached, batch, context, 0.01 * (chunk * (cached + chunk / 2) + batch * context))
        for chunk, cached, batch, context in axes
        if chunk + batch and (chunk or not cached) and bool(batch) == bool(context)
    ]
    columns = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    pd.DataFrame(attention, columns=columns).to_csv(path / "attention.csv", index=False)
    if skew:  # half way from the mean to the longest
        rows = [(chunk, n, 10.0, 20.0, 15.0) for chunk in (0, 16, 512) for n in (2, 256)]
        columns = ["pc", "n", "t_mean_us", "t_max_us", "t_skew_us"]
        pd.DataFrame(rows, columns=columns).to_csv(path / "skew.csv", index=False)
    return path


def model_of(path: Path) -> KernelModel:
    mlp, attention, kernels = read_recorded_profile(path)
    return KernelModel(OperatorModel(mlp, attention, LAYERS), kernels, LAYERS)


def test_requests_are_read_in_order_of_arrival_in_nanoseconds(tmp_path: Path) -> None:
    frame = read_recorded(write_requests(tmp_path / "requests.jsonl"))
    assert frame["arrival_time_ns"].tolist() == [0, 250_000_000, 500_000_000]
    assert frame["num_prefill_tokens"].tolist() == [30, 10, 20]
    assert frame["completion_time_ns"].tolist() == [50_000_000, 270_000_000, 550_000_000]


@pytest.mark.parametrize(
    "change", [{"input_toks": 0}, {"last_token_ts": None}, {"queued_ts": "soon"}, {"last_token_ts": 1.0}]
)
def test_a_request_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"requests\.jsonl"):
        read_recorded(write_requests(tmp_path / "requests.jsonl", **change))


def test_kernels_add_up_over_layers_and_once(tmp_path: Path) -> None:
    model = model_of(write_profile(tmp_path / "profile"))
    batch = Composition.of([ScheduledSeq(0, 16, 16, True), ScheduledSeq(1, 1, 16, False)])
    tokens, attention = 17, 0.01 * (16 * (16 + 16 / 2) + 16)
    # Two norms a layer; embedding and last norm, LM head and sampler once.
    expected = LAYERS * (8 * tokens + attention) + 2 * tokens + 2 * 5 * 2
    assert model.step_ns(batch, 0.0) / 1e3 == pytest.approx(expected)


def test_unequal_contexts_lie_between_their_mean_and_the_longest(tmp_path: Path) -> None:
    model, flat = model_of(write_profile(tmp_path / "a")), model_of(write_profile(tmp_path / "b", skew=False))
    unequal = Composition.of([ScheduledSeq(0, 1, 100, False), ScheduledSeq(1, 1, 3900, False)])
    extra_us = (model.step_ns(unequal, 0.0) - flat.step_ns(unequal, 0.0)) / 1e3
    assert extra_us == pytest.approx(LAYERS * 0.5 * 0.01 * 2 * (3900 - 2000), rel=1e-6)


@pytest.mark.parametrize("table", ["dense.csv", "per_sequence.csv", "attention.csv", "skew.csv"])
def test_a_profile_with_a_table_cut_inside_its_last_line_is_refused(tmp_path: Path, table: str) -> None:
    path = write_profile(tmp_path / "profile") / table
    whole = path.read_bytes()
    for length in range(whole[:-1].rindex(b"\n") + 2, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=table):
            read_recorded_profile(path.parent)


@pytest.mark.parametrize("table", ["dense.csv", "per_sequence.csv", "attention.csv"])
def test_a_profile_with_a_table_missing_is_refused(tmp_path: Path, table: str) -> None:
    (write_profile(tmp_path / "profile") / table).unlink()
    with pytest.raises(ArtifactError, match=table):
        read_recorded_profile(tmp_path / "profile")


def test_a_mixture_of_experts_is_refused_by_name(tmp_path: Path) -> None:
    path = write_profile(tmp_path / "profile") / "dense.csv"
    path.write_text(path.read_text() + "moe_gate,1,3.0\n")
    with pytest.raises(ArtifactError, match=r"layers of no dense decoder.*moe_gate"):
        read_recorded_profile(path.parent)


def overrides(root: Path, requests: Path, *more: str) -> list[str]:
    return [
        *("model=llama_3_1_8b", "hardware=rtx_pro_6000", "backend=recorded", "workload=trace"),
        *("limits.max_num_seqs=128", "limits.max_num_batched_tokens=2048", "limits.num_blocks=30000"),
        *(f"output.root={root}", f"workload.trace={requests}", *more),
    ]


def stage(command: ModuleType, *settings: str) -> Path:
    """Run a stage in this process; its run directory."""
    path: Path = command.run(typed_config(command.__name__.rpartition(".")[2], *settings), RECORD)
    return path


def run_all(root: Path, requests: Path, profile: Path, *more: str) -> tuple[Path, Path]:
    """Every stage up to the comparison; the real and the simulated run."""
    common = overrides(root, requests, *more)
    stage(workload_spec, *common)
    real = stage(real_bench, *common)
    stage(vidur_profile, *common, f"profile.folder={profile}")
    sim = stage(vidur_sim, *common, f"real_run_dir={real}")
    return real, sim


def test_a_recorded_run_is_compared_in_all_that_was_recorded(tmp_path: Path) -> None:
    requests, profile = write_requests(tmp_path / "requests.jsonl"), write_profile(tmp_path / "profile")
    real_dir, sim_dir = run_all(tmp_path, requests, profile)
    real = load_run(real_dir, "real")
    assert real.tokens.empty
    assert any("time of each token" in figure for figure in real.missing)
    table = compare(real, load_run(sim_dir, "vidur")).percentiles.set_index(["metric", "statistic"])
    assert table.loc[("e2e", "p50"), "real_ns"] == 50_000_000
    assert np.isnan(table.loc[("tbt", "p50"), "real_ns"])
    assert np.isfinite(table.loc[("tpot", "mean"), "relative_error"])


def test_a_recorded_closed_loop_is_replayed_as_it_was_or_made_anew(tmp_path: Path) -> None:
    requests, profile = write_requests(tmp_path / "requests.jsonl"), write_profile(tmp_path / "profile")
    anew = "workload.arrival.kind=closed_loop", "workload.arrival.concurrency=1"
    for folder, more in (("as it was", ()), ("anew", anew)):
        real, sim = (
            load_run(one, kind)
            for one, kind in zip(run_all(tmp_path / folder, requests, profile, *more), ("real", "vidur"), strict=True)
        )
        sent, ended = sim.requests["arrival_time_ns"].tolist(), sim.requests["completion_time_ns"].tolist()
        assert real.requests["arrival_time_ns"].tolist() == [0, 250_000_000, 500_000_000]
        assert sent == ([0, *ended[:2]] if more else real.requests["arrival_time_ns"].tolist())
        assert compare(real, sim).figure("e2e", "p50", "real_ns") == 50_000_000


def test_a_record_of_other_requests_than_the_workload_is_refused(tmp_path: Path) -> None:
    requests = write_requests(tmp_path / "requests.jsonl")
    stage(workload_spec, *overrides(tmp_path, requests))
    other = write_requests(tmp_path / "other.jsonl", input_toks=21)
    with pytest.raises(ArtifactError, match="other requests than the workload"):
        stage(real_bench, *overrides(tmp_path, requests, f"backend.requests={other}"))


def test_what_is_to_be_taken_in_must_be_named(tmp_path: Path) -> None:
    requests = write_requests(tmp_path / "requests.jsonl")
    with pytest.raises(ConfigError, match=r"profile\.folder is missing"):
        stage(vidur_profile, *overrides(tmp_path, requests))


def test_the_public_gpu_run_is_met_more_closely_than_its_own_simulator_does(tmp_path: Path) -> None:
    """The limits are that simulator's published errors, on the same profile and run; nothing here is fitted to it."""
    if not RTX.is_dir():
        pytest.skip(f"the public GPU run is not here: {RTX}")
    real_dir, sim_dir = run_all(tmp_path, RTX / "vllm" / "requests.jsonl", RTX / "profile")
    table = compare(load_run(real_dir, "real"), load_run(sim_dir, "vidur")).percentiles
    error = table.set_index(["metric", "statistic"])["relative_error"].abs()
    assert error["ttft", "mean"] <= 0.040
    assert error["ttft", "p50"] <= 0.086
    assert error["tpot", "mean"] <= 0.010
    assert error["e2e", "mean"] <= 0.018
