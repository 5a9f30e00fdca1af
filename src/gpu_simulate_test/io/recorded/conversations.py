"""Conversations as ShareGPT's users saved them: a JSON list, each with its turns; no times."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_simulate_test.errors import ArtifactError

_BLOCK = 1 << 20


def is_conversations(path: Path) -> bool:
    """True of a file that is a JSON list.

    Raises
    ------
    ArtifactError
        It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError as error:
        raise ArtifactError(f"cannot read recorded requests: {path}: {error.strerror}") from error


def read_conversations(path: Path) -> Iterator[tuple[str, str] | None]:
    """First question and first answer of each conversation, one at a time: such files are large.

    Yields
    ------
    tuple of (str, str), or None
        None for a conversation that does not begin with both.

    Raises
    ------
    ArtifactError
        Not UTF-8, or no list of conversations.
    """
    for number, item in enumerate(_items(path), start=1):
        turns = item.get("conversations") if isinstance(item, dict) else None
        if not isinstance(turns, list):
            raise ArtifactError(f"malformed conversation: {path}: number {number}: it has no list of conversations")
        texts = [turn.get("value") for turn in turns[:2] if isinstance(turn, dict)]
        known = [text for text in texts if isinstance(text, str) and text]
        yield (known[0], known[1]) if len(known) == 2 else None


def _items(path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    try:
        with path.open(encoding="utf-8-sig") as stream:
            rest = stream.read(_BLOCK).lstrip().removeprefix("[")
            while True:
                rest = rest.lstrip(" \t\r\n,")
                if rest.startswith("]"):
                    return
                try:
                    item, end = decode(rest)
                except ValueError as error:  # cut off in its middle, or malformed
                    more = stream.read(max(_BLOCK, len(rest)))
                    if not more:
                        raise ArtifactError(f"malformed conversations: {path}: {error}") from error
                    rest += more
                    continue
                yield item
                rest = rest[end:]
    except UnicodeDecodeError as error:
        raise ArtifactError(f"conversations are not UTF-8: {path}: {error}") from error
