"""A number of the settings is within its stated range, or refused in one line; none becomes another."""

import math
import re
import warnings
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.cli import workload_spec
from gpu_simulate_test.cli.app import typed_config as typed_config_of
from gpu_simulate_test.config.base import fields_of
from gpu_simulate_test.config.schema import STAGES, HydraRecord
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.workload import load_workload
from tests.support.configs import composed, typed_config

EXTREMES = (
    "inf",
    "-inf",
    "nan",
    "1e-300",
    "1e-12",
    "1e18",
    "1000000000000000000",
    "1e20",
    "1" + 20 * "0",
    "-1",
    "1e308",
)
REFUSALS = (ConfigError, ArtifactError, OmegaConfBaseException)
TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,44\n1,6,5\n1e6,7,8\n"


def numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numeric settings by their names, and their values."""
    for key, field in fields_of(type(config)):
        if {"int", "float"} & set(re.findall(r"\w+", str(field.annotation))) and "dict" not in str(field.annotation):
            value = reduce(lambda node, part: getattr(node, part, None), key.split("."), config)
            yield prefix + key, math.nan if value is None else value


STAGE_OF = {key: stage for stage in STAGES for key, _ in numbers(typed_config(stage, "experiment=cpu_demo"))}


@pytest.mark.parametrize("key", sorted(STAGE_OF))
def test_no_setting_is_infinite_or_beyond_its_range(key: str) -> None:
    resolved = DictConfig(OmegaConf.to_container(composed(STAGE_OF[key], "experiment=cpu_demo"), resolve=True))
    for text in EXTREMES:
        value = yaml.safe_load(text) if text.lstrip("-").isdigit() else float(text)
        config = resolved.copy()
        OmegaConf.update(config, key, value, force_add=True)
        try:
            typed = typed_config_of(STAGE_OF[key], config)
        except REFUSALS as error:
            assert key.rpartition(".")[2] in str(error) and "Traceback" not in str(error)
            continue
        assert math.isfinite(value) and dict(numbers(typed))[key] == value, "as it was typed"


ARRIVALS = ("inter_arrival_ns", "rate_per_s", "cv", "end_rate_per_s")


def asked_for(folder: Path, *settings: str) -> None:
    """What workload-spec makes of it: nothing, or a workload without one number that is no number."""
    config = typed_config("workload_spec", "experiment=cpu_demo", f"output.root={folder}", *settings, "overwrite=true")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = workload_spec.run(config, HydraRecord("workload_spec", "", []))  # type: ignore[arg-type]
    made = load_workload(path, config.model.id)
    assert (np.diff(made.arrivals.known_ns) >= 0).all()


@pytest.mark.parametrize(
    "value", ["inf", "1e-300", "1e-12", "1e-9", "0.001", "1000", "1000000000", "1000000000000000000"]
)
@pytest.mark.parametrize("kind", ["poisson", "gamma", "ramp", "fixed_interval"])
def test_arrivals_end_within_a_century_or_are_refused(tmp_path: Path, kind: str, value: str) -> None:
    for name in ARRIVALS:
        given = {"end_rate_per_s": "5", name: value}
        settings = (f"workload.arrival.{key}={one}" for key, one in given.items())
        try:
            asked_for(tmp_path, "workload=synthetic", f"workload.arrival.kind={kind}", *settings)
        except REFUSALS as error:
            assert "\n" not in str(error) or isinstance(error, OmegaConfBaseException)


@pytest.mark.parametrize("value", ["inf", "nan", "1e-300", "0.000001", "1000000", "1e10", "1e18"])
def test_a_trace_is_scaled_within_bounds_or_refused(tmp_path: Path, value: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    for name in ("trace_time_scale", "trace_length_scale", "trace_start_s", "trace_end_s"):
        try:
            asked_for(tmp_path, "workload=trace", f"workload.trace={trace}", f"workload.{name}={value}")
        except REFUSALS as error:
            assert "\n" not in str(error) or isinstance(error, OmegaConfBaseException)


def test_arrivals_beyond_a_century_are_refused_with_what_to_do(tmp_path: Path) -> None:
    settings = ("workload=synthetic", "workload.num_requests=20", "workload.arrival.kind=fixed_interval")
    with pytest.raises(ConfigError, match=r"would arrive over 602 years: raise workload\.arrival\.rate_per_s"):
        asked_for(tmp_path, *settings, "workload.arrival.inter_arrival_ns=1000000000000000000")
