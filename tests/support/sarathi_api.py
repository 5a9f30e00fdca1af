"""Signatures of the classes and functions of Sarathi-Serve that we call, read from its source without importing it.

``python -m tests.support.sarathi_api CHECKOUT`` records them anew.
"""

import ast
import inspect
import json
import sys
from pathlib import Path

RECORD = Path(__file__).with_suffix(".json")


def recorded() -> dict[str, str]:
    """Parameters by "module:name"; "x=" has a default."""
    signatures: dict[str, str] = json.loads(RECORD.read_text(encoding="utf-8"))["signatures"]
    return signatures


def live(checkout: Path, names: list[str]) -> dict[str, str]:
    """The same, from a checkout."""
    return {name: _parameters(checkout, *name.split(":")) for name in names}


def signature(parameters: str) -> inspect.Signature:
    """What can be called, from a recorded line."""
    named = ", ".join(part + "None" if part.endswith("=") else part for part in parameters.split(", "))
    made: inspect.Signature = inspect.signature(eval(f"lambda {named}: None"))
    return made


def _parameters(checkout: Path, module: str, name: str) -> str:
    body = ast.parse((checkout / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")).body
    owner, _, method = name.partition(".")
    node = _find(body, owner)
    if isinstance(node, ast.FunctionDef):
        return _arguments(node.args)
    if not isinstance(node, ast.ClassDef):
        return "a value"
    function = _find(node.body, method or "__init__")
    if isinstance(function, ast.FunctionDef):
        return _arguments(function.args, drop_self=True)
    if method:
        raise LookupError(f"{module}:{name} is gone")
    return ", ".join(_fields(body, node))


def _find(body: list[ast.stmt], name: str) -> ast.AST | None:
    for node in body:
        if isinstance(node, ast.Try):
            node = _find(node.body, name) or node
        if getattr(node, "name", None) == name:
            return node
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets):
            return node
    return None


def _fields(body: list[ast.stmt], node: ast.ClassDef) -> list[str]:
    """Those of a dataclass, its bases' first."""
    fields = []
    for base in node.bases:
        parent = _find(body, getattr(base, "id", ""))
        if isinstance(parent, ast.ClassDef):
            fields += _fields(body, parent)
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            fields.append(entry.target.id + ("=" if entry.value else ""))
    return fields


def _arguments(arguments: ast.arguments, drop_self: bool = False) -> str:
    positional = [argument.arg for argument in arguments.args]
    for index in range(1, len(arguments.defaults) + 1):
        positional[-index] += "="
    parts = positional[1:] if drop_self else positional
    if arguments.vararg:
        parts.append("*" + arguments.vararg.arg)
    elif arguments.kwonlyargs:
        parts.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parts.append(argument.arg + ("=" if default else ""))
    return ", ".join(parts + (["**" + arguments.kwarg.arg] if arguments.kwarg else []))


if __name__ == "__main__":
    content = json.loads(RECORD.read_text(encoding="utf-8"))
    content["signatures"] = live(Path(sys.argv[1]), list(content["signatures"]))
    RECORD.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
