"""Typed configs for tests, composed from the shipped tree as the commands compose them."""

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import STAGES, StageConfig


def typed_config(stage: str, *overrides: str) -> StageConfig:
    """The typed config of a stage with `overrides`."""
    register_resolvers()
    for name, schema in STAGES.items():
        ConfigStore.instance().store(group="schema", name=name, node=schema, package="_global_")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = OmegaConf.to_object(compose(stage, overrides=list(overrides)))
    assert isinstance(config, StageConfig)
    return config
