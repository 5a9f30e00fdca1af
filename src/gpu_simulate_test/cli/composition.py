"""What Hydra is about to compose, looked at before anything of it runs."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gpu_simulate_test.cli.arguments import Arguments, not_accepted
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.errors import ConfigError

_SEARCHPATH = "hydra.searchpath="
# On the command line these are the user's own word; a file may not say them.
_OWN_WORD = ("hydra.job.", "hydra.job_logging.", "hydra.hydra_logging.")


# An installed launcher or our own, and plain values of its settings: no code but what is installed.
_LAUNCHER = re.compile(r"hydra/launcher=\w+|\+{0,2}hydra\.launcher(\.[a-z]\w*)+=[\w.]*", re.ASCII)


def needs_check(arguments: Arguments) -> bool:
    """True when files that are not ours, or Hydra's own settings, take part."""
    foreign = [one for one in arguments.overrides if "hydra" in one and not _LAUNCHER.fullmatch(one)]
    return arguments.config_dir is not None or bool(foreign)


@dataclass(frozen=True)
class Part:
    """Jobs that Hydra can be given as one sweep.

    Attributes
    ----------
    overrides : list of str
    jobs : tuple of int
        Their numbers among all jobs, in Hydra's order.
    """

    overrides: list[str]
    jobs: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What Hydra is about to run.

    Attributes
    ----------
    parts : list of Part
        A single one, unless some choices are bad only together; none when no job is left.
    failures : dict of tuple of str to Exception
        The jobs that are left out, by their overrides, and what is wrong with them.
    numbers : dict of tuple of str to int
        Of all jobs, by their overrides.
    multirun : bool
    first : DictConfig or None
        The first job that can be composed.
    """

    parts: list[Part]
    failures: dict[tuple[str, ...], Exception]
    numbers: dict[tuple[str, ...], int]
    multirun: bool
    first: DictConfig | None


def planned(stage: str, arguments: Arguments, *, check: bool, every: bool = True) -> Plan:
    """Compose every job there will be, and keep those that can be.

    Parameters
    ----------
    stage : str
        Name of its file in the config tree.
    arguments : Arguments
    check : bool
        Refuse code that a file names.
    every : bool
        False: none after the first that can be composed, where there is nothing to refuse; Hydra composes them all
        again.

    Raises
    ------
    ConfigError
        A file names code to run, or the folder of files is missing.
    hydra.errors.HydraException
        Nothing can be composed that leaving out a job would mend.
    """
    with warnings.catch_warnings(), initialize_config_dir(str(config_dir()), version_base="1.3"):
        warnings.simplefilter("ignore")  # Hydra will say it again
        return _planned(_Composer(stage, arguments), arguments, check, every or check)


def _planned(composer: "_Composer", arguments: Arguments, check: bool, every: bool = True) -> Plan:
    broken = first = None
    jobs: list[tuple[str, ...]] = [tuple(arguments.overrides)]
    lines: dict[str, str] = {}
    axes: dict[str, list[str]] = {}
    if arguments.multirun:
        lines, axes = composer.axes(arguments.overrides)
        try:  # the settings that Hydra takes the sweeper from
            master = composer.compose([line for key, line in lines.items() if axes[key] == [line]])
            params = composer.refuse_foreign_code(master) if check else sweeper_params(master)
            axes = composer.axes(params)[1] | axes
        except HydraException as error:
            broken = error if check else None
        jobs = list(product(*axes.values()))
    failures: dict[tuple[str, ...], Exception] = {}
    for job in jobs:
        try:
            config = composer.compose(list(job))
        except HydraException as error:
            failures[job] = error
            continue
        first = config if first is None else first
        if check:
            composer.refuse_foreign_code(config)
        if config.hydra.mode == RunMode.MULTIRUN and not arguments.multirun:  # a file says so
            return _planned(composer, replace(arguments, multirun=True), check)
        if not every:
            break
    numbers = {job: number for number, job in enumerate(jobs)}
    if not failures and not broken:
        return Plan([Part(arguments.overrides, tuple(range(len(jobs))))], {}, numbers, arguments.multirun, first)
    if (broken and not failures) or not arguments.multirun:
        raise broken or failures[jobs[0]]
    parts = [
        Part(_overrides(part, axes, lines), tuple(numbers[job] for job in product(*part.values())))
        for part in _parts(axes, failures)
    ]
    for part in parts if check else []:
        _planned(composer, replace(arguments, overrides=part.overrides), check)
    return Plan(parts, failures, numbers, True, first)


def _overrides(part: dict[str, list[str]], axes: dict[str, list[str]], lines: dict[str, str]) -> list[str]:
    """A sweep over some of the choices, as Hydra takes it."""
    return [
        lines[key] if key in lines and choices == axes[key] else _joined(key, choices)
        for key, choices in part.items()
        if key in lines or choices != axes[key]
    ]


class _Composer:
    """Composes a stage's settings with the user's own folders of files, and knows what they are without."""

    def __init__(self, stage: str, arguments: Arguments) -> None:
        self.stage = stage
        self.searchpath: list[str] = []
        paths: list[str] = []
        if arguments.config_dir is not None:
            folder = Path(arguments.config_dir).absolute()
            if not folder.is_dir():
                raise ConfigError(f"no such folder: {folder}; --config-dir names a folder of settings")
            paths.append(f"file://{folder}")
        if given := [override for override in arguments.overrides if override.startswith(_SEARCHPATH)]:
            more = OverridesParser.create().parse_override(given[0]).value()  # of several, Hydra takes the first
            paths += map(str, more if isinstance(more, list) else [])
        if paths:  # --config-dir as hydra.searchpath, which is all that compose takes
            quoted = ",".join(QuotedString(path, Quote.single).with_quotes() for path in paths)
            self.searchpath.append(f"{_SEARCHPATH}[{quoted}]")
        self._ours: dict[tuple[str, ...], dict[str, Any]] = {}

    def compose(self, overrides: list[str]) -> DictConfig:
        """Compose one job as Hydra will."""
        if self.searchpath:
            overrides = [override for override in overrides if not override.startswith(_SEARCHPATH)]
        return compose(self.stage, overrides=[*overrides, *self.searchpath], return_hydra_config=True)

    def axes(self, overrides: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Each override by its key: as it was given, and as the one or the many that a sweep makes of it."""
        lines, axes = {}, {}
        for override in OverridesParser.create().parse_overrides(overrides):
            key, value, line = override.get_key_element(), override.value(), str(override.input_line)
            lines[key], axes[key] = line, [line]
            if isinstance(value, Glob):  # not by its own iterator: that one does not know the user's folders
                loader = GlobalHydra.instance().config_loader()
                options = loader.get_group_options(
                    override.key_or_group, ObjectType.CONFIG, self.stage, self.searchpath
                )
                axes[key] = [f"{key}={option}" for option in value.filter(options)]
            elif override.is_discrete_sweep():
                axes[key] = [f"{key}={choice}" for choice in override.sweep_string_iterator()]
            elif isinstance(value, IntervalSweep):
                axes[key] = [f"{key}={value.start}"]
        return lines, axes

    def refuse_foreign_code(self, config: DictConfig) -> list[str]:
        """Compare with what it would be without the user's files.

        Returns
        -------
        list of str
            Overrides that Hydra's sweeper adds of its own: they are further jobs to look at.

        Raises
        ------
        ConfigError
            Code to run is named; the setting that does so is named.
        """
        settings = plain(config)
        hydra = settings.pop("hydra")
        ours = self._without_files(hydra)
        named = [key for key, _ in _targets(settings)]
        named += [f"hydra.{key}" for key in ("callbacks", "job_logging", "hydra_logging") if hydra[key] != ours[key]]
        if hydra["job"]["env_set"] != ours["job"]["env_set"]:
            named.append("hydra.job.env_set")
        for node in ("launcher", "sweeper"):  # resolved, for what they refer to is run as well
            content = plain(config.hydra[node], resolve=True)
            expected = set(_targets(ours[node]))
            named += [f"hydra.{node}.{key}" for key, target in _targets(content) if (key, target) not in expected]
        params = sweeper_params(config)
        named += [
            f"hydra.sweeper.params.{line.partition('=')[0]}" for line in params if "hydra" in line.partition("=")[0]
        ]
        if named:
            raise not_accepted(named[0])
        return params

    def _without_files(self, hydra: dict[str, Any]) -> dict[str, Any]:
        """Hydra's own settings with the same launcher, sweeper and logging, as far as these are installed."""
        choices = hydra["runtime"]["choices"].items()
        groups = [f"{group}={choice}" for group, choice in choices if group.startswith("hydra/") and choice is not None]
        said = [line for line in hydra["overrides"]["hydra"] if line.lstrip("+").startswith(_OWN_WORD)]
        key = (*groups, *said)
        if key not in self._ours:
            try:
                composed = compose(self.stage, overrides=list(key), return_hydra_config=True)
            except HydraException as error:
                usual = compose(self.stage, return_hydra_config=True).hydra.runtime.choices
                foreign = set(groups) - {f"{group}={choice}" for group, choice in usual.items()}
                raise not_accepted(", ".join(sorted(foreign))) from error
            self._ours[key] = plain(composed)["hydra"]
        return self._ours[key]


