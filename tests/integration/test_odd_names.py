"""Names and texts may hold any character there is."""

import csv
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.cli.arguments import literal
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.schema import WorkloadSpecConfig
from gpu_simulate_test.io.workload import read_prompts
from gpu_simulate_test.workloads.token_lengths import _train
from tests.support.commands import run, run_dir, sweep_dir
from tests.support.configs import typed_config

# Of every plane of Unicode: its first characters, its last ones (which are no characters), and what is not assigned.
PLANES = [
    "".join(chr(plane << 16 | low) for low in (0x0041, 0x00E9, 0x4E2D, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF))
    for plane in range(17)
]
TEXTS = [
    *PLANES,
    "a\u0000b\r\n\u2028\u0085\ufeff",
    "e\u0301 is not \u00e9, nor \ufb01 fi",
    "\U0001f469\u200d\U0001f467 \u202eright to left",
]

# Folders, files and columns that somebody may have.
NAMES = """a=b|=|(1)|a (copy|x)|[2024]|a[b|{x}|}{|#1|~|~user|!important|R&D|a^b|a;b|a<b>c|it's|'quoted'|"double"
say "hi|back\\slash|ends\\|50%|me@home|$HOME|$|{a: b, c: d}|*.jsonl|what?|`cmd`|null|true|NaN|-inf|1e3|007|1_000
2024_11_05|0x1F|12:30|a:b|choice(a)|glob(*)|+x|-m|.5|L\u00e4ufe \u65e5\u672c \U0001f980|  lead|a, b|a,b,|,""".replace(
    "\n", "|"
).split("|")
NAMES += ["trail  ", "a|b", "..x", "~key=value", "\\'", "'\\", "'a'b'"]
QUOTED_BY_ITSELF = ("'quoted'", '"double"')  # Hydra's own quotes: they go, unless something stands before them
TEXT_KEYS = ("output.root", "workload.prompts", "model.path", "hydra.run.dir", "+workload.trace_columns.arrival_time_s")
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1)


def workload(root: Path | str, prompts: Path | str, cwd: Path | None = None) -> Path:
    settings = ("experiment=cpu_demo", f"output.root={root}", f"workload.prompts={prompts}")
    return run_dir(run("workload-spec", *settings, cwd=cwd))


