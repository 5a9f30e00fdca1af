"""A table's contract and its file: atomic writing and strict reading of CSV, or of Parquet where it is large."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.files import write_atomic

INT, STR, BOOL, FLOAT = pa.int64(), pa.string(), pa.bool_(), pa.float64()

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what a table of millions of rows no longer needs

# A CSV of more rows opens in no spreadsheet (1,048,576), and takes ten times as long to read as Parquet.
CSV_ROWS = 1_000_000


def column(name: str, type_: pa.DataType, doc: str, *, null: bool = False) -> pa.Field:
    """A column: its meaning, and whether it may hold empty fields."""
    return pa.field(name, type_, nullable=null, metadata={"doc": doc})


@dataclass(frozen=True, eq=False)
class Table:
    """The contract of a table.

    Attributes
    ----------
    name : str
        Of its file, without what it ends in.
    doc : str
        What a row is.
    stage : str
        The stage that writes it.
    schema : pyarrow.Schema
        Its columns, made by `column`, in the order in which they are written.
    optional : frozenset of str
        Columns that may be absent, as from a run of another tool.
    large : bool
        Above `CSV_ROWS` rows it is a Parquet file instead of a CSV.
    family : pyarrow.Field, optional
        Any number of further columns, none of them missing, whose names begin with this one's up to its ``<``.
    """

    name: str
    doc: str
    stage: str
    schema: pa.Schema
    optional: frozenset[str] = frozenset()
    large: bool = False
    family: pa.Field | None = None

    @property
    def filename(self) -> str:
        """Of the CSV."""
        return f"{self.name}.csv"

    @property
    def columns(self) -> tuple[str, ...]:
        """All known columns, but those of the family."""
        return tuple(self.schema.names)

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that are in every such file."""
        return tuple(name for name in self.schema.names if name not in self.optional)

    def field(self, name: str) -> pa.Field | None:
        """The contract of a column; None for one that is unknown."""
        if name in self.schema.names:
            return self.schema.field(name)
        if self.family is not None and name.startswith(self.family.name.partition("<")[0]):
            return self.family.with_name(name)
        return None

    def schema_of(self, names: Iterable[str]) -> pa.Schema:
        """The contract of these columns, in their order.

        Raises
        ------
        KeyError
            One is unknown.
        """
        fields = {name: self.field(name) for name in names}
        if unknown := [name for name, field in fields.items() if field is None]:
            raise KeyError(f"columns that {self.name} does not have: {', '.join(unknown)}")
        return pa.schema(list(fields.values()))


def find_table(folder: Path, table: Table) -> Path | None:
    """The file of a table, whichever it is; None when there is none.

    Raises
    ------
    ArtifactError
        There are two: which of them is true cannot be told.
    """
    found = [path for path in (folder / table.filename, folder / f"{table.name}.parquet") if path.exists()]
    if len(found) > 1:
        raise ArtifactError(f"one table in two files: {found[0]} and {found[1].name}; remove the one that is not true")
    return found[0] if found else None


def write_table(
    folder: Path, table: Table, frames: pd.DataFrame | Iterable[pd.DataFrame], *, num_rows: int | None = None
) -> Path:
    """Write a frame, or several of the same columns one after another, atomically, in place of what was there.

    A CSV has a header, text in quotes where it must be, and empty fields for what is missing. A Parquet file has a
    row group a piece, so that no more than one is held.

    Parameters
    ----------
    frames : pandas.DataFrame or iterable of pandas.DataFrame
        At least one, of columns that the table has.
    num_rows : int, optional
        Of all frames together; above `CSV_ROWS` a `large` table is written as Parquet. Of one frame it is known.

    Returns
    -------
    pathlib.Path
        The file.
    """
    if isinstance(frames, pd.DataFrame):
        frames, num_rows = [frames], len(frames)
    pieces = iter(frames)
    first = next(pieces)
    schema = table.schema_of(first.columns)
    arrow = (pa.Table.from_pandas(piece, schema=schema, preserve_index=False) for piece in chain([first], pieces))
    names = [table.filename, f"{table.name}.parquet"]
    if table.large and num_rows is not None and num_rows > CSV_ROWS:
        names.reverse()
        write_atomic(folder / names[0], lambda stream: _write_parquet(stream, schema, arrow))
    else:
        write_atomic(folder / names[0], lambda stream: _write_csv(stream, schema, arrow))
    (folder / names[1]).unlink(missing_ok=True)
    return folder / names[0]


