"""Of a whole pipeline: every column and every key that was written is documented, and every one documented written."""

from pathlib import Path

import pyarrow.csv as pacsv
import pytest

from gpu_simulate_test.io import metadata
from gpu_simulate_test.io.files import read_json
from gpu_simulate_test.io.metadata import Key
from gpu_simulate_test.profiles.bundle import PROFILE_META
from scripts.reference.artifacts import TABLES


@pytest.fixture
def folders(workload: Path, real: Path, profile: Path, sim: Path, comparison: Path) -> dict[str, Path]:
    return {"workload": workload, "real": real, "profile": profile, "sim": sim, "comparison": comparison}


def test_every_table_is_documented_and_has_what_is_documented(folders: dict[str, Path]) -> None:
    written = [path for folder in folders.values() for path in folder.rglob("*.csv")]
    seen: dict[str, set[str]] = {}
    for path in written:
        names = pacsv.open_csv(path).schema.names
        table = TABLES[path.stem]
        assert [name for name in names if table.field(name) is None] == [], path
        assert set(table.required) <= set(names), path
        seen.setdefault(path.stem, set()).update(names)
    kernels = {name for name in TABLES if name.startswith("kernels_")}
    not_here = {"slo", "sweep", "capacity", *kernels}  # what this pipeline does not ask for
    assert set(TABLES) - not_here - set(seen) == set()
    # Only of several engines, of a calibrated predictor, of requests that follow others.
    elsewhere = {"replica", "host_ns", "follows_request_id", "delay_ns"}
    for name in set(seen) - {"trace_lengths"}:
        assert set(TABLES[name].columns) - seen[name] <= elsewhere, f"documented, and written by no stage: {name}"


def check(meta: dict[str, object], keys: dict[str, Key]) -> None:
    assert set(meta) - set(keys) == set(), "not documented"
    assert {name for name, key in keys.items() if key.always} - set(meta) == set(), "documented as always there"


def test_every_key_of_the_metadata_is_documented_and_written(folders: dict[str, Path]) -> None:
    check(read_json(folders["workload"] / "workload_meta.json"), metadata.WORKLOAD)
    runs = {kind: read_json(folders[kind] / "run_meta.json") for kind in ("real", "profile", "sim", "comparison")}
    check(runs["real"], metadata.RUN | metadata.REAL)
    check(
        read_json(folders["real"].with_name(f"{folders['real'].name}-r2") / "run_meta.json"),
        metadata.RUN | metadata.REAL,
    )
    check(runs["sim"], metadata.RUN | metadata.VIDUR)
    check(runs["profile"], metadata.RUN | metadata.VIDUR_PROFILE)
    check(runs["comparison"], metadata.RUN | metadata.COMPARE)
    check(runs["real"]["engine"], metadata.ENGINE)
    (bundle,) = folders["profile"].rglob(PROFILE_META)
    check(read_json(bundle), metadata.PROFILE)
