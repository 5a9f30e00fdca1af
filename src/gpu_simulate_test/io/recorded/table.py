"""Recorded requests that are tables: CSV, and Parquet."""

import csv
from collections.abc import Mapping
from io import BufferedReader, BytesIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.recorded.frame import DURATIONS, LENGTHS, POINTS
from gpu_simulate_test.io.recorded.numbers import UNITS, Column, Malformed, Rows, quantity
from gpu_simulate_test.io.recorded.source import encoding

_KNOWN = {
    "Azure's trace": {
        "arrival_time": "TIMESTAMP",
        "num_prefill_tokens": "ContextTokens",
        "num_decode_tokens": "GeneratedTokens",
    },
    "BurstGPT's trace": {
        "arrival_time_s": "Timestamp",
        "num_prefill_tokens": "Request tokens",
        "num_decode_tokens": "Response tokens",
    },
    "Vidur's trace": {"arrival_time_s": "arrived_at"} | {name: name for name in LENGTHS},
}
_TEXTS = {name: name for name in ("error_type", "status", "prompt_id", "session")} | {"error_msg": "error"}
_TIMED = tuple(f"{name}_{unit}" for name in (*POINTS, *DURATIONS, "delay") for unit in UNITS)


def check_columns(columns: Mapping[str, str]) -> None:
    """Check what `workload.trace_columns` says.

    Raises
    ------
    ConfigError
        A name that is not known, two for one quantity, or the lengths are not among them.
    """
    if unknown := [name for name in columns if name not in (*LENGTHS, "arrival_time", *_TEXTS, *_TIMED)]:
        raise ConfigError(
            f"workload.trace_columns: not known: {', '.join(unknown)}; choose of {', '.join((*LENGTHS, *_TEXTS))}, "
            f"{', '.join((*POINTS, *DURATIONS))}, delay, the times with a unit: _{', _'.join(UNITS)}"
        )
    if [name for name in LENGTHS if name not in columns]:
        raise ConfigError(f"workload.trace_columns needs {', '.join(LENGTHS)}")
    given: dict[str, str] = {}
    for name in columns:
        kind = quantity(name)[0]
        other = given.setdefault(DURATIONS.get(kind, kind), name)
        if other != name:
            raise ConfigError(f"workload.trace_columns: {other} and {name} say the same: leave one out")


def read_table(stream: BufferedReader) -> pa.Table:
    """Read a table; a CSV's cells are text.

    Raises
    ------
    Malformed
        No table, or cut off.
    """
    table = _parquet(stream) if stream.peek(4)[:4] == b"PAR1" else _csv(stream)
    return table.rename_columns([name.strip() for name in table.column_names])


def known_columns(table: pa.Table) -> tuple[str, Mapping[str, str]]:
    """Name of the trace that has these columns, and what is in which.

    Raises
    ------
    Malformed
        None has.
    """
    for name, columns in _KNOWN.items():
        if set(columns.values()) <= set(table.column_names):
            return name, columns
    if set(LENGTHS) <= set(table.column_names):
        own = [name for name in (*LENGTHS, *_TIMED, *_TEXTS) if name in table.column_names]
        points = {quantity(name)[0] for name in own}
        return "a table of our names", {name: name for name in own if DURATIONS.get(quantity(name)[0]) not in points}
    names = ", ".join(table.column_names)[:200]
    raise Malformed(f"no known format: columns {names}; say what they are with workload.trace_columns")


