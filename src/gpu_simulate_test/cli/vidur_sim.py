"""``vidur-sim``: simulate the workload with Vidur and our predictor."""

import sys
from pathlib import Path

from gpu_simulate_test.cli.app import stage_main
from gpu_simulate_test.cli.inputs import make_profile, make_workload
from gpu_simulate_test.config.ids import stable_id
from gpu_simulate_test.config.schema import HydraRecord, VidurSimConfig


def run(config: VidurSimConfig, record: HydraRecord) -> Path:
    """Simulate the workload that the settings name."""
    from gpu_simulate_test.analysis.run_report import PAGE, write_run_report
    from gpu_simulate_test.io.run_dir import open_run_dir
    from gpu_simulate_test.io.workload import load_workload, workload_path
    from gpu_simulate_test.simulator.real_run import load_real_run
    from gpu_simulate_test.vidur_ext.profiling_root import load_profile

    make_workload(config, record)
    make_profile(config, record)
    workload = load_workload(workload_path(config), config.model.id)
    real = load_real_run(Path(config.real_run_dir), workload) if config.real_run_dir else None
    profile = load_profile(config, real.limits if real else None)

    from gpu_simulate_test.vidur_ext.sim_runner import vidur_sim  # Vidur with it: what is missing is said before

    identity = {
        "workload": workload.sha256,
        "profile": profile.identity(),
        "scheduler": config.vidur.scheduler.name,
        "predictor": config.vidur.predictor.name,
        "loop": config.vidur.loop.name,
        "router": config.vidur.router.name,
        "samples": config.vidur.samples,
        "limits": config.limits.model_dump() if real is None else None,
        "real": [real.limits.model_dump(), real.num_decode_actual.tolist(), real.reference_ns] if real else None,
        "match_speed": config.match_speed,
    }
    if config.vidur.predictor.name == "calibrated":
        identity["calibration"] = profile.calibration
    path = Path(config.output.root) / "vidur_runs" / stable_id("vidur", identity)
    with open_run_dir(path, config, record) as target:
        fields = vidur_sim(config, workload, profile, real, target)
        known = {"run_id": target.name, "model": config.model.id, "params": config.model_dump()} | fields
        write_run_report(target, known, config.slo, config.hardware.price_per_hour)
        target.finish(run_type="vidur", **fields)
    if not record.multirun:
        print(f"report: {(path / PAGE).absolute()}", file=sys.stderr)
    return path


main = stage_main("vidur_sim", run)

if __name__ == "__main__":
    main()
