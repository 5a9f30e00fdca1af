"""Recorded requests that are tables: CSV, and JSON lines of plain fields."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded.frame import LENGTHS, TIMES, since

_UNITS = {"_s": 1e9, "_ms": 1e6, "_us": 1e3, "_ns": 1.0}
_POINTS = tuple(name.removesuffix("_ns") for name in TIMES)
_DURATIONS = {"ttft": "first_token_time_ns", "e2e": "completion_time_ns"}  # since the arrival
_KNOWN = (
    {
        "arrival_time": "TIMESTAMP",
        "num_prefill_tokens": "ContextTokens",
        "num_decode_tokens": "GeneratedTokens",
    },  # Azure
    {"arrival_time_s": "Timestamp", "num_prefill_tokens": "Request tokens", "num_decode_tokens": "Response tokens"},
    {name: name.replace("arrival_time_s", "arrived_at") for name in ("arrival_time_s", *LENGTHS)},  # Vidur
)


def read_csv(path: Path, columns: Mapping[str, str] | None) -> pd.DataFrame:
    """Read a CSV of requests.

    Parameters
    ----------
    path : pathlib.Path
    columns : mapping of str to str, optional
        From what it is to the name of its column: ``num_prefill_tokens``, ``num_decode_tokens``; ``arrival_time``,
        ``first_scheduled_time``, ``first_token_time``, ``completion_time`` of one clock, and ``ttft`` and ``e2e`` since
        the arrival, all with their unit, ``_s``, ``_ms``, ``_us`` or ``_ns``; ``arrival_time`` without one is a date
        and time; ``error_msg``, not empty for a failed request. Not needed for the traces that are known by their
        columns.

    Raises
    ------
    ConfigError
        A name that is not known, or a length or the arrival is not among them.
    ArtifactError
        Missing, malformed, or without such a column.
    """
    header, row = _first_rows(path)
    mapping = columns or next((known for known in _KNOWN if set(known.values()) <= set(header)), None)
    if mapping is None:
        raise ArtifactError(
            f"recorded requests of no known format: {path}: columns {', '.join(header)[:200]}; say what they are with "
            "workload.trace_columns"
        )
    _check_names(mapping)
    if absent := [column for column in mapping.values() if column not in header]:
        raise ArtifactError(f"columns missing: {path}: {', '.join(absent)}; it has {', '.join(header)[:200]}")
    cells = dict(zip(header, row, strict=False))
    zoned = not {"+", "Z"}.isdisjoint(cells.get(mapping.get("arrival_time", ""), ""))
    types = {column: _type(name, zoned) for name, column in mapping.items()}
    try:
        table = pacsv.read_csv(
            path,
            parse_options=pacsv.ParseOptions(newlines_in_values="error_msg" in mapping),
            convert_options=pacsv.ConvertOptions(
                column_types=types, include_columns=list(types), strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"malformed recorded requests: {path}: {str(error).splitlines()[0]}") from error
    given = {name: table[column] for name, column in mapping.items()}
    return _frame({name: _series(values) for name, values in given.items()})


def _first_rows(path: Path) -> tuple[list[str], list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            return next(rows, []), next(rows, [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"cannot read recorded requests: {path}: {error}") from error


def _check_names(mapping: Mapping[str, str]) -> None:
    timed = [point + unit for point in (*_POINTS, *_DURATIONS) for unit in _UNITS]
    known = {*LENGTHS, "arrival_time", "error_msg", *timed}
    if unknown := [name for name in mapping if name not in known]:
        raise ConfigError(
            f"workload.trace_columns: not known: {', '.join(unknown)}; choose of {', '.join(LENGTHS)}, error_msg, "
            f"{', '.join((*_POINTS, *_DURATIONS))}, the times with a unit: {', '.join(_UNITS)}"
        )
    if [name for name in LENGTHS if name not in mapping] or not any(name.startswith(_POINTS[0]) for name in mapping):
        raise ConfigError(f"workload.trace_columns needs {', '.join(LENGTHS)} and arrival_time with its unit")


def _type(name: str, zoned: bool) -> pa.DataType:
    if name == "arrival_time":
        return pa.timestamp("ns", tz="UTC" if zoned else None)
    if name == "error_msg":
        return pa.string()
    return pa.int64() if name.endswith("_ns") else pa.float64()


def _series(values: pa.ChunkedArray) -> pd.Series:
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    series: pd.Series = values.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return series


def _frame(given: dict[str, pd.Series]) -> pd.DataFrame:
    """Columns of `frame.finished` from the given ones, whatever their units."""
    points = {name: _split(name) for name in given if name.startswith(_POINTS)}
    start = next(given[name].min() for name, (point, _) in points.items() if point == _POINTS[0])
    frame = pd.DataFrame({name: given[name] for name in LENGTHS})
    for name, (point, ns_per_unit) in points.items():
        frame[f"{point}_ns"] = since(given[name], start, ns_per_unit)
    for name in given:
        duration, ns_per_unit = _split(name)
        if duration in _DURATIONS:
            frame[_DURATIONS[duration]] = frame["arrival_time_ns"] + since(given[name], 0, ns_per_unit)
    if "error_msg" in given:
        message = given["error_msg"].astype(object)
        failed = message.notna() & (message != "")
        frame = frame.assign(
            error_type=pd.Series("recorded", index=frame.index, dtype=object).where(failed, None),
            error_msg=message.where(failed, None),
        )
    return frame


def _split(name: str) -> tuple[str, float]:
    """A column's name without its unit, and the nanoseconds of that."""
    for unit, ns_per_unit in _UNITS.items():
        if name.endswith(unit) and name.removesuffix(unit) in (*_POINTS, *_DURATIONS):
            return name.removesuffix(unit), ns_per_unit
    return name, 1.0


def read_mooncake(path: Path) -> pd.DataFrame:
    """Read a trace of Mooncake's: ms since its start, lengths; which blocks prompts share is not taken."""
    names = {"arrival_time_ms": "timestamp", "num_prefill_tokens": "input_length", "num_decode_tokens": "output_length"}
    return _frame(_json_fields(path, names))


def read_llmservingsim(path: Path) -> pd.DataFrame:
    """Read ``requests.jsonl`` of LLMServingSim's vLLM benchmark; times are seconds.

    A request arrives when the engine queues it: the file's own ``arrival_time`` is of another clock.
    """
    names = {
        "num_prefill_tokens": "input_toks",
        "num_decode_tokens": "output_toks",
        "arrival_time_s": "queued_ts",
        "first_scheduled_time_s": "scheduled_ts",
        "first_token_time_s": "first_token_ts",
        "completion_time_s": "last_token_ts",
    }
    return _frame(_json_fields(path, names))


def _json_fields(path: Path, names: Mapping[str, str]) -> dict[str, pd.Series]:
    schema = pa.schema([(field, pa.float64()) for field in names.values()])
    options = pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pajson.read_json(path, parse_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ArtifactError(f"malformed recorded requests: {path}: {str(error).splitlines()[0]}") from error
    return {name: _series(table[field]) for name, field in names.items()}
