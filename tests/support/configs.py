"""Typed configs for tests, composed from the shipped tree as the commands compose them."""

from collections.abc import Sequence
from functools import cache

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from gpu_simulate_test.cli.app import typed_config as typed_config_of
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import STAGES, StageConfig


def typed_config(stage: str, *overrides: str) -> StageConfig:
    """The typed config of a stage with `overrides`; a choice of groups is composed once, the values are put into it."""
    values = [one for one in overrides if "." in one.partition("=")[0] and one[0] not in "+~"]
    config = composed(stage, *(one for one in overrides if one not in values)).copy()
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(config, override.key_or_group, override.value())
    return typed_config_of(stage, config)


def typed_configs(*choices: str) -> dict[str, StageConfig]:
    """Those of every stage, composed once: all that a stage adds to the groups are the keys of its own file."""
    groups = composed("workload_spec", *choices).copy()
    OmegaConf.set_struct(groups, False)
    return {stage: typed_config_of(stage, DictConfig(OmegaConf.merge(groups, own))) for stage, own in _own().items()}


def jobs_of(overrides: Sequence[str]) -> Sequence[Sequence[str]]:
    """The overrides of each job, as Hydra's own sweeper splits them; one job of a command without several values."""
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)[0]


@cache
def _own() -> dict[str, DictConfig]:
    files = {stage: DictConfig(OmegaConf.load(config_dir() / f"{stage}.yaml")) for stage in STAGES}
    for config in files.values():
        del config["defaults"]
    return files


@cache
def composed(stage: str, *choices: str) -> DictConfig:
    """What Hydra makes of a stage's choice of groups; to be copied before it is changed."""
    register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(stage, overrides=list(choices))
