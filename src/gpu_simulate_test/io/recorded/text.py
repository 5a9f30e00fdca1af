"""Text as other tools write it."""

import json
from typing import Any


def plain(text: str) -> str:
    """The text, U+FFFD in place of half a surrogate pair, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def failure(error: Any, kind: Any = None) -> tuple[str | None, str | None]:
    """Type and message of a request's error; None and None where there is none.

    Parameters
    ----------
    error : object
        A text (of a traceback, its last line counts), an object with ``type`` or ``error_type`` and ``message`` or
        ``error_msg``, or anything else; what is empty is no error.
    kind : object
        The error's type, where the file has it apart; with it, a request has failed whatever `error` is.
    """
    if not error and not kind:
        return None, None
    if isinstance(error, dict):
        kind = kind or error.get("error_type") or error.get("type") or error.get("code")
        error = error.get("error_msg") or error.get("message") or error
    text = error if isinstance(error, str) else "" if error is None else json.dumps(error)
    lines = [line for line in map(_one_line, text.split("\n")) if line]
    message = lines[-1] if lines else "no text of it"
    if not kind:
        name = message.partition(":")[0]
        kind = name if lines and name.replace(".", "_").isidentifier() else "error"
    return _one_line(str(kind)) or "error", message


def _one_line(text: str) -> str:
    """Without what would move a terminal's cursor or end a table's line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in plain(text)).split())
