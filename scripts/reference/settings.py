"""The reference of settings: options of the groups, and every setting with its values, its default and its meaning."""

import dataclasses
import inspect
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from pydantic.fields import FieldInfo

from gpu_simulate_test.config.base import fields_of, models_of, range_of
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.reference import ABSENT, shown, value_of
from gpu_simulate_test.config.schema import STAGES, StageConfig
from hydra_plugins.gpu_simulate_test_capacity.sweeper import CapacityConf

PAGE = Path("docs/reference/settings.md")
_SHARED = ("model", "hardware", "workload", "backend", "limits", "profile", "vidur", "slo", "output")
_HEAD = """\
# Settings

A setting is `key=value` on the command line, an option of a group `group=option`. Every stage takes the settings of the
groups; each has [some of its own](#workload-spec). Give the same overrides to all five stages, for they name the
workload; settings of one stage only to that stage.

- `<command> --help` lists every setting, `<command> --cfg job --resolve` shows the values in force; it runs nothing.
- Paths and other texts are what you type, once the shell has had its say: `'output.root=runs (1), new'`. In them,
  `${key}` is the value of another setting and `\\${` these two characters; quotes around the whole go.
- A sweep is `-m` with comma-separated values; a comma within one wants quotes: `'output.root="a,b",c' -m`.
- A default below is that of the group's default option; options have others, in their files in
  `configs/compare_vidur_real/`.

This page is made from the code by `python -m scripts.reference`.
"""


def rendered() -> str:
    """The page."""
    fields = {stage: dict(fields_of(model)) for stage, model in STAGES.items()}
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = {stage: compose(stage, return_hydra_config=True) for stage in STAGES}
    defaults = {stage: OmegaConf.to_container(one, resolve=False) for stage, one in composed.items()}
    lines = [_HEAD, *_options(composed["vidur_sim"])]
    common = fields["workload_spec"]
    for group in _SHARED:
        of_group = {key: one for key, one in common.items() if key.startswith(f"{group}.")}
        told = [
            inspect.cleandoc(model.__doc__ or "") for model in models_of(StageConfig.model_fields[group].annotation)
        ]
        lines += _table(group, of_group, defaults["workload_spec"], told[0] if len(told) == 1 else "")
    for stage, own in fields.items():
        of_stage = {key: one for key, one in own.items() if key.partition(".")[0] not in _SHARED}
        lines += _table(stage.replace("_", "-"), of_stage, defaults[stage])
    return "\n".join([*lines, *_sweeper()]) + "\n"


def _options(composed: DictConfig) -> list[str]:
    """Every option of the groups that have several, and what its file begins with."""
    chosen = composed.hydra.runtime.choices
    default = "<br><small>default</small>"
    rows = [
        f"| `{group}={file.stem}`{default if chosen.get(group) == file.stem else ''} | {comment(file)} |"
        for group, files in _groups()
        for file in files
    ]
    return ["## Options", "", "| option | what it is |", "| --- | --- |", *rows]


def _groups() -> Iterator[tuple[str, list[Path]]]:
    root = config_dir()
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        files = sorted(folder.glob("*.yaml"))
        if len(files) > 1:
            yield folder.relative_to(root).as_posix(), files


def comment(file: Path) -> str:
    """What a file of settings begins with, as one line; empty where that is no comment."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    told = lines[: next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return " ".join(line.lstrip("# ") for line in told).replace("<", "&lt;")


def _table(title: str, fields: Mapping[str, FieldInfo], defaults: Any, told: str = "") -> list[str]:
    rows = [
        f"| `{key}`{_default(defaults, key, field)} | {field.description or ''}<br><small>{_kind(field)}</small> |"
        for key, field in fields.items()
    ]
    about = [told, ""] if told else []
    return ["", f"## {title}", "", *about, "| setting | meaning and values |", "| --- | --- |", *rows]


def _default(defaults: Any, key: str, field: FieldInfo) -> str:
    """What is composed, or else what the type says; empty where it depends on where this is installed."""
    value = value_of(defaults, key)
    told = shown(field.default if value is ABSENT else value)
    return "" if "${gsim." in told else f"<br><small>default `{told}`</small>"


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


def _sweeper() -> list[str]:
    """Settings of the capacity search, which Hydra gives to its sweeper."""
    rows = [
        f"| `hydra.sweeper.{one.name}`<br><small>default `{shown(one.default)}`</small> | {one.metadata['doc']} |"
        for one in dataclasses.fields(CapacityConf)
        if one.metadata
    ]
    about = "With `hydra/sweeper=capacity`; how it searches: [capacity.csv](artifacts/sweep.md#capacitycsv)."
    return ["", "## Capacity search", "", about, "", "| setting | meaning |", "| --- | --- |", *rows]
