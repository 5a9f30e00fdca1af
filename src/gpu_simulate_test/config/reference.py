"""The settings, told: for ``--help``, and for the page of them."""

from collections.abc import Mapping
from typing import Any

from gpu_simulate_test.config.base import fields_of
from gpu_simulate_test.config.schema import STAGES

ABSENT = object()
_TEXT_COLUMN = 44


def settings_text(stage: str, config: Mapping[str, Any]) -> str:
    """Every setting of a stage as composed, a line each, and what it means."""
    lines = []
    for key, field in fields_of(STAGES[stage]):
        value = value_of(config, key)
        if value is not ABSENT:
            lines.append(f"{f'{key}={shown(value)}':<{_TEXT_COLUMN}} {field.description or ''}".rstrip())
    return "\n".join(lines)


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key, or `ABSENT`."""
    for part in key.split("."):
        config = config.get(part, ABSENT) if isinstance(config, Mapping) else ABSENT
    return config


def shown(value: object) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
