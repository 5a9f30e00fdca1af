#!/usr/bin/env python3
"""How close the simulation comes to the real engine, at several loads.

Measures the engine's capacity, profiles it, then serves and simulates a Poisson workload at each share
of the capacity. Run it alone on the machine: ``python scripts/fidelity.py --out tmp/fidelity``.
Arguments after ``--`` are overrides of every stage, for example ``-- model=qwen3_0_6b model.weights=dummy``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

BIN = Path(sys.executable).parent
STATISTICS = ("p50", "p90", "p99", "mean")


def run(command: str, *overrides: str) -> Path:
    """Run a stage and return its run directory."""
    print(f"== {command} {' '.join(overrides)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [str(BIN / command), *overrides, "overwrite=true"], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.splitlines()[-1])


def capacity_per_s(real: Path) -> float:
    """Requests a second of a run whose requests all arrive at once."""
    requests = pd.read_csv(real / "request_metrics.csv")
    return len(requests) / (requests["completion_time_ns"].max() / 1e9)


def main() -> None:
    """Measure, compare, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tmp/fidelity", help="output.root of every stage")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.6, 0.85], help="shares of capacity")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()

    common = [
        "experiment=cpu_demo",
        *arguments.overrides,
        f"output.root={arguments.out}",
        "workload=synthetic",
        "workload.num_prefill_tokens=600",
        "workload.num_prefill_tokens_min=16",
        "workload.num_decode_tokens=64",
        "workload.num_decode_tokens_min=8",
    ]
    burst = [
        *common,
        f"workload.num_requests={max(20, arguments.requests // 2)}",
        "workload.arrival.kind=fixed_interval",
        "workload.arrival.inter_arrival_ns=0",
        f"workload.seed={arguments.seed + 1000}",
    ]
    run("workload-spec", *burst)
    capacity = capacity_per_s(run("real-bench", *burst, "repeats=1"))
    run("vidur-profile", *burst)
    print(f"capacity: {capacity:.3f} requests/s")
    print("| load | metric | statistic | real ms | sim ms | error | floor | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for load in arguments.loads:
        settings = [
            *common,
            f"workload.num_requests={arguments.requests}",
            f"workload.arrival.rate_per_s={load * capacity:.6f}",
            f"workload.seed={arguments.seed}",
        ]
        run("workload-spec", *settings)
        real = run("real-bench", *settings, f"repeats={arguments.repeats}")
        sim = run("vidur-sim", *settings, f"real_run_dir={real}")
        path = run("compare-runs", *settings, f"real_run_dir={real}", f"sim_run_dir={sim}")
        for row in pd.read_csv(path / "percentiles.csv").to_dict("records"):
            print(
                f"| {load:.0%} | {row['metric']} | {row['statistic']} | {row['real_ns'] / 1e6:.2f} "
                f"| {row['sim_ns'] / 1e6:.2f} | {row['relative_error']:+.1%} | {row.get('floor', float('nan')):.1%} "
                f"| {row.get('verdict', '')} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
