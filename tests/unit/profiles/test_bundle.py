"""A bundle whose tables were cut, wherever that was, is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pandas as pd
import pyarrow as pa
import pytest

from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.engine import COMPOSITION
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.profile_tables import ATTENTION, ITERATION, KERNELS, MLP, NOISE
from gpu_simulate_test.io.tables import COMPOSITION_COLUMNS, Table, write_table
from gpu_simulate_test.profiles import bundle
from gpu_simulate_test.profiles.bundle import PROFILE_META, Contents, read_bundle, write_bundle
from gpu_simulate_test.profiles.vidur_tables import are_vidurs
from tests.support.configs import typed_config

MEASURED = (MLP, ATTENTION, ITERATION, NOISE)
RECORDED = (MLP, ATTENTION, *KERNELS.values())
_VALUES = {pa.int64(): [1, 333], pa.float64(): [0.25, 12.5678], pa.bool_(): [True] * 2}


def rows_of(table: Table) -> pd.DataFrame:
    """Two rows of every column that the table may have."""
    fields = list(table.schema)
    if table.family is not None:
        prefix = table.family.name.partition("<")[0]
        fields += [table.family.with_name(f"{prefix}{name}") for name in ("add.median", "add.std")]
    return pd.DataFrame({field.name: _VALUES.get(field.type, ["a", "b"]) for field in fields})


def bundle_of(path: Path, tables: tuple[Table, ...]) -> Path:
    config = cast(StageConfig, typed_config("vidur_sim", "experiment=cpu_demo"))
    write_bundle(path, config, Contents({table: rows_of(table) for table in tables}, {"how": "made up by a test"}, ()))
    return path


@pytest.mark.parametrize(
    ("tables", "cut"),
    [
        pytest.param(tables, table, id=f"{kind}-{table.name}")
        for kind, tables in (("measured", MEASURED), ("recorded", RECORDED))
        for table in tables
    ],
)
def test_a_table_cut_anywhere_in_its_last_lines_is_refused(
    tmp_path: Path, tables: tuple[Table, ...], cut: Table
) -> None:
    folder = bundle_of(tmp_path / "bundle", tables)
    read_bundle(folder)
    path = folder / cut.filename
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for length in range(header, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=cut.name) as caught:
            read_bundle(folder)
        assert str(caught.value).endswith("run vidur-profile again")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tables", [MEASURED, RECORDED], ids=["measured", "recorded"])
def test_a_bundle_whose_writing_was_cut_short_is_not_taken_for_vidurs_own(
    tmp_path: Path, tables: tuple[Table, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for written in range(len(tables) + 1):
        left = iter(range(written))

        def write(path: Path, table: Table, frame: pd.DataFrame, left: Iterator[int] = left) -> None:
            next(left)
            write_table(path, table, frame)

        monkeypatch.setattr(bundle, "write_table", write)
        path = tmp_path / str(written)
        if written < len(tables):
            with pytest.raises(StopIteration):
                bundle_of(path, tables)
        else:
            (bundle_of(path, tables) / PROFILE_META).unlink()
        assert not are_vidurs(path)


def test_tables_say_what_vidur_says() -> None:
    written = rows_of(ATTENTION)
    assert {"time_stats.add.median", "batch_size", "kv_cache_size", "prefill_chunk_size"} <= set(written)
    assert MLP.field("time_stats.mlp_up_proj.median") is not None
    assert MLP.field("times.mlp_up_proj.median") is None


def test_the_composition_of_an_iteration_has_one_spelling() -> None:
    assert tuple(field.name for field in COMPOSITION_COLUMNS) == tuple(COMPOSITION)
