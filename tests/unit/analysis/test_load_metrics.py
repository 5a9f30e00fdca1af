"""A run is read as it was measured, and one that contradicts itself is refused in one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.errors import ArtifactError
from tests.support.builders import MS, edit_csv, write_run

TIMES = [[20 * MS, 30 * MS, 45 * MS], [1040 * MS, 1050 * MS], [2025 * MS]]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "real_a", "real", TIMES)


def test_a_run_is_read_with_its_times_and_types(run_dir: Path) -> None:
    run = load_run(run_dir, "real")
    assert run.requests["request_id"].tolist() == [0, 1, 2]
    assert run.requests["completion_time_ns"].tolist() == [45 * MS, 1050 * MS, 2025 * MS]
    assert run.tokens["token_time_ns"].tolist() == [time for times in TIMES for time in times]
    assert run.meta["run_type"] == "real"
    assert run.missing == ["iteration records (no iteration_metrics.csv)"]


def test_token_rows_may_be_in_the_order_they_were_made(run_dir: Path) -> None:
    expected = load_run(run_dir, "real").tokens
    edit_csv(run_dir / "token_metrics.csv", lambda frame: frame.iloc[[3, 0, 5, 1, 4, 2]])
    pd.testing.assert_frame_equal(load_run(run_dir, "real").tokens, expected)


def test_warm_up_is_left_out_with_its_tokens(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", "real", TIMES, request_ids=[-1, 0, 1], warmup=[-1]), "real")
    assert run.requests["request_id"].tolist() == [0, 1]
    assert run.tokens["request_id"].tolist() == [0, 0, 1]


def test_failed_requests_stay_in_the_table_without_tokens(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", "real", TIMES, failed=[1]), "real")
    assert run.requests["status"].tolist() == ["ok", "error", "ok"]
    assert run.requests["completion_time_ns"].isna().tolist() == [False, True, False]
    assert run.tokens["request_id"].tolist() == [0, 0, 0, 2]


def test_a_run_in_which_everything_failed_is_readable(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", "real", TIMES, failed=[0, 1, 2]), "real")
    assert len(run.requests) == 3
    assert run.tokens.empty


def test_the_first_token_has_no_latency_even_if_a_foreign_table_says_zero(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", "real", TIMES, foreign=True), "real")
    first = run.tokens["token_index"] == 0
    assert run.tokens.loc[first, "token_latency_ns"].isna().all()
    assert run.tokens.loc[~first, "token_latency_ns"].tolist() == [10 * MS, 15 * MS, 10 * MS]


def test_a_foreign_run_gets_its_completion_and_says_what_it_lacks(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", "real", TIMES, foreign=True), "real")
    assert run.requests["completion_time_ns"].tolist() == [45 * MS, 1050 * MS, 2025 * MS]
    assert run.missing == [
        "dispatch lag (no submit_time_ns)",
        "queueing delay (no first_scheduled_time_ns)",
        "preemptions (no num_preemptions)",
        "which requests were warm-up (no is_warmup)",
        "iteration records (no iteration_metrics.csv)",
    ]


def test_a_column_of_empty_fields_is_as_good_as_absent(run_dir: Path) -> None:
    edit_csv(run_dir / "request_metrics.csv", lambda frame: frame.assign(first_scheduled_time_ns=""))
    run = load_run(run_dir, "real")
    assert "queueing delay (no first_scheduled_time_ns)" in run.missing
    assert "first_scheduled_time_ns" not in run.requests


def test_latencies_rounded_apart_from_their_times_are_accepted(run_dir: Path) -> None:
    edit_csv(run_dir / "token_metrics.csv", set_cell(1, "token_latency_ns", 10 * MS + 1))
    assert load_run(run_dir, "real").tokens["token_latency_ns"][1] == 10 * MS + 1


def test_a_run_of_the_other_kind_is_refused(run_dir: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run_type is real, not vidur: .*; name a run that vidur-sim wrote"):
        load_run(run_dir, "vidur")


def test_a_foreign_run_need_not_name_its_type(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", "real", TIMES, workload_sha256=None)
    edit_meta(path, lambda text: text.replace('"run_type": "real", ', ""))
    assert len(load_run(path, "vidur").requests) == 3


def test_an_incomplete_run_is_refused(run_dir: Path) -> None:
    (run_dir / "run_meta.json").unlink()
    with pytest.raises(ArtifactError, match="incomplete run directory"):
        load_run(run_dir, "real")


@pytest.mark.parametrize("name", ["request_metrics.csv", "token_metrics.csv"])
def test_a_missing_table_is_refused(run_dir: Path, name: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(ArtifactError, match=f"cannot read: .*{name}"):
        load_run(run_dir, "real")


@pytest.mark.parametrize("lost_rows", [1, 2, 5])
def test_a_truncated_token_file_is_found(run_dir: Path, lost_rows: int) -> None:
    edit_csv(run_dir / "token_metrics.csv", lambda frame: frame.iloc[:-lost_rows])
    with pytest.raises(
        ArtifactError, match=r"token rows do not add up to num_decode_tokens_actual: .*run real-bench again"
    ):
        load_run(run_dir, "real")


def set_cell(row: int, column: str, value: object) -> Callable[[pd.DataFrame], None]:
    def edit(frame: pd.DataFrame) -> None:
        frame.loc[row, column] = str(value)

    return edit


def edit_meta(path: Path, edit: Callable[[str], str]) -> None:
    meta = path / "run_meta.json"
    meta.write_text(edit(meta.read_text(encoding="utf-8")), encoding="utf-8")


# Each line: what is wrong, the file it is in, the cell that is changed, and the request the message has to name.
CONTRADICTIONS = [
    ("duplicate request_id", "request_metrics.csv", (1, "request_id", 0), 0),
    ("status is neither ok nor error", "request_metrics.csv", (1, "status", "done"), 1),
    ("an ok request that made no token", "request_metrics.csv", (2, "num_decode_tokens_actual", 0), 2),
    ("token rows do not add up", "request_metrics.csv", (1, "num_decode_tokens_actual", 3), 1),
    ("tokens of an unknown request", "token_metrics.csv", (5, "request_id", 9), 9),
    ("token_index has gaps", "token_metrics.csv", (4, "token_index", 2), 1),
    ("token_time_ns goes back", "token_metrics.csv", (2, "token_time_ns", 29 * MS), 0),
    ("token_latency_ns is not the time since", "token_metrics.csv", (1, "token_latency_ns", 11 * MS), 0),
    ("first_token_time_ns is not the time of the first token", "token_metrics.csv", (0, "token_time_ns", 19 * MS), 0),
    ("completion_time_ns is not the time of the last token", "request_metrics.csv", (1, "completion_time_ns", 9e9), 1),
    ("an ok request without first_token_time_ns", "request_metrics.csv", (1, "first_token_time_ns", ""), 1),
    ("an ok request without completion_time_ns", "request_metrics.csv", (1, "completion_time_ns", ""), 1),
    ("submit_time_ns is before arrival_time_ns", "request_metrics.csv", (1, "submit_time_ns", 999 * MS), 1),
    (
        "first_token_time_ns is before first_scheduled",
        "request_metrics.csv",
        (0, "first_scheduled_time_ns", 21 * MS),
        0,
    ),
    ("ttft_ns is not first_token_time_ns - arrival", "request_metrics.csv", (2, "ttft_ns", 5), 2),
]


@pytest.mark.parametrize(("what", "name", "cell", "request_id"), CONTRADICTIONS, ids=[c[0] for c in CONTRADICTIONS])
def test_a_contradiction_is_refused_in_one_line(
    run_dir: Path, what: str, name: str, cell: tuple[int, str, object], request_id: int
) -> None:
    row, column, value = cell
    edit_csv(run_dir / name, set_cell(row, column, int(value) if isinstance(value, float) else value))
    if "token_latency" not in column and name == "token_metrics.csv":
        # Only the broken rule may speak: latencies are optional and would disagree as well.
        edit_csv(run_dir / name, lambda frame: frame.assign(token_latency_ns=""))
    with pytest.raises(ArtifactError, match=f"{what}.*: request {request_id}; run real-bench again") as caught:
        load_run(run_dir, "real")
    assert "\n" not in str(caught.value)


def test_a_message_names_the_file_that_was_read(run_dir: Path) -> None:
    table = pd.read_csv(run_dir / "token_metrics.csv").astype({"token_latency_ns": "Int64"})
    (run_dir / "token_metrics.csv").unlink()
    table.iloc[:-1].to_parquet(run_dir / "token_metrics.parquet", index=False)
    with pytest.raises(ArtifactError, match=r"token rows do not add up .*/token_metrics\.parquet: request 2;"):
        load_run(run_dir, "real")


def test_a_failed_request_with_a_completion_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "v", "vidur", TIMES, failed=[1])
    edit_csv(path / "request_metrics.csv", set_cell(1, "completion_time_ns", 1050 * MS))
    with pytest.raises(ArtifactError, match=r"a failed request with a completion_time_ns: .*; run vidur-sim again"):
        load_run(path, "vidur")


def test_an_empty_request_table_is_refused(run_dir: Path) -> None:
    edit_csv(run_dir / "request_metrics.csv", lambda frame: frame.iloc[:0])
    with pytest.raises(ArtifactError, match="no requests: "):
        load_run(run_dir, "real")


def test_every_concerned_request_is_counted(run_dir: Path) -> None:
    edit_csv(run_dir / "request_metrics.csv", lambda frame: frame.assign(ttft_ns="7"))
    with pytest.raises(ArtifactError, match="request 0 and 2 more"):
        load_run(run_dir, "real")


def test_times_beyond_the_reach_of_a_float_stay_exact(tmp_path: Path) -> None:
    epoch = 1_767_361_743_115_248_001  # a foreign run on the wall clock
    run = load_run(write_run(tmp_path / "r", "real", [[epoch + 1, epoch + 3]], arrival_ns=[epoch]), "real")
    assert run.requests["completion_time_ns"].tolist() == [epoch + 3]
    assert np.array_equal(run.tokens["token_time_ns"], [epoch + 1, epoch + 3])
