"""The command line, as its user means it: flags anywhere, and text that stays text."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, NoReturn, get_type_hints

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Quote, QuotedString

from gpu_simulate_test.config.base import fields_of
from gpu_simulate_test.config.renamed import renewed
from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ConfigError

_OVERRIDE = re.compile(r"(\+\+?|~)?([^=]*)=(.*)", re.DOTALL)
_MULTIRUN = re.compile(r"\+{0,2}hydra\.mode=(RunMode\.)?MULTIRUN")
# What Hydra's grammar reads as the text it is: a word or a path of plain letters, but for its words.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)(?:[a-z_]|\.{0,2}/)[\w./-]*", re.IGNORECASE | re.ASCII)
_TEXTS = (str, str | None, str | list[str] | None)
_QUOTES = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_QUOTED = re.compile(_QUOTES, re.DOTALL)
_PIECE = re.compile(rf"(\s*(?:{_QUOTES})\s*(?=,|$))|([^,]*)", re.DOTALL)
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|extend_list)\s*\((.*)\)", re.DOTALL)
_COLUMN = re.compile(
    rf"\s*([a-z_][a-z0-9_]*)\s*:\s*(?:({_QUOTES})|(.*?))\s*(?:,(?=\s*[a-z_][a-z0-9_]*\s*:)|$)", re.DOTALL
)
# Whoever names Hydra's folder wants in it what Hydra writes there; by default it writes nothing.
_OUTPUTS = {
    "hydra.run.dir": {"hydra.output_subdir": ".hydra"},
    "hydra.sweep.dir": {"hydra.output_subdir": ".hydra", "hydra.sweep.subdir": "'${hydra.job.num}'"},
}


@dataclass(frozen=True)
class Arguments:
    """A command line: Hydra's flags, and overrides that its grammar reads as they were meant."""

    flags: list[str]
    overrides: list[str]
    multirun: bool
    config_dir: str | None
    version: bool
    renamed: list[str]


def not_accepted(what: str) -> ConfigError:
    """The error of a setting or a file that is refused."""
    return ConfigError(f"not accepted: {what}: it could run code that a file names; --help lists the settings")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


class _Refuse(argparse.Action):
    def __call__(self, *args: object) -> NoReturn:
        raise not_accepted(str(args[-1]))


def _parser() -> argparse.ArgumentParser:
    """Hydra's flags. Its own parser takes none after the first override."""
    parser = _Parser(add_help=False)
    for names in (["--help", "-h"], ["--hydra-help"], ["--version"], ["--resolve"]):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd")
    mode = parser.add_mutually_exclusive_group()
    for names in (["--run", "-r"], ["--multirun", "-m"], ["--shell-completion", "-sc"]):
        mode.add_argument(*names, action="store_true")
    mode.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    mode.add_argument("--info", "-i", const="all", nargs="?", choices=info)
    for names in (["--config-path", "-cp"], ["--config-name", "-cn"], ["--experimental-rerun"]):
        parser.add_argument(*names, action=_Refuse)
    return parser


def parse_arguments(arguments: list[str], config: type[StageConfig]) -> Arguments:
    """Read a command line.

    Parameters
    ----------
    arguments : list of str
        Without the program's name.
    config : type
        The stage's typed config: it says which values are text.

    Raises
    ------
    ConfigError
        A flag that is not known or not accepted.
    """
    parsed, overrides = _parser().parse_known_args(arguments)
    overrides = [override for override in overrides if override != "--"]
    if unknown := [override for override in overrides if override.startswith("-")]:
        raise ConfigError(f"unknown flag: {unknown[0]}; see --help")
    if parsed.resolve and not (parsed.cfg or parsed.help):
        raise ConfigError("--resolve needs --cfg or --help")
    overrides, renamed = _renewed(overrides)
    given = {name.replace("_", "-"): value for name, value in vars(parsed).items() if value not in (None, False)}
    multirun = parsed.multirun or any(map(_MULTIRUN.fullmatch, overrides))
    return Arguments(
        flags=[f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()],
        overrides=literal([*overrides, *_outputs(overrides)], config, multirun=multirun),
        multirun=multirun,
        config_dir=parsed.config_dir,
        version=parsed.version,
        renamed=renamed,
    )


