"""The tables that compare-runs writes. Times may have a fraction here; relative figures are fractions."""

import pyarrow as pa

from gpu_simulate_test.io.table_files import FLOAT, INT, STR, Table, column

_RELATIVE = column("relative_error", FLOAT, "the error divided by real", null=True)
_REPEATS = column("n_repeats", INT, "real runs")

PERCENTILES = Table(
    "percentiles",
    "One row a statistic of each metric.",
    "compare-runs",
    pa.schema(
        [
            column("metric", STR, "`ttft`, `tbt`, `tpot`, `e2e` or `e2e_per_token`"),
            column("statistic", STR, "`p50`, `p90`, `p99` or `mean`"),
            column("real_ns", FLOAT, "the mean over the repeats of each one's statistic", null=True),
            column(
                "sim_ns",
                FLOAT,
                "likewise, over the simulations with noise; of the one without where there are none",
                null=True,
            ),
            column("error_ns", FLOAT, "simulated - real", null=True),
            _RELATIVE,
            column("n_real", INT, "values behind it, in one real run; 0 where nothing is left to compare"),
            column("n_sim", INT, "values behind it, in one simulation"),
            column(
                "sim_low_ns",
                FLOAT,
                "97.5 % of the simulations with noise lie above it. Empty where there are none",
                null=True,
            ),
            column("sim_high_ns", FLOAT, "97.5 % of them lie below it", null=True),
            _REPEATS,
            column(
                "floor_ns",
                FLOAT,
                "half the 95 % prediction interval for one more real run. Empty for one repeat",
                null=True,
            ),
            column("floor", FLOAT, "`floor_ns` divided by real", null=True),
            column(
                "ci_low",
                FLOAT,
                "where the 95 % bootstrap confidence interval of `relative_error` begins. Empty below five requests",
                null=True,
            ),
            column("ci_high", FLOAT, "where it ends", null=True),
            column(
                "verdict",
                STR,
                "the first that holds: `within the floor` (of at most 30 %), `within tolerance`, `too noisy to judge` "
                "(below a wider floor), `off`; `not judged` where a figure is missing. Against a run that the "
                "simulation was calibrated on, `in-sample` in place of the first two",
            ),
        ]
    ),
)
_SIDE_BY_SIDE = [
    column("real", FLOAT, "the mean over the repeats", null=True),
    column("sim", FLOAT, "the mean over the simulations with noise", null=True),
    column("error", FLOAT, "simulated - real", null=True),
    _RELATIVE,
    column("sim_low", FLOAT, "as `sim_low_ns` of `percentiles.csv`", null=True),
    column("sim_high", FLOAT, "as `sim_high_ns` there", null=True),
    _REPEATS,
    column(
        "floor",
        FLOAT,
        "half the 95 % prediction interval for one more real run, in the unit of the figure. Empty for one repeat",
        null=True,
    ),
]
SLO = Table(
    "slo",
    "Two rows for each objective, and two for all together. Only with `slo.ttft_ms`, `slo.tbt_ms` or `slo.e2e_ms`.",
    "compare-runs",
    pa.schema(
        [
            column("objective", STR, "`ttft`, `tbt`, `e2e`, `all`"),
            column("limit_ms", FLOAT, "a latency up to it meets the objective; empty for `all`", null=True),
            column(
                "statistic",
                STR,
                "`attainment`: the share of all requests of the run that meet it. `goodput_per_s`: those that do, for "
                "each second from the first arrival to the last completion",
            ),
            column("n_real", INT, "requests of one real run, those that failed included: they meet nothing"),
            column("n_sim", INT, "requests of one simulation, likewise"),
            *_SIDE_BY_SIDE,
        ]
    ),
)
THROUGHPUT = Table(
    "throughput",
    "Two rows.",
    "compare-runs",
    pa.schema(
        [
            column(
                "statistic",
                STR,
                "`requests_per_s`: requests that completed, for each second from the first arrival to the last "
                "completion. `output_tokens_per_s`: the tokens that they made",
            ),
            *_SIDE_BY_SIDE,
        ]
    ),
)
_PAIRED = ("ttft", "tpot", "e2e", "e2e_per_token")
_SIDES = {"real": "mean over the repeats", "sim": "of the simulation", "error": "simulated - real"}
PER_REQUEST = Table(
    "per_request",
    "One row for every request that completed in every repeat and in the simulation. A latency is empty where one of "
    "these runs lacks it.",
    "compare-runs",
    pa.schema(
        [
            column("request_id", INT, "joins the workload and the runs"),
            column("num_prefill_tokens", INT, "prompt tokens"),
            column("num_decode_tokens", INT, "output tokens asked for, of the real run"),
            column("real_num_decode_tokens_actual", INT, "as made, in the first repeat"),
            column("sim_num_decode_tokens_actual", INT, "as made, in the simulation"),
            column("num_tokens_compared", INT, "that every run made"),
            *(
                column(f"{side}_{metric}_ns", FLOAT, what, null=True)
                for metric in _PAIRED
                for side, what in _SIDES.items()
            ),
        ]
    ),
    large=True,
)
GATES = Table(
    "gates",
    "One row a gate.",
    "compare-runs",
    pa.schema(
        [
            column("gate", STR, "what has to hold for the comparison to mean something"),
            column("status", STR, "`passed`, `flagged` or `void`"),
            column("value", STR, "what was found", null=True),
            column("detail", STR, "what it means", null=True),
        ]
    ),
)
ATTRIBUTION = Table(
    "attribution",
    "The parts of the difference simulated - real; they add up to it. Means over the requests whose difference is "
    "known, of the first repeat against the simulation; a metric without one has no rows. Only where the simulated run "
    "has `real_iterations.csv` and `at_real_speed.csv` of this real run.",
    "compare-runs",
    pa.schema(
        [
            column("metric", STR, "`e2e` or `ttft`"),
            column("part", STR, "see below"),
            column("mean_ns", FLOAT, "what it adds"),
            column("share", FLOAT, "of the total; empty where that is 0", null=True),
        ]
    ),
)
