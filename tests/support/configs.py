"""Typed configs for tests, composed from the shipped tree as the commands compose them."""

from hydra import compose, initialize_config_dir

from gpu_simulate_test.cli.app import typed_config as typed_config_of
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import StageConfig


def typed_config(stage: str, *overrides: str) -> StageConfig:
    """The typed config of a stage with `overrides`."""
    register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return typed_config_of(stage, compose(stage, overrides=list(overrides)))
