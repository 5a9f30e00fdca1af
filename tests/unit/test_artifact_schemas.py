"""What the artifacts promise: strict tables, complete directories, nothing finished ever damaged."""

import errno
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.schema import HydraRecord, StageConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError, MachineError
from gpu_simulate_test.io.files import write_text
from gpu_simulate_test.io.provenance import now
from gpu_simulate_test.io.run_dir import OpenRunDir, newest_runs, open_run_dir, read_run_meta
from gpu_simulate_test.io.tables import REQUEST_METRICS, TOKEN_METRICS, TRACE_LENGTHS, read_table, write_table
from gpu_simulate_test.io.workload import dump_prompts, read_prompts
from tests.support.configs import typed_config

HEADER = "request_id,prompt_id,num_prefill_tokens,num_decode_tokens\n"


def lengths_file(folder: Path, text: str) -> Path:
    path = folder / TRACE_LENGTHS.filename
    path.write_text(text, encoding="utf-8")
    return path


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1), st.integers(0, 2**62)),
        min_size=1,
    )
)
def test_a_table_survives_the_round_trip(rows: list[tuple[str, int]]) -> None:
    import tempfile

    frame = pd.DataFrame(
        {
            "request_id": range(len(rows)),
            "prompt_id": [f"id-{text}" for text, _ in rows],
            "num_prefill_tokens": [number for _, number in rows],
            "num_decode_tokens": 1,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder), TRACE_LENGTHS, frame)
        back = read_table(Path(folder), TRACE_LENGTHS)
    assert back.to_dict("list") == frame.to_dict("list")


def test_missing_values_are_empty_fields_never_zero(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "request_id": [0, 0],
            "token_index": [0, 1],
            "token_time_ns": [5, 9],
            "token_latency_ns": pd.array([pd.NA, 4], dtype="Int64"),
        }
    )
    path = write_table(tmp_path, TOKEN_METRICS, frame)
    assert path.read_text().splitlines()[1] == "0,0,5,"
    assert read_table(tmp_path, TOKEN_METRICS)["token_latency_ns"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEADER + "0,a,5,6\n1,b,7", "truncated"),
        (HEADER + "0,a,5,6\n1,b,7\n", "malformed CSV"),
        (HEADER + "0,a,five,6\n", "malformed CSV"),
        (HEADER + "0,a,,6\n", "empty field"),
        ("request_id,prompt_id\n0,a\n", "columns missing"),
        ("", "truncated"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, complaint: str) -> None:
    path = lengths_file(tmp_path, text)
    with pytest.raises(ArtifactError) as caught:
        read_table(tmp_path, TRACE_LENGTHS)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        read_table(tmp_path, REQUEST_METRICS)


def test_a_directory_without_its_metadata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ArtifactError, match="incomplete run directory"):
        read_run_meta(tmp_path / "run")
    with pytest.raises(ArtifactError, match="no such run directory"):
        read_run_meta(tmp_path / "absent")


@cache
def settings(overwrite: bool) -> StageConfig:
    return typed_config("compare_runs", f"overwrite={overwrite}")


RECORD = HydraRecord("compare_runs", "configs", ["a=1"], {"a": 1}, {"hydra": {"job": {}}})


def opened(path: Path, *, overwrite: bool = False) -> AbstractContextManager[OpenRunDir]:
    return open_run_dir(path, settings(overwrite), RECORD)


def finished_run(path: Path, **meta: object) -> None:
    with opened(path) as run:
        run.write_text("data.txt", "first")
        run.finish(**{"run_type": "real", "ended_at": "2026-01-01", **meta})


def test_a_run_directory_says_what_it_is_and_which_settings_made_it(tmp_path: Path) -> None:
    finished_run(tmp_path / "one", verdict="off")
    meta = read_run_meta(tmp_path / "one")
    assert meta["run_id"] == "one" and meta["run_type"] == "real" and meta["verdict"] == "off"
    assert meta["params"]["overwrite"] is False
    assert meta["started_at"] <= now()
    assert (tmp_path / "one" / ".hydra" / "config.yaml").read_text() == "a: 1\n"
    assert (tmp_path / "one" / ".hydra" / "overrides.yaml").read_text() == "- a=1\n"
    assert (tmp_path / "one" / ".hydra" / "hydra.yaml").is_file()


def test_a_finished_run_is_not_run_again_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    finished_run(path)
    with pytest.raises(ConfigError, match="already finished"), opened(path):
        pass
    with opened(path, overwrite=True) as run:
        assert run.name == "one"
        run.write_text("data.txt", "second")
        run.finish(run_type="real")
    assert (path / "data.txt").read_text() == "second"
    assert [child.name for child in path.parent.iterdir()] == ["one"]


def test_a_failed_second_run_leaves_the_finished_one_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "one"
    finished_run(path)
    with pytest.raises(RuntimeError, match="engine died"), opened(path, overwrite=True) as run:
        run.write_text("data.txt", "half")
        raise RuntimeError("engine died")
    assert (path / "data.txt").read_text() == "first"
    assert read_run_meta(path)["run_type"] == "real"


