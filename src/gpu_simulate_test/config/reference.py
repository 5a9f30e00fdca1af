"""The settings, told: for ``--help`` and, as a page, in ``docs/reference/settings.md``.

``python -m gpu_simulate_test.config.reference > docs/reference/settings.md`` writes the page anew.
"""

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from gpu_simulate_test.config.base import fields_of, range_of
from gpu_simulate_test.config.schema import STAGES

_TEXT_COLUMN = 44
_ABSENT = object()
_SHARED = ("model", "hardware", "workload", "backend", "limits", "profile", "vidur", "output")


def settings_text(stage: str, config: Mapping[str, Any]) -> str:
    """Every setting of a stage as composed, a line each, and what it means."""
    lines = []
    for key, field in fields_of(STAGES[stage]):
        node: Any = config
        for part in key.split("."):
            node = node.get(part, _ABSENT) if isinstance(node, Mapping) else _ABSENT
        if node is not _ABSENT:
            shown = "null" if node is None else str(node).lower() if isinstance(node, bool) else str(node)
            lines.append(f"{f'{key}={shown}':<{_TEXT_COLUMN}} {field.description or ''}".rstrip())
    return "\n".join(lines)


def reference() -> str:
    """The page: a table a group."""
    lines = [
        "# Settings",
        "",
        "Made from the code, by `python -m gpu_simulate_test.config.reference`.",
        "Every stage takes the settings of the groups;",
        "each has some of its own. The files of `configs/compare_vidur_real/` give them values;",
        "`COMMAND --cfg job` shows those in force.",
    ]
    fields = {stage: dict(fields_of(model)) for stage, model in STAGES.items()}
    common = fields["workload_spec"]
    for group in _SHARED:
        lines += _table(group, {key: one for key, one in common.items() if key.startswith(f"{group}.")})
    for stage, own in fields.items():
        lines += _table(
            stage.replace("_", "-"), {key: one for key, one in own.items() if key.partition(".")[0] not in _SHARED}
        )
    return "\n".join(lines) + "\n"


def _table(title: str, fields: Mapping[str, FieldInfo]) -> list[str]:
    if not fields:
        return []
    rows = [f"| `{key}` | {_kind(field)} | {field.description or ''} |" for key, field in fields.items()]
    return ["", f"## {title}", "", "| setting | value | meaning |", "| --- | --- | --- |", *rows]


def _kind(field: FieldInfo) -> str:
    """Type and range, or the choices."""
    parts = _parts(field.annotation)
    if bounds := range_of(field):
        parts[0] += f" {bounds}"
    return " or ".join(parts)


def _parts(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if origin is Literal:
        return [", ".join(f"`{choice}`" for choice in get_args(annotation))]
    if origin in (Union, types.UnionType):
        return [part for one in get_args(annotation) for part in _parts(one)]
    if hasattr(annotation, "__metadata__"):
        return _parts(get_args(annotation)[0])
    names = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", type(None): "`null`"}
    return [names.get(annotation, "`{name: text, ...}`")]


if __name__ == "__main__":
    print(reference(), end="")
