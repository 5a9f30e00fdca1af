"""The tables of studies: of a sweep, and of the capacities that were found."""

from dataclasses import replace

import pandas as pd
import pyarrow as pa

from gpu_simulate_test.io.table_files import FLOAT, INT, STR, Table, column

_METRICS = {"ttft": "TTFT", "tpot": "TPOT", "tbt": "TBT", "e2e": "E2E"}
_STATISTICS = {"mean": "mean", "p50": "P50", "p90": "P90", "p99": "P99"}
RANGED = ("slo_attainment", "ttft_p99_ms", "tpot_p50_ms", "e2e_p50_ms")  # figures that are told with a range
_FIGURES = {
    "num_requests": "requests of the run",
    "num_failed": "of them, those that failed",
    "duration_s": "from the first arrival to the last completion",
    "request_rate_per_s": "requests sent each second; of a closed loop, those that completed",
    "requests_per_s": "requests that completed, each second",
    "output_tokens_per_s": "of these requests",
    "output_tokens_per_s_per_gpu": "that, divided by the GPUs that served",
    "interactivity_tokens_per_s": "what one user gets: 1 / median TPOT",
    **{f"{m}_{s}_ms": f"{name} {stat}" for m, name in _METRICS.items() for s, stat in _STATISTICS.items()},
    "slo_attainment": "share of the requests that meet every objective, as in `slo.csv`",
    "goodput_per_s": "requests that do, each second",
    "cost_per_million_output_tokens": "in the currency of `hardware.price_per_hour`",
    **{
        f"{name}_{end}": f"97.5 % of the simulations with noise have a {than} `{name}`"
        for name in RANGED
        for end, than in (("low", "larger"), ("high", "smaller"))
    },
}
FIGURES = tuple(column(name, FLOAT, doc, null=True) for name, doc in _FIGURES.items())
SWEEP = Table(
    "sweep",
    "One row a job of a sweep, in order; the same in CSV and in Parquet. A figure is empty where it is not known, as "
    "of a job that failed.",
    "a sweep",
    pa.schema(
        [
            column("job", INT, "its number in the sweep, from 0"),
            column("status", STR, "`ok`, `error` or `killed`"),
            column("exit_code", INT, "as its stage would have exited alone"),
            column("error", STR, "what went wrong, in one line; paths are relative to `output.root`", null=True),
            column("run_dir", STR, "its run directory, relative to `output.root`", null=True),
            *FIGURES,
        ]
    ),
    family=column(
        "<setting>",
        STR,
        "after `job`: the value of each override that is not the same in all jobs; numbers where all are numbers. "
        "Empty where a job was not given it",
    ),
)
CAPACITY_FIGURES = (
    "slo_attainment",
    "requests_per_s",
    "output_tokens_per_s",
    "output_tokens_per_s_per_gpu",
    "cost_per_million_output_tokens",
)
CAPACITY = Table(
    "capacity",
    "One row a combination of the settings swept by `hydra/sweeper=capacity`: the highest load that meets the "
    "objectives, and the figures of the job at it. A figure is empty where it is not known.",
    "a search for the capacity",
    pa.schema(
        [
            column("searched", STR, "the setting that is the load: requests/s, or concurrent requests"),
            column("capacity", FLOAT, "the highest load that met the objectives; 0 where no load does", null=True),
            column("met_at", FLOAT, "the same; empty where none did", null=True),
            column("missed_at", FLOAT, "the lowest load above it that missed them", null=True),
            column(
                "low",
                FLOAT,
                "the highest load at which 97.5 % of the simulations with noise, or more, meet them",
                null=True,
            ),
            column("high", FLOAT, "the lowest load at which 97.5 % of them, or more, miss them", null=True),
            column("simulations", INT, "that it took"),
            *(next(one for one in FIGURES if one.name == name) for name in CAPACITY_FIGURES),
            column("run_dir", STR, "the run directory of that job, relative to `output.root`", null=True),
            column("remark", STR, "why it failed, or what limits the answer", null=True),
        ]
    ),
    family=column("<setting>", STR, "before `searched`: the value of each setting that is swept, as typed", null=True),
)


def with_settings(table: Table, frame: pd.DataFrame) -> Table:
    """The contract of a frame: that of `table`, with the settings that the frame has as columns, and their types."""
    known, types = {field.name: field for field in table.schema}, {"Int64": INT, "float64": FLOAT}
    fields = [
        known.get(name) or column(name, types.get(frame[name].dtype.name, STR), "a setting", null=True)
        for name in frame.columns
    ]
    return replace(table, schema=pa.schema(fields), family=None)
