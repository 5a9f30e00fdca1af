"""compare-runs on millions of tokens a run, against pyarrow and NumPy doing the same reading and percentiles."""

import sys
import tempfile
from pathlib import Path

from benchmarks.table import Row, Scale
from benchmarks.timing import Usage, measured
from tests.integration.test_large_tables import write_large

BARE = """
import sys
from pathlib import Path
import numpy as np, pyarrow.csv as csv, pyarrow.parquet as parquet

def read(folder, name, columns):
    path = Path(folder) / f"{name}.parquet"
    if path.exists():
        table = parquet.read_table(path, columns=columns)
    else:
        options = csv.ConvertOptions(include_columns=columns)
        table = csv.read_csv(path.with_suffix(".csv"), convert_options=options)
    return [table[column].to_numpy() for column in columns]

for folder in sys.argv[1:]:
    arrival, first, made = read(
        folder, "request_metrics", ["arrival_time_ns", "first_token_time_ns", "num_decode_tokens_actual"]
    )
    ids, index, time = read(folder, "token_metrics", ["request_id", "token_index", "token_time_ns"])
    last = time[np.append(np.flatnonzero(np.diff(ids)), len(ids) - 1)]
    gaps = np.diff(time)[index[1:] > 0]
    metrics = [first - arrival, gaps, (last - first) / (made - 1), last - arrival, (last - arrival) / made]
    for values in metrics:
        print(np.percentile(values, [50, 90, 99]), values.mean())
"""
MIB = 2**20


def rows(scale: Scale) -> list[Row]:
    """The whole command, and what it takes beyond a comparison of two tiny runs: a start, plots and a page."""
    num_tokens = 5_000_000 if scale == "full" else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        large = [str(write_large(folder / kind, kind, num_tokens, seed)) for seed, kind in enumerate(("real", "vidur"))]
        tiny = [str(write_large(folder / f"tiny_{kind}", kind, 5_000, 9)) for kind in ("real", "vidur")]
        bare = measured([sys.executable, "-c", BARE, *large])
        fixed, whole = (_compared(folder / f"out_{number}", pair) for number, pair in enumerate((tiny, large)))
    tokens = f"compare-runs, {num_tokens:,} tokens a run"
    beyond_cpu = whole.cpu_s - fixed.cpu_s
    return [
        Row(
            f"{tokens}, against pyarrow and NumPy, wall",
            _seconds(whole.wall_s, bare.wall_s),
            ratio=whole.wall_s / bare.wall_s,
            at_most=2,
        ),
        Row(f"{tokens}, CPU", _seconds(whole.cpu_s, bare.cpu_s), whole.cpu_s / bare.cpu_s),
        Row(
            f"{tokens}, CPU beyond that of a tiny comparison",
            _seconds(beyond_cpu, bare.cpu_s),
            ratio=beyond_cpu / bare.cpu_s,
            at_most=2,
        ),
        Row(
            f"{tokens}, peak memory in GiB",
            f"{whole.peak_bytes / MIB:.0f} MiB, {bare.peak_bytes / MIB:.0f} MiB",
            ratio=whole.peak_bytes / 2**30,
            at_most=1,
        ),
    ]


def _seconds(ours: float, bare: float) -> str:
    return f"{ours:.1f} s, {bare:.1f} s"


def _compared(folder: Path, pair: list[str]) -> Usage:
    real, sim = pair
    arguments = [f"output.root={folder}", f"real_run_dir={real}", f"sim_run_dir={sim}"]
    return measured([sys.executable, "-m", "gpu_simulate_test.cli.compare_runs", *arguments])
