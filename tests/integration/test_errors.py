"""What goes wrong ends in one line and an exit code, and nothing finished is damaged."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.commands import BIN, SMALL, error_line, run, run_dir, run_installed

COMMANDS = ("workload-spec", "real-bench", "vidur-profile", "vidur-sim", "compare-runs")
CONFIG, ARTIFACT, MACHINE, INTERRUPTED = 2, 3, 4, 130


def fingerprint(path: Path) -> dict[str, str]:
    """Every file of a directory by its hash."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def prompts_file(folder: Path, *lines: str) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return f"workload.prompts={path}"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_override(command: str) -> None:
    assert "nonsense" in error_line(run(command, "nonsense=1"), CONFIG)


def test_a_shell_sees_the_line_and_the_code() -> None:
    assert "nonsense" in error_line(run_installed("compare-runs", "nonsense=1"), CONFIG)


PROBE = """
import importlib, sys
for command in sys.argv[1:]:
    stage = importlib.import_module("gpu_simulate_test.cli." + command.replace("-", "_"))
    for argument, code in (("--help", 0), ("nonsense=1", 2)):
        sys.argv = [command, argument]
        try:
            stage.main()
        except SystemExit as end:
            assert (end.code or 0) == code, (command, end.code)
        heavy = {"torch", "transformers", "vidur", "pandas"} & set(sys.modules)
        assert not heavy, (command, argument, heavy)
"""


def test_help_and_a_wrong_override_load_neither_torch_nor_vidur() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *COMMANDS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("workload.seed=abc", "workload.seed"),
        ("workload.arrival.kind=sometimes", "workload.arrival.kind"),
        ("limits.num_blocks=-1", "limits.num_blocks"),
        ("model=gpt9", "gpt9"),
        ("workload.arrival.rate_per_s=-1", "workload.arrival.rate_per_s"),
    ],
)
def test_a_wrong_value_is_named(override: str, named: str) -> None:
    assert named in error_line(run("workload-spec", "experiment=cpu_demo", override), CONFIG)


def test_a_missing_prompts_file(tmp_path: Path) -> None:
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={tmp_path}", "workload.prompts=/nowhere.jsonl")
    assert "/nowhere.jsonl" in error_line(done, CONFIG)


def test_a_malformed_prompt_line(tmp_path: Path) -> None:
    prompts = prompts_file(tmp_path, '{"prompt_id":"a","text":"x"}', '{"prompt_id":"b"')
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={tmp_path}", prompts)
    assert "line 2" in error_line(done, CONFIG)


def test_a_prompt_beyond_the_kv_cache(tmp_path: Path) -> None:
    prompts = prompts_file(tmp_path, '{"prompt_id":"long one","text":"' + "word " * 400 + '"}')
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={tmp_path}", prompts, "limits.num_blocks=8")
    assert "long one" in error_line(done, CONFIG)


def test_a_prompt_beyond_the_models_limit(tmp_path: Path) -> None:
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={tmp_path}", "workload.num_decode_tokens=4096")
    assert "model's limit of 4096" in error_line(done, CONFIG)


@pytest.fixture
def broken_workload(workload: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workload, tmp_path / "workload"))


def test_a_workload_whose_tables_disagree(broken_workload: Path, tmp_path: Path) -> None:
    table = broken_workload / "trace_intervals.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    done = run("real-bench", *SMALL, f"output.root={tmp_path}", f"workload.workload_dir={broken_workload}")
    assert "disagree" in error_line(done, ARTIFACT)


def test_a_half_written_table(broken_workload: Path, tmp_path: Path) -> None:
    table = broken_workload / "trace_lengths.csv"
    table.write_text(table.read_text()[:-4])
    done = run("real-bench", *SMALL, f"output.root={tmp_path}", f"workload.workload_dir={broken_workload}")
    assert "truncated" in error_line(done, ARTIFACT)


def test_no_workload_yet(tmp_path: Path) -> None:
    for command in ("real-bench", "vidur-profile", "vidur-sim"):
        assert "run workload-spec first" in error_line(run(command, *SMALL, f"output.root={tmp_path}"), ARTIFACT)


def test_a_truncated_token_table(real: Path, sim: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(real, tmp_path / "copy"))
    table = copy / "token_metrics.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-2]))
    done = run("compare-runs", f"output.root={tmp_path}", f"real_run_dir={copy}", f"sim_run_dir={sim}")
    assert "token_metrics.csv" in error_line(done, ARTIFACT)


def test_a_run_directory_without_its_metadata(real: Path, sim: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(real, tmp_path / "copy"))
    (copy / "run_meta.json").unlink()
    done = run("compare-runs", f"output.root={tmp_path}", f"real_run_dir={copy}", f"sim_run_dir={sim}")
    assert "incomplete run directory" in error_line(done, ARTIFACT)


