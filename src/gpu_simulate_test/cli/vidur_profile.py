"""``vidur-profile``: time the engine's operators and whole iterations on this device, and learn from real runs."""

from pathlib import Path

from gpu_simulate_test.cli.app import stage_main
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import HydraRecord, VidurProfileConfig
from gpu_simulate_test.errors import ConfigError


def run(config: VidurProfileConfig, record: HydraRecord) -> Path:
    """Profile the engine that the settings name, and calibrate the profile where they name real runs."""
    from gpu_simulate_test.io.run_dir import is_finished

    root = Path(config.vidur.profiling.root)
    paths = [Path(one) for one in config.calibration.run_dirs]
    limits = [_limits_of(path) for path in paths]  # before anything is measured
    if not paths or not is_finished(root):
        _profile(config, record, root)
    if paths:
        from gpu_simulate_test.calibration.stage import calibrate
        from gpu_simulate_test.vidur_ext.profiling_root import load_profile

        calibrate(config, [load_profile(config, one) for one in limits], paths)
    return root


def _limits_of(path: Path) -> EngineLimits:
    """Those of a real run."""
    from gpu_simulate_test.io.run_dir import read_run_meta
    from gpu_simulate_test.simulator.real_run import limits_of

    return limits_of(path, read_run_meta(path))


def _profile(config: VidurProfileConfig, record: HydraRecord, root: Path) -> None:
    from gpu_simulate_test.engine import MonotonicClock
    from gpu_simulate_test.io.run_dir import open_run_dir
    from gpu_simulate_test.io.workload import load_workload, workload_path
    from gpu_simulate_test.profiles import llmservingsim, measured, operator_db
    from gpu_simulate_test.real_bench.backends import running_engine
    from gpu_simulate_test.vidur_ext.profile_runner import KEPT, profile
    from gpu_simulate_test.vidur_ext.profiling_root import check_owner

    measuring = config.profile.source == "measured"
    if measuring and config.backend.name == "recorded":
        raise ConfigError("backend=recorded serves nothing that could be measured; choose another profile or backend")
    workload = load_workload(workload_path(config), config.model.id) if measuring else None
    check_owner(root, config)
    with open_run_dir(root, config, record, keep=KEPT) as target:
        if config.profile.source == "operator_db":
            contents = operator_db.fill(config)
        elif workload is None:
            contents = llmservingsim.fill(config)
        else:
            clock = MonotonicClock()
            with running_engine(config, clock) as engine:
                contents = measured.fill(config, workload, engine, clock, target.path / KEPT)
        profile(config, contents, target)


main = stage_main("vidur_profile", run)

if __name__ == "__main__":
    main()