def _renewed(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Overrides by their present names, and what to say of those that were renamed."""
    pairs = [renewed(override) for override in overrides]
    return [new for new, _ in pairs if new is not None], [said for _, said in pairs if said is not None]


def _outputs(overrides: list[str]) -> list[str]:
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    wanted = {key: value for folder, more in _OUTPUTS.items() if folder in keys for key, value in more.items()}
    return [f"{key}={value}" for key, value in wanted.items() if key not in keys]


def literal(overrides: list[str], config: type[Any], *, multirun: bool) -> list[str]:
    """Quote the values that are text by the stage's types, so that Hydra's grammar takes them as they are.

    A value in quotes, ``null`` where it is allowed and ``${...}`` keep their meaning. With `multirun` a comma outside
    of quotes separates values, without the blanks after it; without, it is text.
    """
    hints = {key: field.annotation for key, field in fields_of(config)} | dict(_hints(HydraConf, "hydra."))
    return [_literal(override, hints, multirun) for override in overrides]


def _hints(config: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The type of every setting of Hydra's below `config`, by its dotted key."""
    for name, hint in get_type_hints(config).items():
        if is_dataclass(hint):
            yield from _hints(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name, hint


def _literal(override: str, hints: dict[str, Any], multirun: bool) -> str:
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    sign, key, value = match.groups(default="")
    swept = multirun and not key.startswith("hydra.")  # Hydra's own settings are never swept
    hint = hints.get(key)
    if hint == (dict[str, str] | None):
        value = ",".join(map(_columns, re.split(r"(?<=\})\s*,\s*(?=\{)", value) if swept else [value]))
    elif hint == (str | list[str] | None) and value.startswith("["):
        pass  # a list, of Hydra's grammar
    elif hint in _TEXTS or hints.get(key.rpartition(".")[0]) == (dict[str, str] | None):
        value = _text(value, nullable=hint not in (str, None), swept=swept)
    elif not value.isascii() and value[0] not in "'\"[{":  # the name of an option, in any script
        value = _text(value, nullable=True, swept=swept)
    return f"{sign}{key}={value}"


def _text(value: str, *, nullable: bool, swept: bool) -> str:
    if not swept:
        return _quoted(value, nullable)
    if function := _SWEEP.fullmatch(value):
        name, inner = function.groups()
        if name != "choice":
            return value
        value = inner.strip()  # without its function: Hydra forgets the quotes in it
    return ",".join(_quoted(piece, nullable) for piece in _pieces(value))


def _pieces(value: str) -> Iterator[str]:
    """Split at the commas outside of quotes."""
    start = 0
    while start <= len(value):
        match = _PIECE.match(value, start)
        assert match is not None
        quoted, bare = match.groups()
        yield quoted.strip() if quoted else bare.lstrip() if start else bare
        start = match.end() + 1


def _quoted(value: str, nullable: bool) -> str:
    bare = not value or _PLAIN.fullmatch(value) or _QUOTED.fullmatch(value) or (nullable and value.lower() == "null")
    return value if bare else QuotedString(value, Quote.single).with_quotes()


def _columns(value: str) -> str:
    """``{name: column, ...}`` with every column quoted; anything else as it is."""
    if not (value.startswith("{") and value.endswith("}")):
        return value
    inner, start, found = value[1:-1], 0, []
    while start < len(inner):
        match = _COLUMN.match(inner, start)
        if match is None:
            return value
        name, quoted, bare = match.groups()
        found.append(f"{name}:{quoted or _quoted(bare, nullable=False)}")
        start = match.end()
    return "{" + ",".join(found) + "}"
