"""What every group of settings is: a pydantic model whose errors are one line with the setting's name."""

from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Ge, Gt, Le, Lt
from omegaconf import OmegaConf
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from gpu_simulate_test.config.renamed import RENAMED
from gpu_simulate_test.errors import ConfigError

# What a setting may be at most, where nothing else limits it.
MAX_REQUESTS = 10_000_000
MAX_TOKENS = 10_000_000
MAX_SECONDS = 1e9
_MAX_SEED = 2**63 - 1


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Int = Annotated[int, BeforeValidator(_no_flag)]
Float = Annotated[float, BeforeValidator(_no_flag)]
Tokens = Annotated[Int, Field(ge=1, le=MAX_TOKENS)]
Seed = Annotated[Int, Field(ge=-_MAX_SEED, le=_MAX_SEED)]


class Settings(BaseModel):
    """A group of settings. Validation is pure: no file, no device, no network."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        defer_build=True,
    )


_Model = TypeVar("_Model", bound=BaseModel)


def validated(model: type[_Model], settings: Mapping[str, Any]) -> _Model:
    """Check plain settings.

    Raises
    ------
    ConfigError
        The first of them that is wrong, by its dotted key.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_line(model, error)) from error


def read(model: type[_Model], path: Path) -> _Model:
    """Read a file of the config tree; errors as of `validated`."""
    settings = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(settings, dict)
    return validated(model, {str(key): value for key, value in settings.items()})


def _line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    path, field = _field(model, first["loc"])
    key, kind, value = ".".join(path), first["type"], first["input"]
    if kind == "extra_forbidden":
        if isinstance(value, dict) and (old := next((f"{key}.{one}" for one in value), key)) in RENAMED:
            key = old  # of a group that is gone as a whole
        return f"{key} is {RENAMED[key]} now: say it so" if key in RENAMED else f"{key} is no setting; see --help"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "literal_error":
        return f"{key}={value} is not known: choose one of {', '.join(_choices(field))}"
    if kind == "union_tag_invalid":
        return f"{key}.source is not known: choose one of {first['ctx']['expected_tags']}"
    if field and (bounds := range_of(field)) and kind in _OUT_OF_RANGE:
        return f"{key}={value} is out of range: it must be {bounds}"
    return f"{key}={value}: {first['msg'].removeprefix('Value error, ')}; see --help"


_OUT_OF_RANGE = ("greater_than_equal", "less_than_equal", "greater_than", "less_than", "finite_number")


def range_of(field: FieldInfo) -> str:
    """The range of a number in words; empty where it has none."""
    ends: dict[type, Any] = {type(one): one for one in field.metadata}
    for one in get_args(field.annotation):  # of a number that may also be null
        if not ends and hasattr(one, "__metadata__"):
            return range_of(FieldInfo.from_annotation(one))
    low = ends[Ge].ge if Ge in ends else ends[Gt].gt if Gt in ends else None
    high = ends[Le].le if Le in ends else ends[Lt].lt if Lt in ends else None
    if low is None or high is None:
        return ""
    return f"from {low:,.15g} to {'below ' if Lt in ends else ''}{high:,.15g}"


def _choices(field: FieldInfo | None) -> tuple[str, ...]:
    if field is None:
        return ()
    said = [get_args(one) or (one,) for one in get_args(field.annotation)]  # of one that may also be null
    return tuple("null" if one is NoneType else str(one) for several in said for one in several)


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The groups that an annotation names: one, or those of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_of(part)]


def _field(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], FieldInfo | None]:
    """The dotted key of an error's location, without the tags of unions, and its field."""
    models, path, field = [model], [], None
    for part in map(str, location):
        known = [one.model_fields[part] for one in models if part in one.model_fields]
        if len(models) > 1:  # the tag of a union
            models = [one for one in models if part in _tags(one)]
            continue
        path.append(part)
        field = known[0] if known else None
        models = models_of(field.annotation) if field else []
    return path, field


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    return _choices(model.model_fields.get("source"))


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting below `model` by its dotted key; of unions, those of every member."""
    for name, field in model.model_fields.items():
        groups = models_of(field.annotation)
        if not groups:
            yield prefix + name, field
        found: dict[str, FieldInfo] = {}
        for group in groups:
            for key, inner in fields_of(group, f"{prefix}{name}."):
                if key in found:  # each member has its own tag
                    inner = copy(inner)
                    inner.annotation = found[key].annotation | inner.annotation  # type: ignore[operator, assignment]
                found[key] = inner
        yield from found.items()
