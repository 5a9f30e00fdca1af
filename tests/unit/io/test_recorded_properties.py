"""Whatever a file of recorded requests holds, it is read right or refused in one line."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import read_recorded
from gpu_simulate_test.io.recorded.conversations import read_conversations
from tests.support.recorded_formats import US, WRITERS, Request, Writer, guidellm

# GST_EXAMPLES=2000 tries a file of each format two thousand times for each promise.
EXAMPLES = settings(
    max_examples=int(os.environ.get("GST_EXAMPLES", "10")),
    derandomize="GST_EXAMPLES" not in os.environ,  # the same few in every clone
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
INTERNALS = ("Traceback", "NoneType", "unsupported operand", "argument", "not subscriptable", "has no attribute")

served = st.builds(
    Request,
    arrival=st.integers(0, 3_000_000_000),
    prefill=st.integers(1, 9_999),
    ttft=st.integers(2, 90_000_000),
    gaps=st.lists(st.integers(0, 2_000_000), min_size=1, max_size=6).map(tuple),
)
failed = st.builds(
    Request,
    arrival=st.integers(0, 3_000_000_000),
    prefill=st.integers(1, 9_999),
    ttft=st.just(0),
    gaps=st.just(()),
    error=st.sampled_from(["ClientOSError: reset", "500", '\U0001f980 gone, "quite"']),
)
runs = st.tuples(served, st.lists(st.one_of(served, served, failed), max_size=5)).map(lambda run: [run[0], *run[1]])


def read(content: bytes, writer: Writer) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some file"
        path.write_bytes(content)
        return read_recorded(path, writer.columns)


def read_or_refused(content: bytes, writer: Writer) -> pd.DataFrame | None:
    """The requests, or None when they are refused as users are promised."""
    try:
        return read(content, writer)
    except (ArtifactError, ConfigError) as error:
        message = str(error)
        assert "some file" in message
        assert "\n" not in message and not any(internal in message for internal in INTERNALS), message
        assert message.isprintable(), message
        return None


def told(frame: pd.DataFrame, writer: Writer) -> list[tuple[Any, ...]]:
    """Of each request what does not depend on the others; of floats of seconds since 1970, whole microseconds."""
    columns = {name: frame[name].to_numpy(dtype=object) for name in frame}
    nothing = [0] * len(frame)
    arrival = columns.get("arrival_time_ns", nothing)

    def since(name: str, index: int) -> int | None:
        value = columns[name][index] if name in columns else pd.NA
        late = None if value is pd.NA else int(value - arrival[index])
        return late if late is None or not writer.error_ns else round(late / US) * US

    return [
        (
            columns["num_prefill_tokens"][index],
            columns["num_decode_tokens"][index],
            since("first_token_time_ns", index),
            since("completion_time_ns", index),
            columns["error_type"][index] is not None,
        )
        for index in range(len(frame))
    ]


def check(frame: pd.DataFrame) -> None:
    """Nothing in it is out of range or order."""
    lengths = frame[["num_prefill_tokens", "num_decode_tokens"]].to_numpy()
    assert lengths.dtype == np.int64 and lengths.min() >= 0 and lengths.max() <= 10_000_000
    ok = frame["error_type"].isna()
    names = [name for name in ("arrival", "first_scheduled", "first_token", "completion") if f"{name}_time_ns" in frame]
    times = frame.loc[ok, [f"{name}_time_ns" for name in names]]
    assert (times.astype("Int64").max().dropna() < 2**62).all()
    for before, after in zip(times, list(times)[1:], strict=False):
        assert (times[after] >= times[before]).fillna(True).all()
    if "arrival_time_ns" in frame:
        assert frame["arrival_time_ns"].is_monotonic_increasing and frame["arrival_time_ns"].iloc[0] == 0


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@EXAMPLES
@given(run=runs)
def test_what_is_written_is_read_back(writer: Writer, run: list[Request]) -> None:
    frame = read(writer.write(run), writer)
    check(frame)
    if writer.arrivals:
        run = sorted(run, key=lambda one: one.arrival // writer.unit_us)
        start = run[0].arrival // writer.unit_us
        expected = [(one.arrival // writer.unit_us - start) * writer.unit_us * US for one in run]
        assert frame["arrival_time_ns"].to_numpy() == pytest.approx(expected, abs=writer.error_ns)
    if writer.error_ns:  # which came first is not sure
        return
    assert frame["num_prefill_tokens"].tolist() == [one.prefill for one in run]
    if not writer.answers:
        assert frame["num_decode_tokens"].tolist() == [one.decode for one in run]
        return
    assert frame["error_type"].notna().tolist() == [bool(one.error) for one in run]
    assert frame["num_decode_tokens"].tolist() == [max(one.decode, 1) for one in run]
    ttft, e2e = ([row[column] for row in told(frame, writer)] for column in (2, 3))
    assert ttft == [None if one.error else one.ttft * US for one in run]
    assert e2e == [None if one.error else one.e2e * US for one in run]
    if writer.queue:
        queue = (frame["first_scheduled_time_ns"] - frame["arrival_time_ns"]).dropna()
        assert queue.tolist() == [one.queue * US for one in run if not one.error]
    if writer.tokens:
        start_us = run[0].arrival if writer.arrivals else None
        for one, times in zip(run, frame["token_times_ns"], strict=True):
            base = one.arrival if start_us is None else start_us
            assert (times is None) == bool(one.error)
            assert times is None or times.tolist() == [(time - base) * US for time in one.tokens()]


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@EXAMPLES
@given(run=runs, share=st.floats(0, 1))
def test_a_file_that_is_cut_off_is_refused_or_holds_whole_requests(
    writer: Writer, run: list[Request], share: float
) -> None:
    content = writer.write(run)
    frame = read_or_refused(content[: int(share * len(content))], writer)
    if frame is not None:
        check(frame)
        whole = [
            told(read(writer.write(run[:count]), writer), writer)
            for count in range(1, len(run) + 1)
            if counts(run[:count])
        ]
        assert Counter(told(frame, writer)) in [Counter(rows) for rows in whole]


def counts(run: Sequence[Request]) -> bool:
    return any(not one.error for one in run)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document's fields are."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))
    elif path:
        yield path


def changed(content: bytes, choice: int, other: Any) -> bytes:
    """The file with one of its fields another."""
    text = content.decode()
    if not text.lstrip().startswith(("{", "[")):
        lines = [line.split(";" if ";" in text else ",") for line in text.replace("\nof", " of").splitlines()]
        cells = [(row, column) for row in range(1, len(lines)) for column in range(len(lines[row]))]
        row, column = cells[choice % len(cells)]
        lines[row][column] = "" if other is None else str(other)
        return "".join((";" if ";" in text else ",").join(line) + "\n" for line in lines).encode()
    documents = [json.loads(text)] if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    everywhere = [path for path in places(documents)]
    path = everywhere[choice % len(everywhere)]
    target: Any = documents
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = other
    return b"".join(json.dumps(one).encode() + b"\n" for one in documents)


WRONG = st.sampled_from(
    [float("nan"), float("inf"), -1, -0.5, -1e18, 1e18, 10**20, 1e300, 2**70, -(2**63), "soon", "", None, True, [], {}]
)


@pytest.mark.parametrize(
    "writer", [one for name, one in WRITERS.items() if name != "parquet"], ids=lambda one: one.write.__name__
)
@EXAMPLES
@given(run=runs, choice=st.integers(0, 10_000), other=WRONG)
def test_one_field_that_is_wrong_changes_no_other_request(
    writer: Writer, run: list[Request], choice: int, other: Any
) -> None:
    content = writer.write(run)
    frame = read_or_refused(changed(content, choice, other), writer)
    if frame is not None:
        check(frame)
        before, after = Counter(told(read(content, writer), writer)), Counter(told(frame, writer))
        never_sent = int(writer.write is guidellm and other is None and all(row[-1] for row in before - after))
        assert sum(before.values()) - sum(after.values()) in (0, never_sent), "none is lost that was sent"
        if "first_token_time_ns" in frame and frame["first_token_time_ns"].isna().all():
            before, after = (Counter((*row[:2], row[3:]) for row in rows.elements()) for rows in (before, after))
        assert sum((after - before).values()) <= 1, "but for that one"


talks = st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4)


@EXAMPLES
@given(pairs=talks, share=st.floats(0, 0.999), choice=st.integers(0, 10_000), other=WRONG)
def test_conversations_are_read_right_or_refused(
    pairs: list[tuple[str, str]], share: float, choice: int, other: Any
) -> None:
    turns = [[{"from": "human", "value": asked}, {"from": "gpt", "value": made}] for asked, made in pairs]
    content = json.dumps([{"id": "a", "conversations": one} for one in turns]).encode()

    def read_talks(content: bytes) -> list[list[tuple[str, str]]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "some file"
            path.write_bytes(content)
            return list(read_conversations(path))

    assert read_talks(content) == [[one] for one in pairs]
    with pytest.raises(ArtifactError, match="some file"):
        read_talks(content[: 1 + int(share * (len(content) - 1))])
    try:
        found = read_talks(changed(content, choice, other))
    except ArtifactError as error:
        assert "some file" in str(error) and str(error).isprintable()
    else:
        assert sum(one != two for one, two in zip(found, [[one] for one in pairs], strict=True)) <= 1
