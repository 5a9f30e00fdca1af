"""``real-bench``: serve the workload with a real engine and time every token."""

from contextlib import ExitStack
from pathlib import Path

from gpu_simulate_test.cli.app import stage_main
from gpu_simulate_test.cli.inputs import make_workload
from gpu_simulate_test.config.ids import file_sha256, stable_id
from gpu_simulate_test.config.schema import HydraRecord, RealBenchConfig


def run(config: RealBenchConfig, record: HydraRecord) -> Path:
    """Measure the workload that the settings name."""
    from gpu_simulate_test.engine import MonotonicClock
    from gpu_simulate_test.io.run_dir import open_run_dir
    from gpu_simulate_test.io.workload import load_workload, workload_path
    from gpu_simulate_test.real_bench.backends import running_engine
    from gpu_simulate_test.real_bench.recorded import import_recorded, read_run
    from gpu_simulate_test.real_bench.stage import load_requests, real_bench, repeat_paths

    recorded = read_run(config) if config.backend.name == "recorded" else None  # what is wrong with it comes first
    make_workload(config, record)
    workload = load_workload(workload_path(config), config.model.id)
    identity = config.model_dump(include={"model", "hardware", "backend", "limits"})
    identity["model"].pop("path")
    identity["hardware"].pop("price_per_hour")  # what is measured does not depend on it
    if recorded is not None:  # by what is in the file, wherever it lies
        identity["backend"]["requests"] = file_sha256(Path(config.backend.requests or ""))
    path = Path(config.output.root) / "real_runs" / stable_id("real", identity | {"workload": workload.sha256})
    if recorded is not None:
        with open_run_dir(path, config, record) as target:
            import_recorded(config, workload, recorded, target)
        return path
    requests, clock = load_requests(workload, config), MonotonicClock()
    with ExitStack() as stack:
        repeats = repeat_paths(path, config.repeats)
        runs = [stack.enter_context(open_run_dir(one, config, record)) for one in repeats]
        engine = stack.enter_context(running_engine(config, clock))
        real_bench(config, workload, requests, runs, engine, clock)
    return path


main = stage_main("real_bench", run)

if __name__ == "__main__":
    main()
