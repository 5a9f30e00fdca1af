"""Before anything is simulated: the profile is whole and of these settings, the real run of this workload."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.schema import VidurSimConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.profile_tables import ATTENTION, ITERATION, MLP, NOISE
from gpu_simulate_test.io.tables import write_table
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.profiles.bundle import PROFILE_META, bundle_dir, identity
from gpu_simulate_test.simulator.real_run import load_real_run, machine_speed
from gpu_simulate_test.vidur_ext.profiling_root import check_owner, load_profile, profile_mismatch
from gpu_simulate_test.vidur_ext.vidur_config import check_limits, check_loop, sim_settings
from tests.support.builders import write_run
from tests.support.configs import typed_config


def config_of(root: Path, *overrides: str) -> VidurSimConfig:
    config = typed_config("vidur_sim", "experiment=cpu_demo", f"output.root={root}", *overrides)
    assert isinstance(config, VidurSimConfig)
    return config


def write_bundle(config: VidurSimConfig, **meta: object) -> Path:
    path = bundle_dir(Path(config.vidur.profiling.root), config.hardware.vidur_device, config.model.id)
    path.mkdir(parents=True)
    for table in (MLP, ATTENTION, ITERATION, NOISE):
        write_table(path, table, pd.DataFrame([dict.fromkeys(table.required, 1)]))
    (path / PROFILE_META).write_text(json.dumps(identity(config) | meta))
    return path


def workload_of(lengths: list[tuple[int, int]]) -> Workload:
    frame = pd.DataFrame(lengths, columns=["num_prefill_tokens", "num_decode_tokens"])
    frame.insert(0, "request_id", range(len(frame)))
    return Workload(
        Path("nowhere"), {"workload_sha256": "5a" * 32}, frame, ArrivalProcess.at(np.zeros(len(frame), dtype=np.int64))
    )


def test_a_whole_profile_of_these_settings_is_taken(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = write_bundle(config)
    assert load_profile(config).path == path


def test_no_profile_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run vidur-profile first"):
        load_profile(config_of(tmp_path))


def test_a_profile_of_another_model_is_named(tmp_path: Path) -> None:
    write_bundle(config_of(tmp_path))
    other = config_of(tmp_path, "model=qwen3_0_6b", f"vidur.profiling.root={tmp_path}/vidur_profiling")
    with pytest.raises(ArtifactError, match=r"no profile of Qwen/Qwen3-0\.6B.*gsim/qwen3-tiny"):
        load_profile(other)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dtype", "float16"), ("tensor_parallel", 2), ("pipeline_parallel", 2), ("num_layers", 3), ("hidden_size", 512)],
)
def test_a_profile_of_another_model_or_data_type_is_refused(tmp_path: Path, key: str, value: object) -> None:
    config = config_of(tmp_path)
    write_bundle(config, **{key: value})
    with pytest.raises(ArtifactError, match=f"profile of another {key}"):
        load_profile(config)


def test_a_profile_of_another_engine_is_taken_and_the_difference_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write_bundle(config, backend="vllm", attn_implementation="eager", num_threads=1)
    assert profile_mismatch(config, load_profile(config), None) == [
        {"what": "engine", "profile": "vllm", "settings": "transformers"},
        {"what": "attention kernel", "profile": "eager", "settings": "sdpa"},
    ]


def test_of_a_real_run_its_own_engine_counts(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    profiled = {"name": "transformers", "details": {"attn_implementation": "sdpa", "num_threads": 1}}
    write_bundle(config, engine=profiled, env={"versions": {"transformers": "5.18.0"}})
    real = {"engine": profiled, "env": {"versions": {"transformers": "5.19.0"}}}
    assert profile_mismatch(config, load_profile(config), real) == [
        {"what": "engine version", "profile": "5.18.0", "settings": "5.19.0"}
    ]
    assert profile_mismatch(config, load_profile(config), None) == []


def test_a_real_run_of_another_data_type_is_not_priced_with_this_profile(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write_bundle(config)
    with pytest.raises(ArtifactError, match="profile of another dtype"):
        load_profile(config, config.limits.model_copy(update={"dtype": "float16"}))


def test_a_profile_measured_before_its_dimensions_were_recorded_is_taken(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = write_bundle(config)
    old = ("model_id", "device", "backend", "dtype", "attn_implementation", "num_threads", "num_layers")
    (path / PROFILE_META).write_text(json.dumps({key: identity(config)[key] for key in old}))
    assert profile_mismatch(config, load_profile(config), None) == []
    with pytest.raises(ArtifactError, match=r"profile of another pipeline_parallel: .* it has 1, the settings say 2"):
        load_profile(config, config.limits.model_copy(update={"pipeline_parallel": 2}))


@pytest.mark.parametrize("missing", ["mlp.csv", "attention.csv", "iteration.csv", "noise.csv", PROFILE_META])
def test_a_profile_with_a_part_missing_is_refused(tmp_path: Path, missing: str) -> None:
    config = config_of(tmp_path)
    (write_bundle(config) / missing).unlink()
    with pytest.raises(ArtifactError, match="run vidur-profile again"):
        load_profile(config)


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n1,\n"])
def test_a_half_written_profile_table_is_refused(tmp_path: Path, text: str) -> None:
    config = config_of(tmp_path)
    (write_bundle(config) / "iteration.csv").write_text(text)
    with pytest.raises(ArtifactError, match=r"iteration\.csv"):
        load_profile(config)


def test_a_root_that_holds_another_models_profile_is_not_overwritten(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write_bundle(config)
    check_owner(Path(config.vidur.profiling.root), config)
    other = config_of(tmp_path, "model=qwen3_0_6b", f"vidur.profiling.root={config.vidur.profiling.root}")
    with pytest.raises(ConfigError, match="holds another profile"):
        check_owner(Path(other.vidur.profiling.root), other)


ENGINE = {"max_num_seqs": 7, "max_num_batched_tokens": 99, "block_size": 8, "num_blocks": 50}


def real_run(path: Path, **meta: object) -> Path:
    return write_run(path, "real", [[5, 9, 12], [7]], num_decode_tokens=[3, 4], **({"engine": ENGINE} | meta))


def test_limits_and_output_lengths_come_from_the_real_run(tmp_path: Path) -> None:
    path = real_run(tmp_path / "real")
    (path / "iteration_metrics.csv").write_text(
        "iteration_id,start_time_ns,end_time_ns,num_prefill_tokens,num_prefill_seqs,num_decode_seqs,"
        "kv_tokens_prefill,kv_tokens_decode,num_preempted\n0,0,1,1,1,0,0,0,0\n"
    )
    real = load_real_run(path, workload_of([(16, 3), (16, 4)]))
    assert real.num_decode_actual.tolist() == [3, 1]  # the second stopped early
    settings = sim_settings(config_of(tmp_path), real)
    limits = settings.limits
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (7, 99)
    assert (limits.block_size, limits.num_blocks) == (8, 50)


def test_without_a_real_run_limits_come_from_the_config(tmp_path: Path) -> None:
    settings = sim_settings(config_of(tmp_path, "limits.max_num_seqs=1", "limits.num_blocks=77"), None)
    assert (settings.limits.max_num_seqs, settings.limits.num_blocks) == (1, 77)


def test_sarathi_serves_admission_leaves_a_hundredth_of_the_blocks_free(tmp_path: Path) -> None:
    config = config_of(tmp_path, "backend=sarathi", "limits.num_blocks=200")
    settings = sim_settings(config, None)
    assert settings.limits.watermark == 0.01
    check_limits(workload_of([(3000, 168)]), settings)
    with pytest.raises(ConfigError, match="above the KV cache's 3168"):
        check_limits(workload_of([(3000, 169)]), settings)
    assert sim_settings(config_of(tmp_path), None).limits.watermark == 0.0


def test_a_real_run_of_another_workload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="another workload"):
        load_real_run(real_run(tmp_path / "real", workload_sha256="other"), workload_of([(16, 3)]))


def test_a_real_run_that_does_not_say_its_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no engine settings"):
        load_real_run(real_run(tmp_path / "real", engine=None), workload_of([(16, 3)]))


def test_what_the_scheduler_could_never_finish_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, "limits.num_blocks=4", "limits.max_num_batched_tokens=32")
    with pytest.raises(ConfigError, match="above the KV cache's 64"):
        check_limits(workload_of([(60, 5)]), sim_settings(config, None))
    vllm = config_of(tmp_path, "limits.max_num_batched_tokens=32", "vidur/scheduler=vllm")
    with pytest.raises(ConfigError, match="does not split prompts"):
        check_limits(workload_of([(60, 5)]), sim_settings(vllm, None))


@pytest.mark.parametrize("backend", ["vllm", "recorded"])
def test_vllms_own_scheduler_is_simulated_for_it(tmp_path: Path, backend: str) -> None:
    limits = ("limits.max_num_seqs=8", "limits.max_num_batched_tokens=64", "limits.num_blocks=100")
    asked = (f"backend={backend}", *limits, "limits.enable_prefix_caching=true", "limits.async_scheduling=true")
    settings = sim_settings(config_of(tmp_path, *asked), None)
    assert settings.scheduler == "vllm_v1"
    assert settings.limits.enable_prefix_caching
    assert settings.limits.async_scheduling
    chosen = sim_settings(config_of(tmp_path, *asked, "vidur/scheduler=sarathi"), None)
    assert chosen.scheduler == "sarathi"
    assert not chosen.limits.async_scheduling
    assert sim_settings(config_of(tmp_path), None).scheduler == "sarathi"


def test_what_vllms_scheduler_cannot_have_is_refused(tmp_path: Path) -> None:
    for asks in ("vidur/loop=vidur", "vidur/predictor=stock"):
        check_loop(config_of(tmp_path, asks))
        with pytest.raises(ConfigError, match=f"{asks} runs in Vidur's own loop, which has no vllm_v1"):
            check_loop(config_of(tmp_path, "vidur/scheduler=vllm_v1", asks))
    config = config_of(
        tmp_path, "vidur/scheduler=vllm_v1", "limits.max_num_seqs=33", "limits.max_num_batched_tokens=32"
    )
    with pytest.raises(ConfigError, match="max_num_seqs=33 is above"):
        check_limits(workload_of([(60, 5)]), sim_settings(config, None))


def test_without_reference_bursts_nothing_is_scaled(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write_bundle(config)
    assert machine_speed(load_profile(config).meta.get("reference_ns"), None) == 1.0
