"""Typed configs for tests, composed from the shipped tree as the commands compose them."""

from functools import cache

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from gpu_simulate_test.cli.app import typed_config as typed_config_of
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import StageConfig


def typed_config(stage: str, *overrides: str) -> StageConfig:
    """The typed config of a stage with `overrides`; a choice of groups is composed once, the values are put into it."""
    values = [one for one in overrides if "." in one.partition("=")[0] and one[0] not in "+~"]
    config = _composed(stage, tuple(one for one in overrides if one not in values)).copy()
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(config, override.key_or_group, override.value())
    return typed_config_of(stage, config)


@cache
def _composed(stage: str, choices: tuple[str, ...]) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(stage, overrides=list(choices))
