"""The page of errors says what the code says: codes, and every message that a user can meet."""

import pytest

from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.errors import ArtifactError, ConfigError, GateError, MachineError
from scripts.reference.errors import PAGE, messages, patterns, rendered, texts

TEXT = (project_root() / PAGE).read_text(encoding="utf-8")


def test_the_page_is_what_is_generated() -> None:
    assert rendered(TEXT) == TEXT, "python -m scripts.reference"


def test_every_message_explained_by_hand_is_one_of_the_code() -> None:
    told = {text for _, _, text in messages()}
    ours = {*told, *texts()}
    assert [one for one in patterns(TEXT) if not any(one in text for text in ours)] == []
    assert len(patterns(TEXT)) > 80


def test_a_message_is_told_once() -> None:
    explained = patterns(TEXT)
    assert sorted(explained) == sorted(set(explained))
    hidden = [text for _, _, text in messages() if any(text.startswith(one) for one in explained)]
    assert hidden, "and what is explained is not listed again"
    assert [text for text in hidden if f"- `{text}`" in TEXT] == []


@pytest.mark.parametrize("kind", [ConfigError, ArtifactError, MachineError, GateError])
def test_every_exit_code_has_its_line(kind: type[Exception]) -> None:
    assert f"| {kind.exit_code}<br><small>{kind.__name__}</small> |" in TEXT


def test_a_changed_message_is_noticed() -> None:
    assert rendered(TEXT.replace("- `unknown flag: ", "- `unknown flags: ")) == TEXT
    assert "`no GPU: " in TEXT
    without = TEXT.replace("| `no GPU: hardware=... needs a CUDA device` |", "| `no gpu` |")
    assert rendered(without) != without, "no longer explained, it is listed"
