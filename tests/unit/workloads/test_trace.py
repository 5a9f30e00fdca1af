"""Public traces are read by their content, and become workloads of the requests that the settings choose."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.config.schema import HydraRecord, WorkloadSpecConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import read_recorded
from gpu_simulate_test.io.recorded.conversations import read_conversations
from gpu_simulate_test.io.run_dir import WORKLOAD_META, open_run_dir
from gpu_simulate_test.io.workload import PROMPTS, Workload, load_workload, read_prompts, workload_path
from gpu_simulate_test.workloads.spec import write_workload
from tests.support.configs import typed_config

# Seconds, prompt tokens, output tokens: every format below records these.
REQUESTS = ((0.0, 374, 44), (1.5, 396, 109), (1.75, 879, 55), (60.0, 91, 16))


def lines(path: Path, *rows: str, end: str = "\n") -> Path:
    path.write_text(end.join(rows), encoding="utf-8", newline="")
    return path


def azure(path: Path, zone: str = "") -> Path:
    rows = [f"2023-11-16 18:{16 + int(t // 60)}:{t % 60:010.7f}{zone},{i},{o}" for t, i, o in REQUESTS]
    return lines(path, "TIMESTAMP,ContextTokens,GeneratedTokens", *rows, end="\r\n")


def burstgpt(path: Path) -> Path:
    rows = [f"{t + 5},ChatGPT,{i},{o},{i + o},Conversation log" for t, i, o in REQUESTS]
    return lines(path, "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", *rows, "")


def mooncake(path: Path) -> Path:
    fields = ("timestamp", "input_length", "output_length")
    rows = [dict(zip(fields, (round(t * 1000), i, o), strict=True)) | {"hash_ids": [0, 7]} for t, i, o in REQUESTS]
    return lines(path, *map(json.dumps, rows), "")


def vidur(path: Path) -> Path:
    return lines(path, "arrived_at,num_prefill_tokens,num_decode_tokens", *(f"{t},{i},{o}" for t, i, o in REQUESTS), "")


def own(path: Path) -> Path:
    rows = [f"x,{o},{round((t + 1e6) * 1e3)},{i}" for t, i, o in REQUESTS]
    return lines(path, "name,made,when,asked", *rows, "")


OWN_COLUMNS = {"num_prefill_tokens": "asked", "num_decode_tokens": "made", "arrival_time_ms": "when"}


@pytest.mark.parametrize("write", [azure, lambda path: azure(path, "+00:00"), burstgpt, mooncake, vidur])
def test_every_format_gives_the_same_requests(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    frame = read_recorded(write(tmp_path / "trace"))
    assert frame["arrival_time_ns"].tolist() == [round(t * 1e9) for t, _, _ in REQUESTS]
    assert frame["num_prefill_tokens"].tolist() == [i for _, i, _ in REQUESTS]
    assert frame["num_decode_tokens"].tolist() == [o for _, _, o in REQUESTS]


def test_another_csv_is_read_by_naming_its_columns(tmp_path: Path) -> None:
    path = own(tmp_path / "own.csv")
    assert read_recorded(path, OWN_COLUMNS).equals(read_recorded(vidur(tmp_path / "trace")))
    with pytest.raises(
        ArtifactError, match=r"own\.csv: no known format: columns name, made, when, asked; .*trace_columns"
    ):
        read_recorded(path)
    with pytest.raises(ArtifactError, match=r"own\.csv: columns missing: ended"):
        read_recorded(path, OWN_COLUMNS | {"e2e_s": "ended"})
    with pytest.raises(ConfigError, match=r"trace_columns: not known: arrival_time_h"):
        read_recorded(path, {"arrival_time_h": "when"})
    with pytest.raises(ConfigError, match=r"trace_columns needs"):
        read_recorded(path, {"num_prefill_tokens": "asked", "arrival_time_ms": "when"})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,many,44\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,374,44\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,3.5,44\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n",
        '{"timestamp": 0, "input_length": 6, "output_length": "long", "hash_ids": []}\n',
        '{"timestamp": null, "input_length": 6, "output_length": 5, "hash_ids": []}\n',
        '{"timestamp": 0, "input_length": 6,\n',
        '{"neither": "this", "nor": "that"}\n',
        "\ufeff",
    ],
)
def test_a_trace_that_is_none_is_refused_by_name(tmp_path: Path, content: str) -> None:
    with pytest.raises(ArtifactError, match=r"some trace"):
        read_recorded(lines(tmp_path / "some trace", content))


def build(root: Path, trace: Path, *overrides: str) -> Workload:
    config = typed_config(
        "workload_spec",
        "experiment=cpu_demo",
        "workload=trace",
        f"workload.trace='{trace}'",
        f"output.root='{root}'",
        "overwrite=true",
        *overrides,
    )
    assert isinstance(config, WorkloadSpecConfig)
    path = workload_path(config)
    with open_run_dir(path, config, HydraRecord("workload_spec", "configs", []), meta=WORKLOAD_META) as run:
        write_workload(config, run)
    return load_workload(path, config.model.id)


def asked(workload: Workload) -> list[tuple[float, int, int]]:
    columns = workload.lengths[["num_prefill_tokens", "num_decode_tokens"]].to_numpy().tolist()
    return [(ns / 1e9, i, o) for ns, (i, o) in zip(workload.arrivals.known_ns, columns, strict=True)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), REQUESTS),
        (("workload.num_requests=2",), REQUESTS[:2]),
        (("workload.trace_start_s=1.5", "workload.trace_end_s=60"), ((0.0, 396, 109), (0.25, 879, 55))),
        (("workload.trace_start_s=1", "workload.num_requests=1"), ((0.0, 396, 109),)),
        (("workload.trace_time_scale=0.5",), tuple((t / 2, i, o) for t, i, o in REQUESTS)),
        (("workload.trace_length_scale=0.1",), ((0.0, 37, 4), (1.5, 40, 11), (1.75, 88, 6), (60.0, 9, 2))),
        (("workload.trace_length_scale=0.0001",), tuple((t, 1, 1) for t, _, _ in REQUESTS)),
    ],
)
def test_a_workload_is_the_part_of_the_trace_that_is_asked_for(
    tmp_path: Path, overrides: Sequence[str], expected: Sequence[tuple[float, int, int]]
) -> None:
    assert asked(build(tmp_path, mooncake(tmp_path / "trace"), *overrides)) == list(expected)


def test_requests_that_cannot_be_served_are_left_out_and_counted(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "trace.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        *("5,GPT-4,10,0,10,API log", "6,GPT-4,10,20,30,API log", "7,GPT-4,4000,97,4097,API log"),
        *("8,GPT-4,0,0,0,API log", "9,GPT-4,4000,96,4096,API log", "10,GPT-4,9000,1,9001,API log", ""),
    )
    workload = build(tmp_path, path)
    assert asked(workload) == [(0.0, 10, 20), (3.0, 4000, 96)]
    counts = {"without prompt or output tokens": 2, "above the model's limit of 4096 tokens": 2}
    assert workload.meta["left_out"] == counts
    summary = (workload.path / "summary.md").read_text(encoding="utf-8")
    assert "left out: 2 requests above the model's limit of 4096 tokens" in summary
    assert build(tmp_path, path, "workload.num_requests=1").meta["left_out"] == {"without prompt or output tokens": 1}
    with pytest.raises(ConfigError, match=r"no request is left: .*trace\.csv: 1 in the window"):
        build(tmp_path, path, "workload.trace_end_s=1")


def test_arrivals_may_be_others_than_the_traces(tmp_path: Path) -> None:
    settings = ("workload.arrival.kind=fixed_interval", "workload.arrival.inter_arrival_ns=1000000000")
    workload = build(tmp_path, vidur(tmp_path / "trace"), *settings)
    assert asked(workload) == [(float(n), i, o) for n, (_, i, o) in enumerate(REQUESTS)]
    with pytest.raises(Exception, match="trace_time_scale needs"):
        build(tmp_path, vidur(tmp_path / "trace"), *settings, "workload.trace_time_scale=2")


def test_a_trace_with_columns_of_ones_own_makes_a_workload(tmp_path: Path) -> None:
    columns = ",".join(f"{ours}:{theirs}" for ours, theirs in OWN_COLUMNS.items())
    assert asked(build(tmp_path, own(tmp_path / "own.csv"), f"workload.trace_columns={{{columns}}}")) == list(REQUESTS)


def talk(*texts: str) -> dict[str, object]:
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"id": "same for all", "conversations": turns}


def test_conversations_ask_their_first_question_and_as_much_as_was_answered(tmp_path: Path) -> None:
    talks = [talk("Why?", "Because of the sea."), talk("alone"), talk("x " * 5000, "long"), talk("How 🦀?", "So.", "?")]
    path = lines(tmp_path / "sharegpt.json", json.dumps(talks, indent=1, ensure_ascii=False))
    with pytest.raises(ConfigError, match=r"conversations have no arrivals: .*sharegpt\.json"):
        build(tmp_path, path)
    workload = build(tmp_path, path, "workload.arrival.kind=poisson")
    prompts = list(read_prompts(workload.path / PROMPTS))
    assert [prompt["text"] for prompt in prompts] == ["Why?", "How 🦀?"]
    assert [len(prompt["token_ids"]) for prompt in prompts] == workload.lengths["num_prefill_tokens"].tolist()
    first, second = workload.lengths["num_decode_tokens"]
    assert first > second >= 1
    assert workload.meta["left_out"] == {
        "without a question or an answer": 1,
        "above the model's limit of 4096 tokens": 1,
    }
    assert len(build(tmp_path, path, "workload.arrival.kind=poisson", "workload.num_requests=1")) == 1


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1), st.integers(1, 40))
def test_conversations_are_read_whatever_the_size_of_a_block(talks: list[tuple[str, str]], block: int) -> None:
    import tempfile

    from gpu_simulate_test.io.recorded import source

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_BLOCK", block)
        path = lines(Path(folder) / "talks.json", json.dumps([talk(*pair) for pair in talks]))
        assert list(read_conversations(path)) == [[one] for one in talks]


@pytest.mark.parametrize("content", ["[", '[{"conversations": [', '[{"id": 3}]', "[7]", '[{"conversations": "x"}]'])
def test_a_list_of_something_else_is_refused_by_name(tmp_path: Path, content: str) -> None:
    with pytest.raises(ArtifactError, match=r"talks\.json"):
        list(read_conversations(lines(tmp_path / "talks.json", content)))


def test_a_trace_gives_the_same_workload_as_when_this_was_written(tmp_path: Path) -> None:
    workload = build(tmp_path, azure(tmp_path / "trace"), "workload.trace_time_scale=0.3")
    assert workload.sha256 == "e3e928224a4405a9719561a937ff504dad8510cc80ab22464d7b8ba9fbd8e444"
    assert np.array_equal(workload.arrivals.known_ns, [0, 450_000_000, 525_000_000, 18_000_000_000])
