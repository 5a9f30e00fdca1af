"""``workload-spec``: prompts and an arrival schedule, byte for byte reproducible."""

from pathlib import Path

from gpu_simulate_test.cli.app import stage_main
from gpu_simulate_test.config.schema import HydraRecord, WorkloadSpecConfig


def run(config: WorkloadSpecConfig, record: HydraRecord) -> Path:
    """Write the workload that the settings name."""
    from gpu_simulate_test.io.run_dir import WORKLOAD_META, open_run_dir
    from gpu_simulate_test.io.workload import workload_path
    from gpu_simulate_test.workloads.spec import write_workload

    path = workload_path(config)
    with open_run_dir(path, config, record, meta=WORKLOAD_META) as target:
        write_workload(config, target)
    return path


main = stage_main("workload_spec", run)

if __name__ == "__main__":
    main()
