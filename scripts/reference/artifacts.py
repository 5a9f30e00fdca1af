"""The artifact reference: what of its pages is generated, from the schemas and the keys of the metadata.

``python -m scripts.reference`` writes it anew, between the pages' own markers.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.io import comparison_tables, metadata, profile_tables, study_tables, tables
from gpu_simulate_test.io.metadata import Key
from gpu_simulate_test.io.table_files import CSV_ROWS, Table

FOLDER = Path("docs/reference/artifacts")
TABLES = {
    table.name: table
    for module in (tables, profile_tables, comparison_tables, study_tables)
    for value in vars(module).values()
    for table in (value.values() if isinstance(value, dict) else [value])
    if isinstance(table, Table)
}
KEYS = {
    "workload": metadata.WORKLOAD,
    "run": metadata.RUN,
    "real": metadata.REAL,
    "vidur": metadata.VIDUR,
    "vidur_profile": metadata.VIDUR_PROFILE,
    "compare": metadata.COMPARE,
    "engine": metadata.ENGINE,
    "profile": metadata.PROFILE,
    "calibration": metadata.CALIBRATION,
    "limits": {name: Key(str(field.description)) for name, field in EngineLimits.model_fields.items()},
}
_TYPES = {"int64": "integer", "double": "number", "string": "text", "bool": "true or false"}
_BLOCK = re.compile(r"(<!-- (columns|keys) (\w+) -->).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str) -> str:
    """The page with what lies between its markers made anew.

    Raises
    ------
    KeyError
        A marker names no table and no metadata.
    """

    def block(found: re.Match[str]) -> str:
        name = found[3]
        lines = _columns(TABLES[name]) if found[2] == "columns" else _keys(KEYS[name])
        return "\n".join([found[1], "", *lines, "", found[4]])

    return _BLOCK.sub(block, page)


def _columns(table: Table) -> list[str]:
    rows = [_row(field, field.name in table.optional) for field in table.schema]
    if table.family is not None:
        rows.append(_row(table.family, may_be_absent=True))
    large = [f"Above {CSV_ROWS:,} rows it is `{table.name}.parquet`.", ""] if table.large else []
    return [table.doc, "", *large, "| column | meaning |", "| --- | --- |", *rows]


def _row(field: pa.Field, may_be_absent: bool) -> str:
    notes = [note for note, holds in (("may be empty", field.nullable), ("may be absent", may_be_absent)) if holds]
    marked = "".join(f". *{note}*" for note in notes)
    kind = _TYPES[str(field.type)]
    return f"| `{field.name}`<br><small>{kind}</small> | {field.metadata[b'doc'].decode()}{marked} |"


def _keys(keys: Mapping[str, Key]) -> list[str]:
    return ["| key | meaning |", "| --- | --- |", *(f"| `{name}` | {key.doc} |" for name, key in keys.items())]
