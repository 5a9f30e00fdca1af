"""The settings reference is what the code says, and so is the help."""

import re

import pytest

from gpu_simulate_test.config.base import fields_of
from gpu_simulate_test.config.paths import config_dir, project_root
from gpu_simulate_test.config.reference import settings_text
from gpu_simulate_test.config.schema import STAGES
from scripts.reference.settings import PAGE, comment, rendered
from tests.support.configs import typed_config


@pytest.fixture(scope="module")
def page() -> str:
    return rendered()


def test_the_page_is_what_the_code_generates(page: str) -> None:
    assert (project_root() / PAGE).read_text(encoding="utf-8") == page, "run python -m scripts.reference"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_setting_has_a_meaning_on_one_line(stage: str, page: str) -> None:
    for key, field in fields_of(STAGES[stage]):
        assert field.description and "\n" not in field.description, key
        assert f"| `{key}`" in page


def test_a_setting_of_several_kinds_has_all_their_values_and_the_default(page: str) -> None:
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    assert "`measured` or `llmservingsim` or `operator_db`" in rows["profile.source"]
    assert "text or `null`" in rows["profile.folder"]
    assert "`float32`, `bfloat16`, `float16`" in rows["limits.dtype"]
    assert "default `${hardware.dtype}`" in rows["limits.dtype"]
    assert "default" not in rows["output.root"], "it depends on where this is installed"
    assert "default `0.05`" in rows["hydra.sweeper.tolerance"]


def test_every_option_of_a_group_says_what_it_is(page: str) -> None:
    options = [file for file in config_dir().glob("*/**/*.yaml") if file.stem != "default"]
    assert len(options) > 30
    for file in options:
        option = f"{file.parent.relative_to(config_dir()).as_posix()}={file.stem}"
        assert len(comment(file).split()) >= 3, file
        assert re.search(rf"^\| `{option}`.* \| \S", page, re.MULTILINE), option


def test_the_help_lists_every_setting_of_a_stage_with_its_value() -> None:
    told = settings_text("real_bench", typed_config("real_bench", "experiment=cpu_demo").model_dump())
    assert "limits.max_num_seqs=16 " in told
    assert "requests in one batch" in told
    assert "real_run_dir=" not in told