def test_a_failed_run_leaves_an_incomplete_directory_that_can_be_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with pytest.raises(RuntimeError), opened(path) as run:
        run.write_text("half.txt", "half")
        raise RuntimeError
    with pytest.raises(ArtifactError, match="incomplete"):
        read_run_meta(path)
    finished_run(path)
    assert not (path / "half.txt").exists()


def test_a_run_killed_while_it_takes_its_predecessors_place_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "one"
    finished_run(path)
    path.rename(tmp_path / "one.old")
    with pytest.raises(ConfigError, match="already finished"), opened(path):
        pass
    assert (path / "data.txt").read_text() == "first"


def test_a_full_disk_leaves_the_file_that_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "a.txt", "first")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=r"cannot write: .*a\.txt: No space left on device; choose another"):
        write_text(tmp_path / "a.txt", "second")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "first")]


def test_two_runs_cannot_write_one_directory(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with opened(path) as run:
        for _ in range(2):  # a refused run leaves the lock as it was
            with pytest.raises(MachineError, match="another run is writing"), opened(path):
                pass
        run.finish(run_type="real")
    assert read_run_meta(path)["run_id"] == "one"
    assert list(tmp_path.iterdir()) == [path], "the lock has gone"


def test_of_many_processes_one_writes_and_the_others_are_refused(tmp_path: Path) -> None:
    writer = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from gpu_simulate_test.errors import MachineError\n"
        "from tests.unit.test_artifact_schemas import opened\n"
        "input()\n"
        "try:\n"
        "    with opened(Path(sys.argv[1])) as run:\n"
        "        print('mine', flush=True)\n"
        "        input()\n"
        "        run.finish(run_type='real')\n"
        "except MachineError as error:\n"
        "    print(error, flush=True)\n"
    )
    command = [sys.executable, "-c", writer, str(tmp_path / "one")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, cwd=project_root(), text=True, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes if process.stdout]
    assert sorted(line.partition(":")[0].strip() for line in said) == [*["another run is writing"] * 2, "mine"]
    winner = processes[said.index("mine\n")]
    winner.kill()
    for process in processes:
        process.communicate()
    assert (tmp_path / ".one.lock").is_file(), "what a killed process leaves"
    finished_run(tmp_path / "one")
    assert newest_runs(tmp_path, "real")[0][0] == tmp_path / "one"
    assert not (tmp_path / ".one.lock").exists()


def test_what_an_interrupted_run_may_keep_is_kept(tmp_path: Path) -> None:
    def again() -> AbstractContextManager[OpenRunDir]:
        return open_run_dir(tmp_path / "one", settings(False), RECORD, keep="measured.json")

    with pytest.raises(RuntimeError), again() as run:
        run.write_text("measured.json", "{}")
        run.write_text("other.txt", "half")
        raise RuntimeError
    with again() as run:
        assert (run.path / "measured.json").is_file()
        assert not (run.path / "other.txt").exists()
        run.finish(run_type="vidur_profile")


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".one.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="cannot write"), opened(tmp_path / "one"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_no_run_directory_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not a run directory"), opened(tmp_path, overwrite=True):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_said_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MachineError, match="cannot write"), opened(tmp_path / "one"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_path_through_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"), opened(tmp_path / "file" / "x"):
        pass


def test_newest_runs_come_first_and_repeats_stay_out(tmp_path: Path) -> None:
    finished_run(tmp_path / "old", ended_at="2026-01-01")
    finished_run(tmp_path / "new", ended_at="2026-01-02")
    finished_run(tmp_path / "new-r2", ended_at="2026-01-03", repeat_of="new")
    finished_run(tmp_path / "sim", ended_at="2026-01-04", run_type="vidur")
    assert [path.name for path, _ in newest_runs(tmp_path, "real")] == ["new", "old"]


def prompts_file(folder: Path, *lines: str) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


GOOD = '{"prompt_id":"a","text":"hello"}'


@pytest.mark.parametrize(
    "bad",
    [
        "{not json",
        "[]",
        '{"prompt_id":1,"text":"x"}',
        '{"prompt_id":"b"}',
        '{"prompt_id":"b","text":""}',
        '{"prompt_id":"b","text":"","token_ids":[-1]}',
        '{"prompt_id":"b","text":"","token_ids":[true]}',
        r'{"prompt_id":"b","text":"half of a pair: \ud83d"}',
        GOOD,
        "",
    ],
)
def test_a_malformed_prompt_is_refused_with_its_line_number(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as caught:
        list(read_prompts(prompts_file(tmp_path, GOOD, bad)))
    assert "\n" not in str(caught.value)


def test_prompts_keep_every_character_and_every_other_key(tmp_path: Path) -> None:
    prompts = [{"prompt_id": "🦀", "text": "a\u2028b\u0085c \U0010fffd\t\"'", "topic": ["x"]}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(dump_prompts(prompts)), encoding="utf-8")
    assert list(read_prompts(path)) == prompts
