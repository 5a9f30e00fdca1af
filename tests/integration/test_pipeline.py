"""The five commands, one after another, on the CPU."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import termios
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from gpu_simulate_test.analysis.load_metrics import load_run, load_simulation
from gpu_simulate_test.analysis.run_figures import figures_of, run_figures
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.io.tables import (
    ITERATION_METRICS,
    REAL_ITERATIONS,
    REQUEST_METRICS,
    TOKEN_METRICS,
    read_table,
    write_table,
)
from tests.support.commands import BIN, error_line, run, run_dir


def meta(path: Path, name: str = "run_meta.json") -> dict[str, object]:
    loaded: dict[str, object] = json.loads((path / name).read_text(encoding="utf-8"))
    return loaded


def test_every_run_directory_keeps_hydras_resolved_config(
    workload: Path, real: Path, profile: Path, sim: Path, comparison: Path
) -> None:
    for path in (workload, real, profile, sim, comparison):
        config = OmegaConf.load(path / ".hydra" / "config.yaml")
        assert config.model.name == "qwen3_tiny"
        assert "${" not in (path / ".hydra" / "config.yaml").read_text(encoding="utf-8")
        assert "experiment=cpu_demo" in OmegaConf.load(path / ".hydra" / "overrides.yaml")
        assert (path / "summary.md").is_file()


def test_where_nobody_watches_a_stage_says_little(comparison: Path, said: dict[str, str]) -> None:
    assert set(said) == {"workload-spec", "real-bench", "vidur-profile", "vidur-sim", "compare-runs"}
    for stage, text in said.items():
        assert len(text.splitlines()) < 10, (stage, text)
        assert "\r" not in text
    assert [line for line in said["compare-runs"].splitlines() if line.startswith("errors of P50: TTFT ")]


def test_stages_agree_on_the_workload_without_a_path_being_typed(
    workload: Path, real: Path, sim: Path, comparison: Path
) -> None:
    digest = meta(workload, "workload_meta.json")["workload_sha256"]
    assert meta(real)["workload_sha256"] == meta(sim)["workload_sha256"] == digest
    assert meta(comparison)["real_run_dir"] == str(real)
    assert meta(comparison)["sim_run_dir"] == str(sim)


def test_a_real_run_is_as_many_directories_as_repeats(real: Path) -> None:
    names = meta(real)["repeat_run_dirs"]
    assert names == [real.name, f"{real.name}-r2"]
    assert meta(real.with_name(f"{real.name}-r2"))["repeat_of"] == real.name


def test_both_kinds_of_run_have_the_same_tables(real: Path, sim: Path) -> None:
    for path in (real, sim):
        requests = read_table(path, REQUEST_METRICS)
        tokens = read_table(path, TOKEN_METRICS)
        iterations = read_table(path, ITERATION_METRICS)
        assert requests["status"].tolist() == ["ok"] * 3
        assert len(tokens) == 12
        assert (iterations["end_time_ns"] > iterations["start_time_ns"]).all()
        assert iterations["num_prefill_tokens"].sum() == requests["num_prefill_tokens"].sum()


def test_the_simulation_says_what_it_predicted_and_where_it_guessed(sim: Path) -> None:
    iterations = read_table(sim, ITERATION_METRICS)
    duration = iterations["end_time_ns"] - iterations["start_time_ns"]
    assert (iterations["predicted_ns"] == duration).all()
    assert iterations["in_profile"].dtype == bool


def test_the_real_engines_settings_are_read_back_and_simulated(real: Path, sim: Path) -> None:
    engine, settings = meta(real)["engine"], meta(sim)["settings"]
    assert isinstance(engine, dict) and isinstance(settings, dict)
    assert engine["limits"]["num_blocks"] == settings["limits"]["num_blocks"] == 64
    assert engine["limits"]["max_num_batched_tokens"] == settings["limits"]["max_num_batched_tokens"] == 32


def test_the_simulation_runs_at_the_speed_the_machine_had_in_the_real_run(
    settings: tuple[str, ...], real: Path, profile: Path, sim: Path, tmp_path: Path
) -> None:
    bursts = [meta(path)["reference_ns"] for path in (real, real.with_name(f"{real.name}-r2"))]
    profiled = meta(sim)["reference_ns"]
    assert meta(sim)["machine_speed"] == pytest.approx(sum(bursts) / 2 / profiled)  # type: ignore[arg-type, operator]
    plain = run_dir(run("vidur-sim", *settings, f"real_run_dir={real}", "match_speed=false"))
    assert meta(plain)["machine_speed"] == 1.0
    scaled, unscaled = (read_table(path, ITERATION_METRICS) for path in (sim, plain))
    ratio = scaled["predicted_ns"][0] / unscaled["predicted_ns"][0]
    assert ratio == pytest.approx(meta(sim)["machine_speed"], rel=1e-3)


def test_the_predictors_time_of_every_real_iteration_is_kept_for_the_attribution(real: Path, sim: Path) -> None:
    of_real = read_table(real, ITERATION_METRICS)
    predicted = read_table(sim, REAL_ITERATIONS)
    assert predicted["iteration_id"].tolist() == of_real["iteration_id"].tolist()
    assert (predicted["predicted_ns"] > 0).all()


def test_the_attribution_adds_up_to_the_difference(comparison: Path) -> None:
    parts = pd.read_csv(comparison / "attribution.csv")
    for _, rows in parts.groupby("metric"):
        total = rows.loc[rows["part"] == "total", "mean_ns"].item()
        assert rows.loc[rows["part"] != "total", "mean_ns"].sum() == pytest.approx(total, abs=2)


def test_objectives_and_a_price_are_no_part_of_what_was_measured_or_simulated(
    settings: tuple[str, ...], real: Path, sim: Path
) -> None:
    judged = (*settings, "slo.ttft_ms=1", "hardware.price_per_hour=2")
    for again in (run("real-bench", *judged), run("vidur-sim", *judged, f"real_run_dir={real}")):
        assert "already finished" in error_line(again, 2)


def test_gate_exits_5_when_the_verdict_is_off_and_the_comparison_is_kept(
    settings: tuple[str, ...], real: Path, sim: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    for table in (REQUEST_METRICS, TOKEN_METRICS):
        frame = read_table(sim, table)
        for column in frame.columns[frame.columns.str.endswith("_ns")]:
            if column not in ("arrival_time_ns", "submit_time_ns"):
                frame[column] = frame[column] * 40
        if table is REQUEST_METRICS:
            frame["ttft_ns"] = frame["first_token_time_ns"] - frame["arrival_time_ns"]
        write_table(slow, table, frame)
    (slow / "run_meta.json").write_text(json.dumps(meta(sim) | {"run_id": "slow"}))
    for _ in range(2):  # asked again, it answers the same
        pair = (f"real_run_dir={real}", f"sim_run_dir={slow}")
        assert "off" in error_line(run("compare-runs", f"output.root={tmp_path}", *pair, "gate=true"), 5)
    assert len(list(tmp_path.glob("comparisons/*/run_meta.json"))) == 1


def test_a_profile_says_that_its_time_did_not_suffice(
    settings: tuple[str, ...], workload: Path, tmp_path: Path
) -> None:
    root = f"vidur.profiling.root={tmp_path / 'profile'}"
    done = run("vidur-profile", *settings, root, "vidur.profiling.budget_s=1")
    (path,) = run_dir(done).glob("**/profile_meta.json")
    missing = json.loads(path.read_text())["iterations"]["bursts_that_did_not_fit"]
    assert missing > 0
    assert f"{missing} of " in done.stderr
    assert "raise vidur.profiling.budget_s" in done.stderr


def test_an_interrupted_profile_goes_on_where_it_was(settings: tuple[str, ...], workload: Path, tmp_path: Path) -> None:
    command = [str(BIN / "vidur-profile"), *settings, f"vidur.profiling.root={tmp_path / 'profile'}"]
    terminal, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 100))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=other, text=True) as process:
        os.close(other)
        said = ""
        while not re.search(r"iterations +([2-9]|\d\d)%.* left", said):
            said += (read := os.read(terminal, 1 << 12).decode(errors="replace"))
            assert read, f"it ended before it was interrupted: {said}"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 130
    kept = json.loads((tmp_path / "profile" / "measured.json").read_text(encoding="utf-8"))
    assert kept["measured"]["rows"]
    path = run_dir(run("vidur-profile", *command[1:]))
    assert f"going on from the {kept['measured']['bursts']} bursts" in (path / "stage.log").read_text(encoding="utf-8")
    bundle = path / "data" / "profiling" / "compute" / "cpu" / "gsim" / "qwen3-tiny"
    assert pd.read_csv(bundle / "iteration.csv")["repeats"].sum() > len(kept["measured"]["rows"]) / 2
    assert not (path / "measured.json").exists()


def test_simulations_with_noise_say_how_sure_each_figure_is(sim: Path, comparison: Path) -> None:
    samples = sorted((sim / "samples").iterdir())
    assert len(samples) == 10
    tables = [(path / "tbt_quantiles.csv").read_bytes() for path in samples]
    assert len(set(tables)) > 1
    assert "(" in next(line for line in (sim / "summary.md").read_text().splitlines() if line.startswith("- TTFT"))
    table = pd.read_csv(comparison / "percentiles.csv")
    assert (table["sim_low_ns"] <= table["sim_ns"] * 1.0000001).all()
    assert (table["sim_ns"] <= table["sim_high_ns"] * 1.0000001).all()


def test_a_simulated_run_has_a_page_of_its_own_and_figures_without_its_tokens(sim: Path) -> None:
    page = (sim / "report.html").read_text(encoding="utf-8")
    assert len(page) < 100_000
    assert "The slowest requests" in page and "95 % of it" in page
    whole = run_figures(load_run(sim, "vidur"), SloConfig(ttft_ms=50), None, 1)
    assert figures_of(sim, "vidur", SloConfig(ttft_ms=50), None) == pytest.approx(whole, nan_ok=True)
    without_noise = replace(load_run(sim, "vidur"), samples=[])
    of_quantiles = run_figures(load_simulation(sim, without_noise.meta), SloConfig(), None, 1)
    assert of_quantiles == pytest.approx(run_figures(without_noise, SloConfig(), None, 1), nan_ok=True)


def test_the_profile_has_vidurs_columns(profile: Path) -> None:
    bundle = profile / "data" / "profiling" / "compute" / "cpu" / "gsim" / "qwen3-tiny"
    mlp, attention, iteration = (pd.read_csv(bundle / f"{name}.csv") for name in ("mlp", "attention", "iteration"))
    for op in ("attn_pre_proj", "attn_rope", "mlp_up_proj", "mlp_act", "mlp_down_proj", "add", "input_layernorm"):
        for stat in ("median", "min", "max", "mean", "std"):
            assert (mlp[f"time_stats.{op}.{stat}"] >= 0).all()
        assert (mlp[f"time_stats.{op}.median"] > 0).all()
    decode = attention["prefill_chunk_size"] == 0
    assert (attention.loc[decode, "time_stats.attn_decode.median"] > 0).all()
    assert (attention.loc[~decode, "time_stats.attn_prefill.median"] > 0).all()
    assert (iteration["p10_ns"] <= iteration["median_ns"]).all()
    assert (iteration["median_ns"] <= iteration["p90_ns"]).all()
    assert meta(bundle, "profile_meta.json")["model_id"] == "gsim/qwen3-tiny"


def test_the_comparison_has_a_finite_error_at_every_percentile(comparison: Path) -> None:
    table = pd.read_csv(comparison / "percentiles.csv")
    assert {"ttft", "tbt", "tpot", "e2e", "e2e_per_token"} == set(table["metric"])
    assert table[["real_ns", "sim_ns", "error_ns", "relative_error"]].notna().all(axis=None)
    page = (comparison / "report.html").read_text(encoding="utf-8")
    assert len(page) < 2_000_000
    assert page.count('id="cdf-') == 5


def test_the_same_simulation_twice_gives_the_same_tables(settings: tuple[str, ...], real: Path, sim: Path) -> None:
    before = {name: (sim / name).read_bytes() for name in ("request_metrics.csv", "token_metrics.csv")}
    again = run_dir(run("vidur-sim", *settings, f"real_run_dir={real}", "overwrite=true"))
    assert again == sim
    assert {name: (sim / name).read_bytes() for name in before} == before


def test_a_run_is_compared_with_itself_as_zero(settings: tuple[str, ...], real: Path, tmp_path: Path) -> None:
    repeat = real.with_name(f"{real.name}-r2")  # one run alone: the first one's figures are the mean of both
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in repeat.glob("*.csv"):
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "run_meta.json").write_text(json.dumps(meta(repeat) | {"run_type": "vidur", "run_id": "copy"}))
    path = run_dir(run("compare-runs", f"output.root={tmp_path}", f"real_run_dir={repeat}", f"sim_run_dir={copy}"))
    assert (pd.read_csv(path / "percentiles.csv")["error_ns"] == 0).all()


def test_vidurs_own_command_line_knows_our_model_device_and_predictor(profile: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    flags = {
        "replica_config_model_name": "gsim/qwen3-tiny",
        "replica_config_device": "cpu",
        "replica_config_network_device": "cpu_node",
        "replica_config_num_pipeline_stages": "1",
        "replica_config_tensor_parallel_size": "1",
        "replica_scheduler_config_type": "sarathi",
        "execution_time_predictor_config_type": "gsim",
        "gsim_execution_time_predictor_config_profiling_root": str(profile),
        "synthetic_request_generator_config_num_requests": "4",
        "length_generator_config_type": "fixed",
        "fixed_request_length_generator_config_prefill_tokens": "20",
        "fixed_request_length_generator_config_decode_tokens": "4",
        "metrics_config_output_dir": str(tmp_path),
        "log_level": "info",
    }
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gpu_simulate_test.vidur_ext.run_vidur",
            *arguments,
            "--no-metrics_config_write_metrics",
            "--no-metrics_config_enable_chrome_trace",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Simulation ended at" in done.stdout + done.stderr


def test_every_repeat_of_a_run_teaches_its_profile_and_none_of_them_proves_it(
    settings: tuple[str, ...], profile: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(profile, tmp_path / "profile")
    six = (*settings, "workload.num_requests=6", "workload.seed=9", f"vidur.profiling.root={root}")
    run_dir(run("workload-spec", *six))
    real = run_dir(run("real-bench", *six, "repeats=2"))
    done = run("vidur-profile", *six, f"calibration.real_run_dir={real}")
    assert run_dir(done) == root
    assert len(done.stderr.splitlines()) < 10, done.stderr
    (file,) = root.rglob("calibration.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [one["run_id"] for one in record["runs"]] == [real.name, f"{real.name}-r2"]
    assert {one["learned_from"] for one in record["runs"]} == {"iterations"}
    sim = run_dir(run("vidur-sim", *six, f"real_run_dir={real}", "vidur/predictor=calibrated"))
    again = real.with_name(f"{real.name}-r2")
    for one in (real, again):
        compared = run_dir(run("compare-runs", *six, f"real_run_dir={one}", f"sim_run_dir={sim}"))
        gates = pd.read_csv(compared / "gates.csv").set_index("gate")
        assert gates.loc["calibration", "value"] == "in-sample"
        assert meta(compared)["verdict"] in ("in-sample", "off")
        assert "within" not in "".join(pd.read_csv(compared / "percentiles.csv")["verdict"])
    parts = pd.read_csv(
        run_dir(run("compare-runs", *six, f"real_run_dir={real}", "overwrite=true")) / "attribution.csv"
    )
    assert "calibrated host time" in set(parts["part"])