def test_prompts_of_every_plane_come_back_byte_for_byte(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        json.dumps({"prompt_id": f"{text} {i}", "text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(TEXTS)
    ]
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    path = workload(tmp_path, prompts)
    written = list(read_prompts(path / "prompts.jsonl"))
    assert [prompt["text"] for prompt in written] == TEXTS
    data = (path / "prompts.jsonl").read_bytes()
    assert all(plane[:4].encode() in data for plane in PLANES[1:]), "as UTF-8, not escaped"
    tokenizer = _train(typed_config("workload_spec", "experiment=cpu_demo").model.vocab_size)
    decoded = [tokenizer.decode(prompt["token_ids"], skip_special_tokens=False) for prompt in written]
    assert [text.encode() for text in decoded] == [text.encode() for text in TEXTS]


def test_file_names_with_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    folder = tmp_path / "L\u00e4ufe \u65e5\u672c \U0001f980 \u043d\u0430\u0448\u0438"
    folder.mkdir()
    prompts = folder / "Fragen f\u00fcr alle (2) \ufb01.jsonl"
    prompts.write_text('{"prompt_id":"a","text":"hello"}\n', encoding="utf-8")
    path = workload(folder / "mit Leerzeichen", prompts)
    assert path.parent == folder / "mit Leerzeichen" / "workloads"
    # From its own folder, by a relative name in plain letters with a space.
    (folder / "my prompts.jsonl").write_bytes(prompts.read_bytes())
    again = workload("other runs", "my prompts.jsonl", cwd=folder)
    assert again == folder / "other runs" / "workloads" / path.name


def hydras_reading(*overrides: str, multirun: bool = False) -> list[list[object]]:
    """The values that Hydra's grammar reads in each override."""
    parser = OverridesParser.create()
    parsed = parser.parse_overrides(literal(list(overrides), WorkloadSpecConfig, multirun=multirun))
    return [
        [parser.parse_override(f"x={value}").value() for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.value()]
        for one in parsed
    ]


def test_there_are_forty_names() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 40
    assert not set(" =()[]{}#~!&^;<>'\"\\%@$,*?|`+:") - set("".join(NAMES))


@pytest.mark.parametrize("key", TEXT_KEYS)
def test_a_text_setting_is_the_text_that_was_typed(key: str) -> None:
    names = [name for name in NAMES if name not in QUOTED_BY_ITSELF]
    nullable = key in ("workload.prompts", "model.path")
    for name in names:
        expected = None if nullable and name == "null" else name
        assert hydras_reading(f"{key}={name}") == [[expected]], name
    for name in NAMES:
        assert hydras_reading(f"{key}=./{name}") == [[f"./{name}"]], name


@given(PRINTABLE)
def test_any_path_is_the_text_that_was_typed(name: str) -> None:
    for multirun in (False, True):
        wanted = f"/folder/{name}".replace(",", ";" if multirun else ",")
        assert hydras_reading(f"output.root={wanted}", multirun=multirun) == [[wanted]]
        assert hydras_reading(f"+workload.trace_columns.ttft_s={wanted}", multirun=multirun) == [[wanted]]


def test_a_sweep_is_over_the_names_between_the_commas() -> None:
    bare = [f"/x/{name}" for name in NAMES if "," not in name]
    quoted = ["a, b", "a,b,", ","]
    swept = ",".join([*bare, *(f"'{name}'" for name in quoted)])
    assert hydras_reading(f"output.root={swept}", multirun=True) == [[*bare, *quoted]]
    assert hydras_reading("output.root=a, b ,'c, d',007", multirun=True) == [["a", "b ", "c, d", "007"]]
    assert hydras_reading("output.root=choice(1_000, 'a,b')", multirun=True) == [["1_000", "a,b"]]
    assert hydras_reading("workload.prompts=null,x", multirun=True) == [[None, "x"]]
    assert hydras_reading("workload.seed=1,2", "workload.seed=range(3)", multirun=True) == [[1, 2], [0, 1, 2]]


def test_a_column_has_any_name() -> None:
    for first, second in zip(NAMES, reversed(NAMES), strict=True):
        columns = [name for name in (first, second) if name == name.strip() and ": " not in name]
        text = ", ".join(f"{key}: {name}" for key, name in zip(("num_prefill_tokens", "e2e_s"), columns, strict=False))
        expected = [name.strip("'\"") if name in QUOTED_BY_ITSELF else name for name in columns]
        (values,) = hydras_reading(f"workload.trace_columns={{{text}}}")[0]
        assert isinstance(values, dict)
        assert list(values.values()) == expected
    assert hydras_reading("workload.trace_columns={ttft_s: ' a, e2e_s: b', e2e_s: 1_0}") == [
        [{"ttft_s": " a, e2e_s: b", "e2e_s": "1_0"}]
    ]
    swept = hydras_reading("workload.trace_columns={ttft_s: a (b},{ttft_s: c, d}", multirun=True)
    assert swept == [[{"ttft_s": "a (b"}, {"ttft_s": "c, d"}]]


def test_other_values_keep_their_meaning() -> None:
    for override in (
        "model=qwen3_tiny",
        "vidur/predictor=stock",
        "workload.seed=1_000",
        "overwrite=true",
        "~experiment",
    ):
        assert literal([override], WorkloadSpecConfig, multirun=False) == [override]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        overrides = ["model=qwen3_tiny", "output.root=${model.name} (1)", r"workload.prompts=a\${b}"]
        config = compose("workload_spec", overrides=literal(overrides, WorkloadSpecConfig, multirun=False))
    assert (config.output.root, config.workload.prompts) == ("qwen3_tiny (1)", "a${b}")


def folders(names: list[str], count: int) -> list[str]:
    """Paths whose folders have all the names."""
    return ["/".join(names[start::count]) for start in range(count)]


def test_a_run_in_folders_of_any_name(tmp_path: Path) -> None:
    (folder,) = folders(NAMES, 1)
    prompts = tmp_path / folder / NAMES[-1]
    prompts.parent.mkdir(parents=True)
    prompts.write_text('{"prompt_id":"a","text":"hello"}\n', encoding="utf-8")
    assert workload(tmp_path / folder, prompts).parents[1] == tmp_path / folder
    assert workload("1_000", prompts, cwd=tmp_path).parents[1] == tmp_path / "1_000"


def test_a_sweep_over_folders_of_any_name(tmp_path: Path) -> None:
    roots = [str(tmp_path / folder) for folder in folders([name for name in NAMES if "," not in name], 4)]
    done = run("workload-spec", "experiment=cpu_demo", f"output.root={','.join(roots)}", "-m")
    assert done.returncode == 0, done.stderr
    folder, runs = sweep_dir(done)
    assert [str(path.parents[1]) for path in runs] == roots
    assert str(folder.parents[1]) == roots[0]


def test_a_trace_with_columns_of_any_name(tmp_path: Path) -> None:
    names = {
        "num_prefill_tokens": "in, (tokens) = {#1}",
        "num_decode_tokens": "007",
        "arrival_time_s": "it's [s] 100 %",
    }
    trace = tmp_path / "trace.csv"
    with trace.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([list(names.values()), [11, 3, 0.0], [12, 4, 0.5]])
    columns = ", ".join(f"{key}: {name}" for key, name in names.items())
    settings = ("experiment=cpu_demo", "workload=trace", f"workload.trace={trace}", f"output.root={tmp_path}")
    path = run_dir(run("workload-spec", *settings, f"workload.trace_columns={{{columns}}}"))
    with (path / "trace_lengths.csv").open(encoding="utf-8", newline="") as stream:
        lengths = [(row["num_prefill_tokens"], row["num_decode_tokens"]) for row in csv.DictReader(stream)]
    assert lengths == [("11", "3"), ("12", "4")]
