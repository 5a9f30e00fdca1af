"""``real-bench``: serve the workload with a real engine and time every token."""

from dataclasses import asdict
from pathlib import Path

from gpu_simulate_test.cli.app import stage_main, write_hydra_record
from gpu_simulate_test.config.ids import file_sha256, stable_id
from gpu_simulate_test.config.schema import HydraRecord, RealBenchConfig


def run(config: RealBenchConfig, record: HydraRecord) -> Path:
    """Measure the workload that the settings name."""
    from gpu_simulate_test.engine import MonotonicClock
    from gpu_simulate_test.io.run_dir import open_run_dir
    from gpu_simulate_test.io.workload import load_workload, workload_path
    from gpu_simulate_test.real_bench.backends import create_engine
    from gpu_simulate_test.real_bench.recorded import import_recorded, read_run
    from gpu_simulate_test.real_bench.stage import real_bench

    recorded = read_run(config) if config.backend.name == "recorded" else None  # what is wrong with it comes first
    workload = load_workload(workload_path(config), config.model.id)
    identity = {key: asdict(config)[key] for key in ("model", "hardware", "backend")}
    identity["model"].pop("path")
    if recorded is not None:  # by what is in the file, wherever it lies
        identity["backend"]["requests"] = file_sha256(Path(config.backend.requests or ""))
    path = Path(config.output.root) / "real_runs" / stable_id("real", identity | {"workload": workload.sha256})
    if recorded is not None:
        with open_run_dir(path, overwrite=config.overwrite) as target:
            write_hydra_record(target, record)
            import_recorded(config, record, workload, recorded, path.name, target)
        return path
    real_bench(
        config,
        record,
        workload,
        path,
        lambda clock: create_engine(config.backend, config.model, config.hardware, clock),
        MonotonicClock(),
        lambda target: write_hydra_record(target, record),
    )
    return path


main = stage_main("real_bench", run)

if __name__ == "__main__":
    main()
