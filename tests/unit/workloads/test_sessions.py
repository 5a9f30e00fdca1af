"""Closed loops and conversations: what is known beforehand is in the workload, and the rest says what it waits for."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpu_simulate_test.cli import workload_spec
from gpu_simulate_test.config.schema import HydraRecord
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.tables import TRACE_INTERVALS
from gpu_simulate_test.io.workload import PROMPTS, Workload, load_workload, read_prompts, token_ids
from tests.support.configs import typed_config

MS = 1_000_000
CLOSED = ("workload.arrival.kind=closed_loop", "workload.arrival.concurrency=2")


def build(folder: Path, *settings: str) -> Workload:
    config = typed_config("workload_spec", "experiment=cpu_demo", f"output.root={folder / 'out'}", *settings)
    return load_workload(workload_spec.run(config, HydraRecord("workload_spec", "", [])), config.model.id)  # type: ignore[arg-type]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turn(session: int, prompt: int, **more: int) -> dict[str, object]:
    return {"session_id": f"s{session}", "input_length": prompt, "output_length": 3, "hash_ids": [], **more}


TALKS = (
    turn(1, 20, timestamp=100),
    turn(2, 30, timestamp=400),
    turn(1, 40, delay=50),
    turn(1, 60, delay=0),
    turn(2, 50, delay=70),
    turn(3, 10, timestamp=900),
)


def test_of_a_closed_loop_only_the_first_of_each_user_is_known_beforehand(tmp_path: Path) -> None:
    more = "workload.num_requests=5", "workload.arrival.think_time_s=0.25", "workload.arrival.ramp_s=3"
    arrivals = build(tmp_path, *CLOSED, *more).arrivals
    assert arrivals.known_ns.tolist() == [0, 1500 * MS, -1, -1, -1]
    assert arrivals.follows.tolist() == [-1] * 5
    assert arrivals.delay_ns.tolist() == [0, 0, 250 * MS, 250 * MS, 250 * MS]


def test_an_open_workload_is_the_same_bytes_as_before_closed_loops(tmp_path: Path) -> None:
    workload = build(tmp_path, "workload.num_requests=3")
    header = (workload.path / TRACE_INTERVALS.filename).read_text().splitlines()[0]
    assert header == "request_id,inter_arrival_ns,arrival_time_ns"
    same = build(tmp_path / "other", "workload.num_requests=3", "workload.arrival.think_time_s=9")
    assert same.path.name == workload.path.name


@pytest.mark.parametrize("kind", ["trace", "poisson", "closed_loop"])
def test_turns_follow_one_another_and_first_turns_come_as_asked(tmp_path: Path, kind: str) -> None:
    trace = lines(tmp_path / "talks.jsonl", *TALKS)
    settings = "workload=trace", f"workload.trace={trace}", "workload.sessions=true", f"workload.arrival.kind={kind}"
    arrivals = build(tmp_path, *settings, "workload.arrival.concurrency=1", "workload.arrival.think_time_s=2").arrivals
    # By arrival, and a turn without a time of its own beside its first: 20, 40, 60 tokens, then 30, 50, then 10.
    assert arrivals.follows.tolist() == [-1, 0, 1, -1, 3, -1]
    assert arrivals.delay_ns[[1, 2, 4]].tolist() == [50 * MS, 0, 70 * MS]
    first = arrivals.known_ns[[0, 3, 5]].tolist()
    if kind == "trace":
        assert first == [0, 300 * MS, 800 * MS]
    elif kind == "closed_loop":
        assert first == [0, -1, -1]
        assert arrivals.delay_ns[[3, 5]].tolist() == [2000 * MS] * 2
    else:
        assert first[0] == 0 < first[1] < first[2]
    assert (arrivals.known_ns[[1, 2, 4]] == -1).all()


def test_a_chat_of_alibabas_traces_follows_its_parent(tmp_path: Path) -> None:
    def chat(number: int, parent: int, at: float) -> dict[str, object]:
        lengths = {"input_length": 10 + number, "output_length": 3, "hash_ids": []}
        return {"chat_id": number, "parent_chat_id": parent, "timestamp": at, **lengths}

    trace = lines(tmp_path / "chats.jsonl", chat(7, -1, 0.0), chat(8, -1, 1.0), chat(9, 7, 2.0), chat(10, 9, 3.0))
    settings = "workload=trace", f"workload.trace={trace}", "workload.sessions=true"
    arrivals = build(tmp_path, *settings, "workload.arrival.think_time_s=1.5").arrivals
    assert arrivals.follows.tolist() == [-1, -1, 0, 2]
    assert arrivals.delay_ns[2:].tolist() == [1500 * MS] * 2
    assert build(tmp_path / "one by one", *settings[:2]).arrivals.is_open


def test_a_saved_conversation_asks_each_question_after_what_was_said_before(tmp_path: Path) -> None:
    said = ["How high is the tower?", "330 metres.", "And how old?", "It is of 1889.", "Thanks"]
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps([{"conversations": turns}, {"conversations": turns[:2]}]))
    settings = "workload=trace", f"workload.trace={path}", *CLOSED
    workload = build(tmp_path, *settings, "workload.sessions=true")
    prompts = list(read_prompts(workload.path / PROMPTS))
    assert [prompt["text"] for prompt in prompts] == [said[0], "".join(said[:3]), said[0]]
    first, second = (token_ids(prompt) or [] for prompt in prompts[:2])
    assert second[: len(first)] == first, "the same tokens, so that a prefix cache finds them"
    assert workload.arrivals.follows.tolist() == [-1, 0, -1]
    assert len(build(tmp_path, *settings)) == 2, "without sessions, the first question of each"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("workload.arrival.kind=closed_loop",), "workload.arrival.concurrency is missing"),
        (("+workload.sessions=true",), "workload.sessions needs workload.source=trace"),
        (("workload.arrival.kind=closed_loop", "workload.arrival.concurrency=0"), "must be from 1 to 10,000,000"),
    ],
)
def test_what_cannot_be_is_said_by_name(tmp_path: Path, settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(tmp_path, *settings)


def test_a_trace_without_conversations_has_none(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 10, "output_length": 3, "hash_ids": []}
    trace = lines(tmp_path / "trace.jsonl", row, row | {"timestamp": 5})
    with pytest.raises(ConfigError, match="no conversations in it"):
        build(tmp_path, "workload=trace", f"workload.trace={trace}", "workload.sessions=true")


@pytest.mark.parametrize(
    ("old", "new"),
    [("2,,,,0", "2,,,2,0"), ("2,,,,0\n3,,,,0", "2,,,0,0\n3,,,0,0"), ("2,,,,0", "2,5,5,1,0"), ("0,0,0,,", "0,,,,0")],
)
def test_a_schedule_that_contradicts_itself_is_refused(tmp_path: Path, old: str, new: str) -> None:
    workload = build(tmp_path, *CLOSED, "workload.num_requests=4")
    file = workload.path / TRACE_INTERVALS.filename
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ArtifactError, match=TRACE_INTERVALS.filename):
        load_workload(workload.path, str(workload.meta["model"]))


def test_the_summary_says_how_requests_are_sent(tmp_path: Path) -> None:
    workload = build(tmp_path, *CLOSED, "workload.num_requests=4", "workload.arrival.think_time_s=0.5")
    assert "- arrivals: closed_loop, 2 users; each thinks for 0.5 s" in (workload.path / "summary.md").read_text()
    assert np.array_equal(workload.arrivals.known_ns, [0, 0, -1, -1])
