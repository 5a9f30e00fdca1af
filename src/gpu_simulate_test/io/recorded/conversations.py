"""Conversations as ShareGPT's users saved them: a JSON list, each with its turns; no times."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.recorded.numbers import Malformed
from gpu_simulate_test.io.recorded.source import documents, is_json, opened
from gpu_simulate_test.io.recorded.text import plain

_ASKING = ("human", "user")
_ANSWERING = ("gpt", "chatgpt", "bing", "bard", "assistant")


def is_conversations(path: Path) -> bool:
    """True of a file whose first JSON object holds a conversation.

    Raises
    ------
    ArtifactError
        It cannot be read.
    """
    try:
        with opened(path) as stream:
            first = next(documents(stream), None) if is_json(stream) else None
    except Malformed:
        return False
    return isinstance(first, dict) and isinstance(first.get("conversations"), list)


def read_conversations(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Human turns and the answers to them of each conversation, one at a time: such files are large.

    Yields
    ------
    list of (str, str)
        Empty for a conversation without both.

    Raises
    ------
    ArtifactError
        No text, or no list of conversations.
    """
    try:
        with opened(path) as stream:
            for number, item in enumerate(documents(stream), start=1):
                turns = item.get("conversations") if isinstance(item, dict) else None
                if not isinstance(turns, list):
                    raise Malformed(f"number {number}: it has no list of conversations")
                yield _exchanges([turn for turn in turns if isinstance(turn, dict)])
    except Malformed as error:
        raise ArtifactError(f"malformed conversations: {path}: {error}") from error


def _exchanges(turns: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    asked = None
    for turn in turns:
        text = turn.get("value")
        if not isinstance(text, str) or not text:
            continue
        if asked is None and turn.get("from") in _ASKING:
            asked = plain(text)
        elif asked is not None and turn.get("from") in _ANSWERING:
            found.append((asked, plain(text)))
            asked = None
    return found
