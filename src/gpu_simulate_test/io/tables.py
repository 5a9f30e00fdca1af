"""The CSV tables that pass between stages: their columns, and strict reading and writing.

Times are integer nanoseconds relative to the run's start. A missing value is an empty field.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.files import write_atomic

INT, STR, BOOL, FLOAT = pa.int64(), pa.string(), pa.bool_(), pa.float64()


@dataclass(frozen=True)
class Table:
    """A CSV contract.

    Attributes
    ----------
    filename : str
        Name inside a run directory.
    required : dict of str to pyarrow type
        Columns every such file has; a foreign run may have only these.
    optional : dict of str to pyarrow type
        Columns our own stages add.
    nullable : frozenset of str
        Columns that may hold an empty field.
    """

    filename: str
    required: dict[str, pa.DataType]
    optional: dict[str, pa.DataType]
    nullable: frozenset[str] = frozenset()

    @property
    def types(self) -> dict[str, pa.DataType]:
        """All known columns with their types."""
        return self.required | self.optional


TRACE_LENGTHS = Table(
    "trace_lengths.csv",
    {"request_id": INT, "prompt_id": STR, "num_prefill_tokens": INT, "num_decode_tokens": INT},
    {},
)
TRACE_INTERVALS = Table("trace_intervals.csv", {"request_id": INT, "inter_arrival_ns": INT, "arrival_time_ns": INT}, {})
REQUEST_METRICS = Table(
    "request_metrics.csv",
    {
        "request_id": INT,
        "arrival_time_ns": INT,
        "first_token_time_ns": INT,
        "ttft_ns": INT,
        "num_prefill_tokens": INT,
        "num_decode_tokens": INT,
        "num_decode_tokens_actual": INT,
        "status": STR,
    },
    {
        "submit_time_ns": INT,
        "first_scheduled_time_ns": INT,
        "completion_time_ns": INT,
        "num_preemptions": INT,
        "error_type": STR,
        "error_msg": STR,
        "is_warmup": BOOL,
        "backend": STR,
    },
    frozenset(
        {
            "submit_time_ns",
            "first_scheduled_time_ns",
            "first_token_time_ns",
            "ttft_ns",
            "completion_time_ns",
            "num_preemptions",
            "error_type",
            "error_msg",
        }
    ),
)
REQUEST_COLUMNS = (
    "request_id",
    "arrival_time_ns",
    "submit_time_ns",
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "ttft_ns",
    "completion_time_ns",
    "num_prefill_tokens",
    "num_decode_tokens",
    "num_decode_tokens_actual",
    "num_preemptions",
    "status",
    "error_type",
    "error_msg",
    "is_warmup",
    "backend",
)
TOKEN_METRICS = Table(
    "token_metrics.csv",
    {"request_id": INT, "token_index": INT, "token_time_ns": INT, "token_latency_ns": INT},
    {"token_id": INT, "iteration_id": INT},
    frozenset({"token_latency_ns", "token_id", "iteration_id"}),
)
ITERATION_METRICS = Table(
    "iteration_metrics.csv",
    {
        "iteration_id": INT,
        "start_time_ns": INT,
        "end_time_ns": INT,
        "num_prefill_tokens": INT,
        "num_prefill_seqs": INT,
        "num_decode_seqs": INT,
        "kv_tokens_prefill": INT,
        "kv_tokens_decode": INT,
        "num_preempted": INT,
    },
    {"prefill_pairs": INT, "max_kv_decode": INT, "predicted_ns": INT, "in_profile": BOOL},
)

# In a simulated run: a folder for each further simulation with noise, with its request and token metrics.
SAMPLES = "samples"
# Of each of these, in place of its tokens: the quantiles of its times between tokens, 1,001 evenly spaced levels.
TBT_QUANTILES = Table("tbt_quantiles.csv", {"level": FLOAT, "token_latency_ns": FLOAT}, {})
# In a simulated run: the predictor's time of each iteration of the real run it was given.
REAL_ITERATIONS = Table("real_iterations.csv", {"iteration_id": INT, "predicted_ns": INT, "in_profile": BOOL}, {})
# And its requests in a simulation whose iterations are as much slower than predicted as that run's were at the time.
AT_REAL_SPEED = Table(
    "at_real_speed.csv", {"request_id": INT, "first_token_time_ns": INT, "completion_time_ns": INT}, {}
)


def requests_on_arrival(times: pd.DataFrame, backend: str) -> pd.DataFrame:
    """``request_metrics.csv`` of a run whose engine got every request on its arrival.

    Parameters
    ----------
    times : pandas.DataFrame of shape (n_requests, n_columns)
        The columns of `REQUEST_COLUMNS` that do not follow from that; ``error_type`` and ``error_msg`` where a request
        may have failed.
    """
    if "error_type" not in times:
        times = times.assign(error_type=None, error_msg=None)
    ok = times["error_type"].isna()
    return times.assign(
        submit_time_ns=times["arrival_time_ns"].astype("Int64").where(ok),
        ttft_ns=times["first_token_time_ns"] - times["arrival_time_ns"],
        status=ok.map({True: "ok", False: "error"}),
        is_warmup=False,
        backend=backend,
    )[list(REQUEST_COLUMNS)]


def share_outside_profile(iterations: pd.DataFrame) -> float:
    """Share of the time of simulated iterations that the profile does not cover; they are the longest ones mostly."""
    took = iterations["end_time_ns"] - iterations["start_time_ns"]
    return float(took[~iterations["in_profile"]].sum() / took.sum())


def write_table(path: Path, frames: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
    """Write a frame, or several of the same columns one after another, as CSV atomically.

    A header, text in quotes, a missing value empty. There must be one frame at least.
    """
    pieces = iter([frames] if isinstance(frames, pd.DataFrame) else frames)
    options = pacsv.WriteOptions(quoting_style="needed", quoting_header="none")

    def write(stream: BinaryIO) -> None:
        first = pa.Table.from_pandas(next(pieces), preserve_index=False)
        with pacsv.CSVWriter(stream, first.schema, write_options=options) as writer:
            writer.write_table(first)
            for piece in pieces:
                writer.write_table(pa.Table.from_pandas(piece, schema=first.schema, preserve_index=False))

    write_atomic(path, write)


def read_table(path: Path, table: Table) -> pd.DataFrame:
    """Read a CSV under its contract.

    Returns
    -------
    pandas.DataFrame
        Known columns only, in file order; nullable integers as ``Int64``.

    Raises
    ------
    ArtifactError
        Missing, truncated, a required column absent, a value of the wrong type, or an empty field
        where none may be.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            size = stream.tell()
            stream.seek(max(0, size - 1))
            complete = stream.read() == b"\n"
    except OSError as error:
        raise ArtifactError(f"cannot read: {path}: {error.strerror}; run the stage that writes it") from error
    if not complete:
        raise ArtifactError(f"truncated, its last line is unfinished: {path}; run the stage that writes it again")
    try:
        arrow = pacsv.read_csv(
            path,
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(column_types=table.types, strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"malformed CSV: {path}: {str(error).splitlines()[0]}") from error
    missing = [name for name in table.required if name not in arrow.column_names]
    if missing:
        raise ArtifactError(f"columns missing: {path}: {', '.join(missing)}")
    arrow = arrow.select([name for name in arrow.column_names if name in table.types])
    for name in arrow.column_names:
        if name not in table.nullable and arrow[name].null_count:
            raise ArtifactError(f"empty field: {path}: column {name}")
    frame: pd.DataFrame = arrow.to_pandas()
    for name in arrow.column_names:
        if name in table.nullable and table.types[name] == INT:
            frame[name] = arrow[name].to_pandas(types_mapper={INT: pd.Int64Dtype()}.get)
    return frame
