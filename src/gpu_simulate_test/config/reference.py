"""The settings, told: for ``--help`` and, as a page, in ``docs/reference/settings.md``.

``python -m scripts.reference`` writes the page anew.
"""

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic.fields import FieldInfo

from gpu_simulate_test.config.base import fields_of, range_of
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.schema import STAGES

_TEXT_COLUMN = 44
_ABSENT = object()
_SHARED = ("model", "hardware", "workload", "backend", "limits", "profile", "vidur", "slo", "output")


def settings_text(stage: str, config: Mapping[str, Any]) -> str:
    """Every setting of a stage as composed, a line each, and what it means."""
    lines = []
    for key, field in fields_of(STAGES[stage]):
        value = _value(config, key)
        if value is not _ABSENT:
            lines.append(f"{f'{key}={_shown(value)}':<{_TEXT_COLUMN}} {field.description or ''}".rstrip())
    return "\n".join(lines)


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part, _ABSENT) if isinstance(config, Mapping) else _ABSENT
    return config


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def reference() -> str:
    """The page: a table a group."""
    lines = [
        "# Settings",
        "",
        "Made from the code, by `python -m scripts.reference`.",
        "Every stage takes the settings of the groups;",
        "each has some of its own. The files of `configs/compare_vidur_real/` give them values;",
        "`COMMAND --cfg job` shows those in force.",
        "A default is that of the group's default option; `${key}` is the value of another setting.",
    ]
    fields = {stage: dict(fields_of(model)) for stage, model in STAGES.items()}
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        defaults = {stage: OmegaConf.to_container(compose(stage), resolve=False) for stage in STAGES}
    common = fields["workload_spec"]
    for group in _SHARED:
        of_group = {key: one for key, one in common.items() if key.startswith(f"{group}.")}
        lines += _table(group, of_group, defaults["workload_spec"])
    for stage, own in fields.items():
        of_stage = {key: one for key, one in own.items() if key.partition(".")[0] not in _SHARED}
        lines += _table(stage.replace("_", "-"), of_stage, defaults[stage])
    return "\n".join(lines) + "\n"


def _table(title: str, fields: Mapping[str, FieldInfo], defaults: Any) -> list[str]:
    rows = [
        f"| `{key}` | {_kind(field)} | {_default(defaults, key, field)} | {field.description or ''} |"
        for key, field in fields.items()
    ]
    return ["", f"## {title}", "", "| setting | value | default | meaning |", "| --- | --- | --- | --- |", *rows]


def _default(defaults: Any, key: str, field: FieldInfo) -> str:
    """What is composed, or else what the type says; empty where it depends on where this is installed."""
    value = _value(defaults, key)
    told = _shown(field.default if value is _ABSENT else value)
    return "" if "${gsim." in told else f"`{told}`"


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
    if origin is list:
        return ["`[text, ...]`"]
    return [names.get(annotation, "`{name: text, ...}`")]
