"""A model by its own config.json has a name of its own, however its file is named."""

import json
from pathlib import Path

import pytest

from gpu_simulate_test.config.hf_config import hf_setting


@pytest.mark.parametrize(
    ("named", "model_id"), [("config.json", "my-model"), (".", "my-model"), ("other.json", "other")]
)
def test_a_model_is_called_as_its_folder_or_file(
    named: str, model_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    for file in ("config.json", "other.json"):
        (folder / file).write_text(json.dumps({"num_hidden_layers": 2}))
    monkeypatch.chdir(folder)
    assert hf_setting("id", named, None) == model_id
    assert hf_setting("id", str(folder / named), None) == model_id
    assert hf_setting("name", None, model_id) == model_id.replace("-", "_")