def test_runs_of_different_workloads(settings: tuple[str, ...], real: Path, profile: Path, tmp_path: Path) -> None:
    other = (*settings, "workload.seed=99")
    run_dir(run("workload-spec", *other))
    sim = run_dir(run("vidur-sim", *other))
    done = run("compare-runs", f"output.root={tmp_path}", f"real_run_dir={real}", f"sim_run_dir={sim}")
    assert "different workloads" in error_line(done, ARTIFACT)
    done = run("vidur-sim", *other, f"real_run_dir={real}")
    assert "another workload" in error_line(done, ARTIFACT)


def test_a_profile_of_another_model(settings: tuple[str, ...], profile: Path) -> None:
    other = (*settings, "model=qwen3_0_6b", "model.weights=dummy")
    run_dir(run("workload-spec", *other))
    done = run("vidur-sim", *other, f"vidur.profiling.root={profile}")
    assert "no profile of Qwen/Qwen3-0.6B" in error_line(done, ARTIFACT)


def test_a_profile_of_another_device(settings: tuple[str, ...], workload: Path, profile: Path) -> None:
    done = run("vidur-sim", *settings, "hardware=a100", f"vidur.profiling.root={profile}")
    assert "on a100" in error_line(done, ARTIFACT)


def test_a_profile_of_another_precision(settings: tuple[str, ...], workload: Path, profile: Path) -> None:
    done = run("vidur-sim", *settings, "hardware.dtype=bfloat16")
    assert "profile of another dtype" in error_line(done, ARTIFACT)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize("command", ["real-bench", "vidur-profile"])
def test_no_gpu(command: str, settings: tuple[str, ...], workload: Path) -> None:
    assert "no GPU" in error_line(run(command, *settings, "hardware=a100"), MACHINE)


def test_a_cache_that_fits_no_machine(settings: tuple[str, ...], workload: Path) -> None:
    done = run("real-bench", *settings, "limits.num_blocks=1000000000000")
    line = error_line(done, MACHINE)
    assert "memory" in line
    assert "limits.num_blocks" in line


def test_no_model_files(settings: tuple[str, ...], tmp_path: Path) -> None:
    other = (*settings, "model=qwen3_0_6b", f"model.path={tmp_path}", "hardware=cpu")
    run_dir(run("workload-spec", *other, "overwrite=true"))
    assert "model files of Qwen/Qwen3-0.6B are missing" in error_line(run("real-bench", *other), MACHINE)


def test_output_on_a_read_only_folder() -> None:
    # /proc refuses new folders even to root
    done = run("workload-spec", "experiment=cpu_demo", "output.root=/proc/gsim")
    assert "cannot write" in error_line(done, MACHINE)


def test_a_finished_run_is_kept_unless_overwrite_is_asked_for(
    settings: tuple[str, ...], workload: Path, real: Path, sim: Path
) -> None:
    before = [fingerprint(path) for path in (workload, real, sim)]
    for command, more in (
        ("workload-spec", ()),
        ("real-bench", ("repeats=2",)),
        ("vidur-sim", (f"real_run_dir={real}",)),
    ):
        assert "overwrite=true" in error_line(run(command, *settings, *more), CONFIG)
    assert [fingerprint(path) for path in (workload, real, sim)] == before


def start_endless(settings: tuple[str, ...]) -> tuple[subprocess.Popen[str], Path]:
    """A real run that has begun to serve a workload it will not finish soon."""
    endless = (*settings, "workload.arrival.inter_arrival_ns=60000000000")
    run_dir(run("workload-spec", *endless, "overwrite=true"))
    folder = Path(settings[-1].partition("=")[2]) / "real_runs"
    before = set(folder.iterdir()) if folder.exists() else set()
    process = subprocess.Popen(
        [str(BIN / "real-bench"), *endless, "repeats=1", "overwrite=true"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 120
    started: set[Path] = set()
    while time.monotonic() < deadline and process.poll() is None:
        started = {path for path in set(folder.iterdir()) - before if path.is_dir()} if folder.exists() else set()
        if any("serving" in (path / "stage.log").read_text() for path in started if (path / "stage.log").is_file()):
            break
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()[1]
    (path,) = started
    return process, path


def test_ctrl_c_ends_in_one_line_and_damages_nothing(settings: tuple[str, ...], real: Path, sim: Path) -> None:
    before = [fingerprint(path) for path in (real, sim)]
    process, path = start_endless(settings)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert stderr.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in stderr
    assert not (path / "run_meta.json").exists()
    assert [fingerprint(path) for path in (real, sim)] == before
    shutil.rmtree(path)


def test_a_sweep_goes_on_past_a_failed_job_and_exits_non_zero(tmp_path: Path) -> None:
    done = run(
        "workload-spec",
        "-m",
        "experiment=cpu_demo",
        f"output.root={tmp_path}",
        "workload.num_decode_tokens=4096,8,16",
    )
    assert done.returncode == CONFIG
    assert len(list((tmp_path / "workloads").glob("*/workload_meta.json"))) == 2


def test_an_engine_that_is_not_installed(settings: tuple[str, ...], workload: Path) -> None:
    if find_spec("vllm"):
        pytest.skip("vLLM is installed here")
    done = run("real-bench", *settings, "backend=vllm", f"workload.workload_dir={workload}")
    assert "run make vllm" in error_line(done, MACHINE)
