"""Names and texts may hold any character there is."""

import json
from pathlib import Path

from gpu_simulate_test.io.workload import read_prompts
from gpu_simulate_test.workloads.token_lengths import _train
from tests.configs import typed_config
from tests.integration.commands import run, run_dir

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
