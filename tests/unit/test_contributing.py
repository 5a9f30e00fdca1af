"""What a contributor is told holds: commands exist, files are where they are said to be, versions and names agree."""

import re
import tomllib

import pytest
import yaml

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.config.renamed import RENAMED

ROOT = project_root()
MAKE_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def workflow() -> tuple[list[dict[str, str]], list[str]]:
    """The matrix of its job, and every command line of it."""
    job = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["check"]
    matrix = job["strategy"]["matrix"]["include"]
    commands = [step["run"] for step in job["steps"] if "run" in step] + [entry["command"] for entry in matrix]
    return matrix, [line for command in commands for line in command.splitlines()]


def test_the_workflow_runs_what_there_is() -> None:
    _, commands = workflow()
    for command in [*commands, *text(".ci/run").splitlines()]:
        if command.startswith("make "):
            assert set(command.split()[1:]) <= MAKE_TARGETS, command
    assert {".ci/run", "make setup", "${{ matrix.command }}"} <= set(commands)


def test_the_workflow_tries_every_python_that_we_accept() -> None:
    matrix, _ = workflow()
    assert tomllib.loads(text("pyproject.toml"))["project"]["requires-python"] == ">=3.11,<3.14"
    assert [entry["python"] for entry in matrix] == ["3.11", "3.12", "3.13"]


def test_the_hooks_are_the_tools_of_the_test_script() -> None:
    (local,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    tools = {hook["entry"].split()[0] for hook in local["hooks"] if hook["language"] == "system"}
    assert tools == set(re.findall(r"^(ruff|mypy|lint-imports)", text("scripts/test.sh"), re.MULTILINE))


def test_the_issue_form_asks_for_what_a_run_says_of_itself() -> None:
    form = yaml.safe_load(text(".github/ISSUE_TEMPLATE/problem.yml"))
    fields = {field["id"]: field for field in form["body"] if "id" in field}
    assert len(fields) == len([field for field in form["body"] if field["type"] != "markdown"])
    assert fields["run-meta"]["attributes"]["label"] == "run_meta.json"
    needed = [name for name, field in fields.items() if field["validations"]["required"]]
    assert needed == ["kind", "commands", "error", "run-meta"]


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    citation = yaml.safe_load(text("CITATION.cff"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in text("CHANGELOG.md")


def test_the_changelog_has_every_renamed_setting() -> None:
    assert dict(re.findall(r"^\| `(\S+)` \| `(\S+)` \|$", text("CHANGELOG.md"), re.MULTILINE)) == RENAMED


@pytest.mark.parametrize("page", ["docs/contributing/index.md", "docs/contributing/recipes.md"])
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"`((?!\.\./)(?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml|yml|txt))`", text(page))
    places = (ROOT, ROOT / "src" / "gpu_simulate_test", ROOT / "configs" / "compare_vidur_real")
    assert named, "a page that names no file"
    assert [path for path in named if not any((place / path).exists() for place in places)] == []
