"""The reference of errors: exit codes and messages, read from the source.

A message is told as its template, with ``...`` for what only a run knows. What the page explains by hand, in the first
column of a table headed `message`, is left out of the list of the others.
"""

import ast
import re
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path

from gpu_simulate_test import errors
from gpu_simulate_test.config.paths import PACKAGE_DIR

PAGE = Path("docs/reference/errors.md")
_BLOCK = re.compile(r"(<!-- (codes|messages) -->).*?(<!-- end -->)", re.DOTALL)
_TABLE = re.compile(r"^\| message \|.*\n\|[- |]+\|\n((?:\|.*\n)+)", re.MULTILINE)
_CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, errors.StageError) and one is not errors.StageError
}
_GLUE = r"\.\.\.|\.\.\.(; |: \.\.\.(: | and )).*"  # its words are made elsewhere
# Raised below and told as an ArtifactError, behind these words.
_TOLD_AS = {"Malformed": "malformed recorded requests: ...: ", "_Damaged": ""}


def rendered(page: str) -> str:
    """The page with what lies between its markers made anew."""
    explained = patterns(page)

    def block(found: re.Match[str]) -> str:
        lines = _codes() if found[2] == "codes" else _others(explained)
        return "\n".join([found[1], "", *lines, "", found[3]])

    return _BLOCK.sub(block, page)


def patterns(page: str) -> list[str]:
    """The messages that the page explains by hand, as begun there: without the ``...`` at their ends."""
    rows = [row for table in _TABLE.findall(page) for row in table.splitlines()]
    return [told.removesuffix("...") for row in rows for told in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def texts() -> Iterator[str]:
    """The template of every text in the source."""
    for file in sorted(PACKAGE_DIR.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                yield from _templates(node)


def messages() -> Iterator[tuple[int, str, str]]:
    """Exit code, room and template of every message of an error, in the order of the source."""
    for file in sorted(PACKAGE_DIR.rglob("*.py")):
        room = file.relative_to(PACKAGE_DIR).parts[0]
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: call.lineno):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if call.args and (name in _CLASSES or name in _TOLD_AS):
                code = _CLASSES.get(name, errors.ArtifactError).exit_code
                for text in _templates(call.args[0]):
                    if not re.fullmatch(_GLUE, text):
                        yield code, room, _TOLD_AS.get(name, "") + text


def _templates(node: ast.expr) -> list[str]:
    """What a text may be; more than one where parts of it are chosen."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else ["..."]
    if isinstance(node, ast.JoinedStr):
        parts = [_templates(value.value if isinstance(value, ast.FormattedValue) else value) for value in node.values]
        return [re.sub(r"(\.\.\. ?){2,}", "... ", "".join(chosen)).rstrip() for chosen in product(*parts)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return ["".join(chosen) for chosen in product(_templates(node.left), _templates(node.right))]
    if isinstance(node, ast.IfExp):
        return _templates(node.body) + _templates(node.orelse)
    return ["..."]


def _codes() -> list[str]:
    kinds = {one.exit_code: one for one in _CLASSES.values() if one.__base__ is errors.StageError}
    rows = [f"| {code}<br><small>{one.__name__}</small> | {one.__doc__} |" for code, one in sorted(kinds.items())]
    return ["| exit code | meaning |", "| --- | --- |", *rows]


def _others(explained: list[str]) -> list[str]:
    left = {one for one in messages() if not any(one[2].startswith(pattern) for pattern in explained)}
    lines = []
    for (code, room), group in groupby(sorted(left), key=lambda one: one[:2]):
        lines += [f"**Exit {code}, {room}**", "", *(f"- `{text}`" for _, _, text in group), ""]
    return lines[:-1]
