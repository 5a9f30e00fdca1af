"""One table of a sweep: a row a job, a column a setting that differs."""

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.run_figures import run_figures
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.io.study_tables import FIGURES, SWEEP
from gpu_simulate_test.studies.jobs import Outcome
from gpu_simulate_test.studies.settings import settings_of, shortened, swept
from gpu_simulate_test.studies.table import sweep_table, write_sweep
from tests.support.builders import MS, write_run
from tests.unit.studies.outcomes import bad, ok, sweep_folder

ROOT = Path("/somewhere/tmp")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_there_is_a_row_for_every_job_and_a_column_for_every_setting_that_differs(tmp_path: Path) -> None:
    outcomes = [
        ok(job, f"hardware={device}", f"limits.max_num_seqs={seqs}", "limits.tensor_parallel=4", ttft_p99_ms=12.5)
        for job, (device, seqs) in enumerate(itertools.product(["h100", "h200"], [32, 64]))
    ]
    write_sweep(folder := sweep_folder(tmp_path, outcomes))

    found = rows(folder)
    assert [row["job"] for row in found] == ["0", "1", "2", "3"]
    assert [row["hardware"] for row in found] == ["h100", "h100", "h200", "h200"]
    assert [row["limits.max_num_seqs"] for row in found] == ["32", "64", "32", "64"]
    assert not {"limits.tensor_parallel", "experiment"} & set(found[0])
    assert [row["ttft_p99_ms"] for row in found] == ["12.5"] * 4


def test_csv_and_parquet_have_the_same_columns_and_rows(tmp_path: Path) -> None:
    write_sweep(folder := sweep_folder(tmp_path, [ok(0, "model.seed=1", slo_attainment=0.25), bad(1, "model.seed=2")]))
    table = pq.read_table(folder / "sweep.parquet")
    assert list(rows(folder)[0]) == table.column_names
    assert table.column("model.seed").type == pa.int64()
    frame = table.to_pandas()
    assert frame["slo_attainment"].iloc[0] == 0.25
    assert pd.isna(frame["slo_attainment"].iloc[1])
    assert rows(folder)[1]["slo_attainment"] == ""


def test_a_failed_job_says_why_and_has_no_figures(tmp_path: Path) -> None:
    write_sweep(folder := sweep_folder(tmp_path, [ok(0, "a=1"), bad(1, "a=2", error='too much: "x",\ny')]))
    row = rows(folder)[1]
    assert (row["status"], row["exit_code"], row["run_dir"]) == ("error", "3", "")
    assert row["error"] == 'too much: "x", y'  # one line
    assert {row[field.name] for field in FIGURES} == {""}


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("output.root='a,b'", "output.root", "a,b"),
        ('model.path="it\'s, so"', "model.path", "it's, so"),
        ("limits.max_num_seqs=32", "limits.max_num_seqs", 32),
        ("tolerance=1e-2", "tolerance", 0.01),
        ("tolerance='0.01'", "tolerance", "0.01"),
        ("overwrite=True", "overwrite", "true"),
        ("limits.num_blocks=null", "limits.num_blocks", "null"),
        ("+model.new=3", "model.new", 3),
        ("++model.new=3", "model.new", 3),
        ("~model.new", "~model.new", ""),
        ("limits=[1,2]", "limits", "[1, 2]"),
        ("override/it=a=b", "override/it", "a=b"),
    ],
)
def test_an_override_is_one_key_and_one_value(override: str, key: str, value: object) -> None:
    assert settings_of([override]) == {key: value}


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    assert settings_of(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


def test_a_value_with_a_comma_is_one_value_in_the_table(tmp_path: Path) -> None:
    write_sweep(folder := sweep_folder(tmp_path, [ok(0, "model.path='a,b'"), ok(1, "model.path='say \"x\", y'")]))
    assert [row["model.path"] for row in rows(folder)] == ["a,b", 'say "x", y']


def test_a_setting_that_only_some_jobs_have_is_empty_in_the_others() -> None:
    table = sweep_table([ok(0, "a=1"), ok(1)], ROOT)
    assert table["a"].iloc[0] == 1
    assert pd.isna(table["a"].iloc[1])


@pytest.mark.parametrize(
    ("values", "kind"), [((1, 2), "Int64"), ((1, 2.5), "float64"), ((1, "null"), "object"), (("a", "b"), "object")]
)
def test_numbers_are_numbers_where_all_are(values: tuple[object, ...], kind: str) -> None:
    assert sweep_table([ok(job, f"a={value}") for job, value in enumerate(values)], ROOT)["a"].dtype == kind


def test_the_same_sweep_in_two_places_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for place in ("one", "another/place"):
        root = tmp_path / place
        outcomes = [ok(0, "a=1"), ok(1, "a=2"), bad(2, "a=3", error=f"cannot read: {root}/vidur_runs/x; run it again")]
        page = write_sweep(folder := sweep_folder(root, outcomes))
        written.append({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
        assert page == folder / "index.html"
    assert set(written[0]) == {"index.html", "summary.md", "sweep.csv", "sweep.parquet"}
    assert written[0] == written[1]
    assert not any(str(tmp_path).encode() in content for content in written[0].values())


def test_a_sweep_written_again_replaces_what_was_there(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path, [ok(0, "a=1")])
    write_sweep(folder)
    (folder / "jobs" / "0.json").unlink()
    write_sweep(folder)
    assert rows(folder) == []


def test_columns_of_figures_are_those_of_the_contract_whatever_the_jobs_know() -> None:
    alone = Outcome(job=0, stage="real_bench", overrides=[], status="ok", exit_code=0, figures={"duration_s": 1.0})
    table = sweep_table([alone], ROOT)
    assert list(table) == list(SWEEP.columns)
    assert table["duration_s"].tolist() == [1.0]
    assert math.isnan(table["ttft_p99_ms"].iloc[0])


def test_the_figures_of_a_run_are_those_of_the_table(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / f"v{n}", "vidur", [[20 * MS, 40 * MS + n]]), "vidur") for n in range(3)]
    found = run_figures(replace(runs[0], samples=runs[1:]), SloConfig(ttft_ms=30), 2.5, 1)
    assert list(found) == [field.name for field in FIGURES]


names = st.sampled_from(["a", "a.b", "c.b", "d/e"])
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="\\'"), min_size=1)
jobs = st.lists(st.dictionaries(names, st.integers(-5, 5) | texts, max_size=3), max_size=6)


@given(jobs)
def test_what_was_typed_is_what_the_table_says(given_jobs: list[dict[str, int | str]]) -> None:
    typed = [
        [f"{key}={value}" if isinstance(value, int) else f"{key}='{value}'" for key, value in job.items()]
        for job in given_jobs
    ]
    table = sweep_table([ok(number, *overrides) for number, overrides in enumerate(typed)], ROOT)
    assert len(table) == len(given_jobs)
    for key in {key for job in given_jobs for key in job}:
        if key not in table:
            assert len({job.get(key) for job in given_jobs}) == 1
            continue
        for cell, job in zip(table[key], given_jobs, strict=True):
            assert pd.isna(cell) if key not in job else str(cell) == str(job[key])


@given(st.lists(names, unique=True))
def test_short_names_tell_the_settings_apart(keys: list[str]) -> None:
    short = shortened(keys)
    assert list(short) == keys
    assert len(set(short.values())) == len(keys)
    assert all(key.endswith(name) for key, name in short.items())


def test_a_number_and_a_text_of_the_same_letters_are_different_values() -> None:
    assert swept([{"a": 1}, {"a": "1"}]) == ["a"]
    assert swept([{"a": 1}, {"a": 1}]) == []
