"""The settings reference is what the code says, and so is the help."""

import pytest

from gpu_simulate_test.config.base import fields_of
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.reference import reference, settings_text
from gpu_simulate_test.config.schema import STAGES
from tests.support.configs import typed_config


@pytest.fixture(scope="module")
def page() -> str:
    return reference()


def test_the_page_is_what_the_code_generates(page: str) -> None:
    kept = project_root() / "docs" / "reference" / "settings.md"
    assert kept.read_text(encoding="utf-8") == page, "run python -m scripts.reference"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_setting_has_a_meaning_on_one_line(stage: str, page: str) -> None:
    for key, field in fields_of(STAGES[stage]):
        assert field.description and "\n" not in field.description, key
        assert f"| `{key}` |" in page


def test_a_setting_of_several_kinds_has_all_their_values_and_the_default(page: str) -> None:
    assert "| `profile.source` | `measured` or `llmservingsim` or `operator_db` | `measured` |" in page
    assert "| `profile.folder` | text or `null` | `null` |" in page
    assert "| `limits.dtype` | `float32`, `bfloat16`, `float16` | `${hardware.dtype}` |" in page
    assert "| `output.root` | text |  |" in page, "it depends on where this is installed"


def test_the_help_lists_every_setting_of_a_stage_with_its_value() -> None:
    told = settings_text("real_bench", typed_config("real_bench", "experiment=cpu_demo").model_dump())
    assert "limits.max_num_seqs=16 " in told
    assert "requests in one batch" in told
    assert "real_run_dir" not in told
