"""The vidur-profile stage: whatever a source knows of this device, written as a bundle."""

from pathlib import Path

from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.io.run_dir import OpenRunDir
from gpu_simulate_test.profiles.bundle import Contents, bundle_dir, write_bundle

KEPT = "measured.json"  # of an interrupted run, to go on from


def profile(config: VidurProfileConfig, contents: Contents, run: OpenRunDir) -> None:
    """Write a bundle and, last, the metadata of the profiling root that it lies in.

    Parameters
    ----------
    contents : Contents
        From the function `fill` of a module of `gpu_simulate_test.profiles`.
    """
    path = bundle_dir(run.path, config.hardware.vidur_device, config.model.id)
    meta = write_bundle(path, config, contents)
    title = f"# Profile of {config.model.id} on {config.hardware.name}"
    run.write_text("summary.md", "\n".join([title, "", f"- root: {run.name}", *contents.lines]) + "\n")
    run.finish(
        run_type="vidur_profile",
        run_id=f"{config.hardware.name}-{config.model.name}-{config.backend.name}",
        profiling_root=str(Path(config.vidur.profiling.root).absolute()),
        held_out=meta.get("held_out", {}),
    )