def sweeper_params(config: DictConfig) -> list[str]:
    """Overrides that Hydra's sweeper adds of its own."""
    sweeper = plain(config.hydra.sweeper, resolve=True)
    return [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]


def plain(config: DictConfig, *, resolve: bool = False, throw_on_missing: bool = False) -> dict[str, Any]:
    """Composed settings as a dict."""
    content = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=throw_on_missing)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _targets(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every ``_target_`` in a config, by its dotted key."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        if key == "_target_":
            yield f"{prefix}{key}", str(value)
        yield from _targets(value, f"{prefix}{key}.")


def _joined(key: str, choices: list[str]) -> str:
    return ",".join([choices[0], *(choice.removeprefix(f"{key}=") for choice in choices[1:])])


def _parts(axes: dict[str, list[str]], failures: dict[tuple[str, ...], Exception]) -> list[dict[str, list[str]]]:
    """Sweeps that have all the jobs of `axes` but the failures."""
    good = [job for job in product(*axes.values()) if job not in failures]
    kept = {
        key: [choice for choice in choices if any(job[position] == choice for job in good)]
        for position, (key, choices) in enumerate(axes.items())
    }
    if len(good) == len(list(product(*kept.values()))):
        return [kept] if good else []
    split = next(key for key, choices in kept.items() if len(choices) > 1)
    return [part for choice in kept[split] for part in _parts(kept | {split: [choice]}, failures)]
