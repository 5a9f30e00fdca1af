"""What was typed when settings had other names still works, and says the new name."""

from pathlib import Path

import pytest

from gpu_simulate_test.cli.arguments import parse_arguments
from gpu_simulate_test.config.base import fields_of
from gpu_simulate_test.config.renamed import RENAMED
from gpu_simulate_test.config.schema import STAGES, VidurSimConfig
from gpu_simulate_test.errors import ConfigError
from tests.support.configs import typed_config


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("backend.max_num_seqs=8", "limits.max_num_seqs=8"),
        ("++backend.num_blocks=1,2", "++limits.num_blocks=1,2"),
        ("backend.enable_prefix_caching=true", "limits.enable_prefix_caching=true"),
        ("backend.batching=sequential", "limits.max_num_seqs=1"),
        ("parallel.data=2", "limits.data_parallel=2"),
        ("backend.profile=a b", "profile.folder='a b'"),
    ],
)
def test_an_old_key_on_the_command_line_is_taken_as_the_new_one(old: str, new: str) -> None:
    parsed = parse_arguments(["-m", old, "workload.seed=1"], VidurSimConfig)
    assert parsed.overrides == [new, "workload.seed=1"]
    (said,) = parsed.renamed
    assert new.partition("=")[0].lstrip("+") in said


def test_continuous_batching_is_what_there_is() -> None:
    assert parse_arguments(["backend.batching=continuous"], VidurSimConfig).overrides == []


@pytest.mark.parametrize("key", sorted(RENAMED))
def test_an_old_key_in_a_file_is_refused_with_its_new_name(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{key} is {RENAMED[key]} now"):
        typed_config("vidur_sim", "experiment=cpu_demo", f"+{key}=8")


def test_every_new_name_is_a_setting() -> None:
    assert set(RENAMED.values()) <= {key for key, _ in fields_of(STAGES["vidur_sim"])}
    assert not set(RENAMED) & {key for key, _ in fields_of(STAGES["vidur_sim"])}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("workload.arrival.rate_per_s=-1", "workload.arrival.rate_per_s=-1 is out of range: it must be from 1e-09 to"),
        ("limits.num_blocks=-1", "limits.num_blocks=-1 is out of range: it must be from 0 to 1e+15"),
        ("workload.num_requests=0", "workload.num_requests=0 is out of range: it must be from 1 to 10,000,000"),
        ("limits.num_blocks=true", "limits.num_blocks=True: a number is needed"),
        ("model.quantization=x", "model.quantization=x is not known: choose one of fp8, fp8_static,"),
        ("backend.name=x", "backend.name=x is not known: choose one of transformers, vllm, sarathi, recorded"),
        ("+profile.nonsense=1", "profile.nonsense is no setting"),
        ("profile.source=x", "profile.source is not known: choose one of"),
    ],
)
def test_an_error_names_the_setting_and_what_it_may_be(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        typed_config("vidur_sim", "experiment=cpu_demo", override)
    assert said in str(caught.value)
