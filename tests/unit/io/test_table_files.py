"""Tables: one writer and one loader for CSV and Parquet, and as strict with either."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io import table_files
from gpu_simulate_test.io.profile_tables import KERNELS
from gpu_simulate_test.io.table_files import CSV_ROWS
from gpu_simulate_test.io.tables import (
    REQUEST_METRICS,
    TOKEN_METRICS,
    TRACE_LENGTHS,
    find_table,
    read_table,
    write_table,
)

INTS = st.integers(-(2**63), 2**63 - 1)


def tokens(rows: int, first: int = 0) -> pd.DataFrame:
    index = np.arange(first, first + rows)
    latency = pd.arrays.IntegerArray(index * 7, index == 0)
    return pd.DataFrame(
        {"request_id": 0, "token_index": index, "token_time_ns": index * 1000, "token_latency_ns": latency}
    )


@pytest.fixture
def small_limit() -> Iterator[int]:
    with patch.object(table_files, "CSV_ROWS", 100):
        yield 100


@given(
    numbers=arrays(np.int64, st.tuples(st.integers(0, 9), st.just(3)), elements=INTS),
    latency=st.lists(INTS | st.none(), min_size=9, max_size=9),
)
@settings(deadline=None, max_examples=30)
def test_csv_and_parquet_give_the_same_table_back(
    tmp_path_factory: pytest.TempPathFactory, numbers: np.ndarray, latency: list[int | None]
) -> None:
    frame = pd.DataFrame(numbers, columns=["request_id", "token_index", "token_time_ns"])
    frame["token_latency_ns"] = pd.array(latency[: len(frame)], dtype="Int64")
    folder = tmp_path_factory.mktemp("tables")
    assert write_table(folder, TOKEN_METRICS, frame).name == "token_metrics.csv"
    as_csv = read_table(folder, TOKEN_METRICS)
    with patch.object(table_files, "CSV_ROWS", -1):
        assert write_table(folder, TOKEN_METRICS, frame).name == "token_metrics.parquet"
    assert not (folder / "token_metrics.csv").exists(), "one table is never in two files"
    pd.testing.assert_frame_equal(read_table(folder, TOKEN_METRICS), as_csv)
    pd.testing.assert_frame_equal(as_csv, frame)


def test_pieces_become_one_csv_or_one_row_group_each(tmp_path: Path, small_limit: int) -> None:
    for folder, rows in (("csv", small_limit), ("parquet", small_limit + 1)):
        (tmp_path / folder).mkdir()
        pieces = [tokens(60), tokens(rows - 60, 60)]
        path = write_table(tmp_path / folder, TOKEN_METRICS, iter(pieces), num_rows=rows)
        assert path.suffix == f".{folder}"
        pd.testing.assert_frame_equal(read_table(tmp_path / folder, TOKEN_METRICS), tokens(rows))
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [60, 41]


def test_how_large_a_csv_may_be() -> None:
    assert CSV_ROWS == 1_000_000, "documented, and fewer rows than a spreadsheet has"


def test_the_workload_and_the_profile_stay_csv(tmp_path: Path, small_limit: int) -> None:
    lengths = pd.DataFrame(
        {"request_id": range(200), "prompt_id": "a", "num_prefill_tokens": 1, "num_decode_tokens": 1}
    )
    assert write_table(tmp_path, TRACE_LENGTHS, lengths).suffix == ".csv"
    kernels = pd.DataFrame({"op": "head", "num_seqs": range(200), "median_ms": 0.5})
    assert write_table(tmp_path, KERNELS["per_sequence"], kernels).suffix == ".csv"


@pytest.mark.parametrize("rows", [10, 101])
def test_columns_are_read_alone_and_absent_ones_that_may_be_are_left_out(
    tmp_path: Path, small_limit: int, rows: int
) -> None:
    write_table(tmp_path, TOKEN_METRICS, tokens(rows))
    wanted = ["token_time_ns", "request_id", "iteration_id"]
    assert list(read_table(tmp_path, TOKEN_METRICS, wanted)) == ["request_id", "token_time_ns"]


def test_a_column_that_nobody_asked_for_must_be_there_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "token_metrics.csv").write_text("request_id,token_index\n0,0\n")
    with pytest.raises(ArtifactError, match=r"columns missing: .*token_time_ns, token_latency_ns"):
        read_table(tmp_path, TOKEN_METRICS, ["request_id"])


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace_lengths.csv").write_text(
        "request_id,request_id,prompt_id,num_prefill_tokens,num_decode_tokens\n0,1,a,1,1\n"
    )
    with pytest.raises(ArtifactError, match="a column twice"):
        read_table(tmp_path, TRACE_LENGTHS)


def test_a_column_that_the_table_does_not_have_is_our_bug(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="token_times_ns"):
        write_table(tmp_path, TOKEN_METRICS, tokens(2).rename(columns={"token_time_ns": "token_times_ns"}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["NA", "null", "NaN", "none", "#N/A", " "])
def test_only_an_empty_field_is_missing_text(tmp_path: Path, text: str) -> None:
    frame = pd.DataFrame({"request_id": [0], "prompt_id": [text], "num_prefill_tokens": [1], "num_decode_tokens": [1]})
    write_table(tmp_path, TRACE_LENGTHS, frame)
    assert read_table(tmp_path, TRACE_LENGTHS)["prompt_id"].tolist() == [text]


def test_one_table_in_two_files_is_refused(tmp_path: Path, small_limit: int) -> None:
    write_table(tmp_path, TOKEN_METRICS, tokens(101))
    (tmp_path / "token_metrics.csv").write_text("")
    with pytest.raises(ArtifactError, match=r"one table in two files: .*token_metrics\.csv and token_metrics\.parquet"):
        read_table(tmp_path, TOKEN_METRICS)


def large(folder: Path) -> Path:
    path = write_table(folder, TOKEN_METRICS, tokens(101))
    assert path.suffix == ".parquet"
    return path


def test_a_parquet_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path, small_limit: int) -> None:
    path = large(tmp_path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 17), *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"token_metrics\.parquet") as caught:
            read_table(tmp_path, TOKEN_METRICS)
        assert "\n" not in str(caught.value)


def test_a_byte_changed_in_the_data_of_a_parquet_file_is_noticed(tmp_path: Path, small_limit: int) -> None:
    path = large(tmp_path)
    whole, truth = path.read_bytes(), read_table(tmp_path, TOKEN_METRICS)
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    last = chunks[-1].data_page_offset + chunks[-1].total_compressed_size
    unnoticed = 0
    for place in range(4, last, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            unnoticed += not read_table(tmp_path, TOKEN_METRICS).equals(truth)
        except ArtifactError as error:
            assert "\n" not in str(error)
    assert unnoticed == 0


def test_a_parquet_file_without_a_column_or_with_text_in_a_number_is_refused(tmp_path: Path) -> None:
    tokens(3).drop(columns="token_index").to_parquet(tmp_path / "token_metrics.parquet")
    with pytest.raises(ArtifactError, match=r"columns missing: .*token_index"):
        read_table(tmp_path, TOKEN_METRICS)
    tokens(3).astype({"token_index": str}).replace("1", "one").to_parquet(tmp_path / "token_metrics.parquet")
    with pytest.raises(ArtifactError, match="malformed Parquet"):
        read_table(tmp_path, TOKEN_METRICS)
    tokens(3).assign(token_time_ns=pd.array([1, None, 3], "Int64")).to_parquet(tmp_path / "token_metrics.parquet")
    with pytest.raises(ArtifactError, match=r"empty field: .*token_time_ns"):
        read_table(tmp_path, TOKEN_METRICS)


def test_a_folder_in_the_place_of_a_table_is_said(tmp_path: Path) -> None:
    (tmp_path / "request_metrics.csv").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot read: .*request_metrics\.csv: Is a directory"):
        read_table(tmp_path, REQUEST_METRICS)
    assert find_table(tmp_path, TOKEN_METRICS) is None
