"""vLLM beside the simulator; run in the environment that `make vllm` installs."""

from pathlib import Path

import pandas as pd
import pytest

from gpu_simulate_test.io.files import read_json
from tests.support.commands import SMALL, error_line, run, run_dir

pytest.importorskip("vllm", reason="vLLM is not installed here: make vllm")

COMPOSITION = ["num_prefill_tokens", "num_prefill_seqs", "num_decode_seqs", "kv_tokens_prefill", "kv_tokens_decode"]

BATCHES = [*COMPOSITION, "prefill_pairs", "max_kv_decode", "num_preempted"]
# Prompts that share beginnings, and too little cache for them.
SHARED = (
    "workload.num_requests=12",
    "workload.num_prefill_tokens=110",
    "workload.num_prefill_tokens_min=null",
    "workload.num_decode_tokens=40",
    "workload.prefix.num_tokens=80",
    "workload.prefix.num_prefixes=2",
    "limits.num_blocks=10",
    "limits.enable_prefix_caching=true",
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """All requests arrive at once, so that the batches do not depend on how fast the machine is."""
    root = tmp_path_factory.mktemp("vllm")
    return (
        *SMALL,
        "workload.arrival.inter_arrival_ns=0",
        "backend=vllm",
        "limits.num_blocks=40",
        f"output.root={root}",
    )


@pytest.fixture(scope="module")
def real(settings: tuple[str, ...]) -> Path:
    run_dir(run("workload-spec", *settings))
    return run_dir(run("real-bench", *settings, "repeats=2"))


@pytest.fixture(scope="module")
def profile(settings: tuple[str, ...], real: Path) -> Path:
    return run_dir(run("vidur-profile", *settings))


def test_the_engine_runs_with_the_settings_asked_for(real: Path) -> None:
    engine = read_json(real / "run_meta.json")["engine"]
    asked = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "block_size": 32, "num_blocks": 40, "dtype": "float32"}
    assert {key: engine["limits"][key] for key in asked} == asked
    assert engine["details"]["num_threads"] == 1
    assert not engine["details"]["enable_prefix_caching"]


def test_every_token_is_accounted_for_in_the_iterations(real: Path) -> None:
    requests, iterations = (pd.read_csv(real / f"{name}_metrics.csv") for name in ("request", "iteration"))
    assert (requests["status"] == "ok").all()
    assert (requests["num_decode_tokens_actual"] == requests["num_decode_tokens"]).all()
    assert iterations["num_prefill_tokens"].sum() == requests["num_prefill_tokens"].sum()
    # The prompt's last chunk makes the first output token.
    assert iterations["num_decode_seqs"].sum() == (requests["num_decode_tokens"] - 1).sum()


def test_the_simulator_makes_the_same_batches(settings: tuple[str, ...], real: Path, profile: Path) -> None:
    sim = run_dir(run("vidur-sim", *settings, f"real_run_dir={real}"))
    of_real, of_sim = (pd.read_csv(path / "iteration_metrics.csv")[COMPOSITION] for path in (real, sim))
    pd.testing.assert_frame_equal(of_real, of_sim)
    comparison = run_dir(run("compare-runs", *settings, f"real_run_dir={real}", f"sim_run_dir={sim}"))
    assert (comparison / "report.html").is_file()


def test_the_simulator_finds_the_same_tokens_in_the_cache(settings: tuple[str, ...], profile: Path) -> None:
    shared = (*settings, *SHARED)
    run_dir(run("workload-spec", *shared))
    real = run_dir(run("real-bench", *shared, "repeats=2"))
    limits = read_json(real / "run_meta.json")["engine"]["limits"]
    assert limits["enable_prefix_caching"]
    assert not limits["async_scheduling"]
    sim = run_dir(run("vidur-sim", *shared, f"real_run_dir={real}"))
    again = real.with_name(f"{real.name}-r2")  # which found nothing of the first
    of_real, of_again, of_sim = (pd.read_csv(path / "iteration_metrics.csv")[BATCHES] for path in (real, again, sim))
    pd.testing.assert_frame_equal(of_real, of_again)
    pd.testing.assert_frame_equal(of_real, of_sim)
    assert of_real["num_preempted"].sum() > 0
    requests = [pd.read_csv(path / "request_metrics.csv") for path in (real, sim)]
    for name in ("num_cached_tokens", "num_preemptions"):
        pd.testing.assert_series_equal(requests[0][name], requests[1][name])
    assert requests[0]["num_cached_tokens"].gt(0).sum() > 6


def test_without_operator_tables_only_the_iteration_predictor_works(settings: tuple[str, ...], profile: Path) -> None:
    done = run("vidur-sim", *settings, "vidur/predictor=operators_only")
    assert "no operator tables" in error_line(done, 3)


def test_a_block_size_that_vllm_cannot_use(settings: tuple[str, ...], real: Path) -> None:
    done = run("real-bench", *settings, "limits.block_size=16", "overwrite=true")
    assert "vLLM refuses these settings" in error_line(done, 2)
