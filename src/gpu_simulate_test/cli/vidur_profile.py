"""``vidur-profile``: time the engine's operators and whole iterations on this device."""

from functools import partial
from pathlib import Path

from gpu_simulate_test.cli.app import stage_main, write_hydra_record
from gpu_simulate_test.config.schema import HydraRecord, VidurProfileConfig


def run(config: VidurProfileConfig, record: HydraRecord) -> Path:
    """Profile the engine that the settings name."""
    from gpu_simulate_test.engine import MonotonicClock
    from gpu_simulate_test.io.provenance import now, run_meta
    from gpu_simulate_test.io.run_dir import open_run_dir
    from gpu_simulate_test.io.workload import load_workload, workload_path
    from gpu_simulate_test.profiles import llmservingsim, measured
    from gpu_simulate_test.real_bench.backends import create_engine
    from gpu_simulate_test.real_bench.guard import GuardedEngine
    from gpu_simulate_test.vidur_ext.profile_runner import KEPT, profile
    from gpu_simulate_test.vidur_ext.profiling_root import check_owner

    recorded = config.backend.name == "recorded"
    workload = None if recorded else load_workload(workload_path(config), config.model.id)
    root = Path(config.vidur.profiling.root)
    check_owner(root, config)
    with open_run_dir(root, overwrite=config.overwrite, keep=KEPT) as target:
        write_hydra_record(target, record)
        started = now()
        if workload is None:
            meta = profile(config, partial(llmservingsim.fill, config), root, target)
        else:
            clock = MonotonicClock()
            started_engine = create_engine(config.backend, config.model, config.hardware, clock)
            engine = GuardedEngine(started_engine, clock, config.request_timeout_s)
            try:
                source = partial(measured.fill, config, workload, engine, clock, target.path / KEPT)
                meta = profile(config, source, root, target)
            finally:
                engine.close()
        target.finish(
            run_meta(
                f"{config.hardware.name}-{config.model.name}-{config.backend.name}",
                "vidur_profile",
                config,
                record,
                started,
                profiling_root=str(root.absolute()),
                held_out=meta.get("held_out", {}),
            )
        )
    return root


main = stage_main("vidur_profile", run)

if __name__ == "__main__":
    main()
