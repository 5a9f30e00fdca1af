"""Every command of the five that a page tells a reader to type names settings that there are, with values they take."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_simulate_test.cli.app import typed_config
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.schema import STAGES
from tests.support.configs import composed, jobs_of

ROOT = project_root()
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.parent.name != "study"),  # its script: test_study.py
    *sorted(ROOT.glob("specs/**/*.md")),
]
_BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_ELSEWHERE = ("--config-dir", "model.config=/path", "backend=sarathi ")  # needs files that are not there


def commands(page: Path) -> Iterator[tuple[str, ...]]:
    """What a page has typed: stage and overrides, a shell's variable in place."""
    for _, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        variables: dict[str, str] = {}
        text = re.sub(r"\\\n", " ", block)
        for name, value in re.findall(r'^\s*(\w+)="(.*?)"$', text, re.DOTALL | re.MULTILINE):
            variables[name] = " ".join(value.split())
        for line in text.splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            for stage in STAGES:
                if found := re.search(rf"(?:^\s*|/|run (?:-e \w+ )?){stage.replace('_', '-')}( .*|$)", line):
                    yield stage, *shlex.split(found[1].replace("<", "").replace(">", ""), comments=True)


def cases() -> list[object]:
    return [
        pytest.param(stage, overrides, id=f"{page.relative_to(ROOT)}: {stage} {' '.join(overrides)}"[:150])
        for page in PAGES
        for stage, *overrides in commands(page)
        if not any(one in f"{' '.join(overrides)} " for one in _ELSEWHERE)
    ]


def test_there_are_commands_to_type() -> None:
    assert len(cases()) > 30


@pytest.mark.parametrize(("stage", "typed"), cases())
def test_a_command_that_a_page_has_typed_is_understood(stage: str, typed: list[str]) -> None:
    overrides = [one for one in typed if not one.startswith("-") and not one.startswith(("hydra", "+hydra"))]
    assert all("=" in one for one in overrides), "a word that is no setting"
    first, *others = jobs_of(overrides)
    assert not others or {"-m", "--multirun"} & set(typed), "several values and no -m"
    typed_config(stage, composed(stage, *first).copy())