def rows_of(table: pa.Table, columns: Mapping[str, str]) -> Rows:
    """The requests of a table by what is in which column.

    Raises
    ------
    Malformed
        A column is missing or there twice, or a value is no number.
    """
    header = table.column_names
    if absent := [column for column in columns.values() if column not in header]:
        raise Malformed(f"columns missing: {', '.join(absent)}; it has {', '.join(header)[:200]}")
    if twice := [column for column in columns.values() if header.count(column) > 1]:
        raise Malformed(f"two columns of one name: {twice[0]}")
    names = {name: _TEXTS.get(name, "arrival_time_ns" if name == "arrival_time" else name) for name in columns}
    given: dict[str, Column | list[str | None]] = {}
    for name, column in columns.items():
        values = table.column(column).combine_chunks()
        given[names[name]] = _texts(values) if name in _TEXTS else _column(values, name, column)
    return Rows(given, {names[name]: column for name, column in columns.items()})


def _csv(stream: BufferedReader) -> pa.Table:
    """All columns as trimmed text; the separator is the one that the header has most of."""
    name = encoding(stream)
    data = stream.read()
    if name != "utf-8":
        data = data.decode(name).encode()
    data = data.lstrip(b" \r\n")
    if not data:
        raise Malformed("nothing in it")
    if not data.endswith((b"\n", b"\r")) and b"\r" not in data[:4096]:  # Azure's own, of CR LF, end in nothing
        raise Malformed("its last line does not end, so that it may be cut off; if it is whole, add a line break")
    line = data[:65536].split(b"\n", 1)[0].decode(errors="replace")
    separator = max(",;\t", key=line.count)
    header = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    try:
        table = pacsv.read_csv(
            BytesIO(data),
            read_options=pacsv.ReadOptions(column_names=[f"{i}" for i in range(len(header))], skip_rows=1),
            parse_options=pacsv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={f"{i}": pa.binary() for i in range(len(header))}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise Malformed(str(error).splitlines()[0]) from error
    return table.rename_columns(header)


def _parquet(stream: BufferedReader) -> pa.Table:
    try:
        return pq.read_table(BytesIO(stream.read()))
    except (pa.ArrowException, OSError) as error:
        raise Malformed("its Parquet is cut off or damaged") from error


def _texts(values: pa.Array) -> list[str | None]:
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values.to_pylist()]


def _column(values: pa.Array, name: str, field: str) -> Column:
    """Numbers of a column of text or of numbers; of dates, the ns since 1970."""
    if pa.types.is_binary(values.type):
        try:
            values = pc.utf8_trim_whitespace(values.cast(pa.string()))
        except pa.ArrowInvalid as error:
            raise Malformed(f"{field} is not UTF-8") from error
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = pc.if_else(pc.equal(values, ""), None, values)
        values = _parsed(values, _DATES if name == "arrival_time" else _NUMBERS, field)
    elif name == "arrival_time" and pa.types.is_timestamp(values.type):
        values = _parsed(values, (pa.timestamp("ns", tz=values.type.tz),), field)
    elif not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)) or name == "arrival_time":
        raise Malformed(f"{field} is {values.type}, {'no date and time' if name == 'arrival_time' else 'no number'}")
    else:
        values = _parsed(values, _NUMBERS, field)
    missing = pc.is_null(values).to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    if pa.types.is_floating(values.type):
        finite = pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
        if not finite.all():
            row = int((~finite).argmax())
            raise Malformed(f"request {row + 1}: {field} is not finite: {values[row]}")
    return Column(pc.fill_null(values, 0).to_numpy(zero_copy_only=False), missing)


_NUMBERS = (pa.int64(), pa.float64())
_DATES = (pa.timestamp("ns", tz="UTC"), pa.timestamp("ns"))


def _parsed(values: pa.Array, types: tuple[pa.DataType, ...], field: str) -> pa.Array:
    for kind in types:
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            continue
    for row, value in enumerate(values, start=1):  # which one
        if not any(_is(value, kind) for kind in types):
            what = "no date and time" if types is _DATES else "no number"
            raise Malformed(f"request {row}: {field} is {what}: {ascii(value.as_py())[:40]}")
    raise Malformed(f"{field}: some dates have a zone and some have none")


def _is(value: pa.Scalar, kind: pa.DataType) -> bool:
    try:
        value.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