def write_both(folder: Path, table: Table, frame: pd.DataFrame) -> None:
    """Write a small table as CSV and as Parquet, atomically: for people and their tools; no stage reads it."""
    schema = table.schema_of(frame.columns)
    arrow = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    write_atomic(folder / table.filename, lambda stream: _write_csv(stream, schema, iter([arrow])))
    write_atomic(folder / f"{table.name}.parquet", lambda stream: _write_parquet(stream, schema, iter([arrow])))


def _write_csv(stream: BinaryIO, schema: pa.Schema, pieces: Iterator[pa.Table]) -> None:
    options = pacsv.WriteOptions(quoting_style="needed", quoting_header="none")
    with pacsv.CSVWriter(stream, schema, write_options=options) as writer:
        for piece in pieces:
            writer.write_table(piece)


def _write_parquet(stream: BinaryIO, schema: pa.Schema, pieces: Iterator[pa.Table]) -> None:
    text = [field.name for field in schema if field.type == STR]
    with pq.ParquetWriter(stream, schema, compression="zstd", use_dictionary=text, write_page_checksum=True) as writer:
        for piece in pieces:
            writer.write_table(piece)


def read_table(folder: Path, table: Table, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table as `read_arrow` does.

    Returns
    -------
    pandas.DataFrame
        Integers that may be missing as ``Int64``.
    """
    return _to_pandas(read_arrow(folder, table, columns))


def read_arrow(folder: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table under its contract, CSV or Parquet.

    Parameters
    ----------
    columns : sequence of str, optional
        Those that are wanted; only these are held. All known ones when not given.

    Returns
    -------
    pyarrow.Table
        Known columns in file order.

    Raises
    ------
    ArtifactError
        Missing, in two files, truncated, damaged, a column absent that must be there, a value of the wrong type, or
        an empty field where none may be.
    """
    path = find_table(folder, table) or folder / table.filename
    is_csv = path.suffix == ".csv"
    try:
        return (_read_csv if is_csv else _read_parquet)(path, lambda names: _wanted(path, table, names, columns))
    except _Damaged as error:
        raise ArtifactError(f"{error}; run {table.stage} again") from error
    except pa.ArrowException as error:
        kind = "CSV" if is_csv else "Parquet"
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"malformed {kind}: {path}: {reason}; run {table.stage} again") from error
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise ArtifactError(f"cannot read: {path}: {reason}; run {table.stage} again") from error


class _Damaged(Exception):
    """Says what is wrong with a file, and where."""


def _wanted(path: Path, table: Table, names: list[str], columns: Sequence[str] | None) -> pa.Schema:
    """The contract of the columns to be read of those that a file has."""
    if missing := [name for name in table.required if name not in names]:
        raise _Damaged(f"columns missing: {path}: {', '.join(missing)}")
    known = [name for name in names if table.field(name) and (columns is None or name in columns)]
    if len(set(known)) < len(known):
        raise _Damaged(f"a column twice: {path}: {', '.join(known)}")
    return table.schema_of(known)


_Wanted = Callable[[list[str]], pa.Schema]


def _read_csv(path: Path, wanted: _Wanted) -> pa.Table:
    with path.open("rb") as stream:
        header = stream.readline()
        stream.seek(max(0, stream.seek(0, 2) - 1))
        if stream.read() != b"\n":
            raise _Damaged(f"truncated, its last line is unfinished: {path}")
    parse = pacsv.ParseOptions(newlines_in_values=True)
    schema = wanted(pacsv.read_csv(BytesIO(header), parse_options=parse).column_names)
    options = pacsv.ConvertOptions(column_types=schema, include_columns=schema.names)
    arrow = pacsv.read_csv(path, parse_options=parse, convert_options=options)
    for index, field in enumerate(schema):
        if field.type == STR:  # a prompt may be called NA: only an empty field is a missing text
            text = arrow.column(index)
            arrow = arrow.set_column(index, field.name, pc.if_else(pc.equal(text, ""), None, text))
    return _checked(path, arrow, schema)


def _read_parquet(path: Path, wanted: _Wanted) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = wanted(file.schema_arrow.names)
        return _checked(path, file.read(columns=schema.names).select(schema.names), schema)


def _checked(path: Path, arrow: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if not field.nullable and arrow.column(field.name).null_count:
            raise _Damaged(f"empty field: {path}: column {field.name}")
    return arrow.cast(schema)


def _to_pandas(arrow: pa.Table) -> pd.DataFrame:
    """A frame of a table whose schema is its contract, made a column at a time so that none is held twice."""
    series = {}
    for field in arrow.schema:
        missing = field.nullable and field.type == INT
        values = arrow.column(field.name)
        arrow = arrow.drop_columns([field.name])
        series[field.name] = values.to_pandas(types_mapper={INT: pd.Int64Dtype()}.get if missing else None)
    return pd.DataFrame(series, copy=False)
