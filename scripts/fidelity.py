#!/usr/bin/env python3
"""How close the simulation comes to the real engine, at several loads.

Measures the engine's capacity, profiles it, serves a Poisson workload at each share of the capacity, then simulates
each twice: at the speed the machine had during the real run, and from the profile alone. Run it alone on the machine:
``python scripts/fidelity.py --out tmp/fidelity``. Arguments after ``--`` are overrides of every stage, for example
``-- model=qwen3_0_6b model.weights=dummy``.
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_simulate_test.io.comparison_tables import PERCENTILES
from gpu_simulate_test.io.tables import REQUEST_METRICS, read_table

BIN = Path(sys.executable).parent


def run(deadline: float, command: str, *overrides: str) -> Path:
    """Run a stage and return its run directory; it is ended at the deadline, a time of ``time.monotonic``."""
    print(f"== {command} {' '.join(overrides)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [str(BIN / command), *overrides, "overwrite=true"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=None if math.isinf(deadline) else max(deadline - time.monotonic(), 0.1),
    )
    return Path(done.stdout.splitlines()[-1])


def capacity_per_s(real: Path) -> float:
    """Requests a second of a run whose requests all arrive at once."""
    requests = read_table(real, REQUEST_METRICS)
    return len(requests) / (requests["completion_time_ns"].max() / 1e9)


@contextmanager
def told(what: str, failures: list[str]) -> Iterator[None]:
    """Say in one line what failed or found no time, and go on."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        failures.append(f"left out: the rest of {what}, from {Path(error.cmd[0]).name} on: no time is left")
        print(failures[-1], flush=True)
    except subprocess.CalledProcessError as error:
        failures.append(f"failed: {what}: {Path(error.cmd[0]).name} exited {error.returncode}")
        print(failures[-1], flush=True)


def simulate(deadline: float, load: float, settings: list[str], real: Path) -> None:
    """Simulate twice, compare twice, print rows of the table."""
    for name, overrides in (("real run's", [f"real_run_dir={real}"]), ("profile's", [])):
        sim = run(deadline, "vidur-sim", *settings, *overrides)
        path = run(deadline, "compare-runs", *settings, f"real_run_dir={real}", f"sim_run_dir={sim}")
        for row in read_table(path, PERCENTILES).to_dict("records"):
            print(
                f"| {load:.0%} | {name} | {row['metric']} | {row['statistic']} | {row['real_ns'] / 1e6:.2f} "
                f"| {row['sim_ns'] / 1e6:.2f} | {row['relative_error']:+.1%} | {row.get('floor', float('nan')):.1%} "
                f"| {row.get('verdict', '')} |",
                flush=True,
            )


def main() -> None:
    """Measure, compare, print a Markdown table; exit 1 when a stage failed or found no time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tmp/fidelity", help="output.root of every stage")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.6, 0.85], help="shares of capacity")
    parser.add_argument("--requests", type=int, default=100, help="of a load")
    parser.add_argument("--seconds", type=float, default=math.inf, help="fewer requests: what arrives in that time")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget-s", type=float, default=math.inf, help="a load not begun or done by then is left out")
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.budget_s

    common = [
        "experiment=cpu_demo",
        f"output.root={arguments.out}",
        "workload=synthetic",
        "workload.num_prefill_tokens=600",
        "workload.num_prefill_tokens_min=16",
        "workload.num_decode_tokens=64",
        "workload.num_decode_tokens_min=8",
        *arguments.overrides,
    ]
    burst = [
        *common,
        f"workload.num_requests={max(20, arguments.requests // 2)}",
        "workload.arrival.kind=fixed_interval",
        "workload.arrival.inter_arrival_ns=0",
        f"workload.seed={arguments.seed + 1000}",
    ]
    failures: list[str] = []
    capacity = 0.0
    with told("the capacity", failures):
        run(deadline, "workload-spec", *burst)
        capacity = capacity_per_s(run(deadline, "real-bench", *burst, "repeats=1"))
    if failures:
        sys.exit(1)
    print(f"capacity: {capacity:.3f} requests/s", flush=True)
    with told("the profile", failures):
        run(deadline, "vidur-profile", *burst)
    served = []  # all loads first: simulations can be made later, anywhere
    for load in arguments.loads:
        requests = max(5, int(min(arguments.requests, load * capacity * arguments.seconds)))
        measuring, left = arguments.repeats * requests / (load * capacity), deadline - time.monotonic()
        if left < measuring:
            failures.append(f"left out: {load:.0%} of capacity: {measuring:.0f} s to measure, {left:.0f} s left")
            print(failures[-1], flush=True)
            continue
        settings = [
            *common,
            f"workload.num_requests={requests}",
            f"workload.arrival.rate_per_s={load * capacity:.6f}",
            f"workload.seed={arguments.seed}",
        ]
        with told(f"serving {load:.0%} of capacity", failures):
            run(deadline, "workload-spec", *settings)
            served.append((load, settings, run(deadline, "real-bench", *settings, f"repeats={arguments.repeats}")))
    print("| load | speed | metric | statistic | real ms | sim ms | error | floor | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for load, settings, real in served:
        with told(f"simulating {load:.0%} of capacity", failures):
            simulate(deadline, load, settings, real)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
