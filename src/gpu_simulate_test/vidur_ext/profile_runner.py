"""The vidur-profile stage: whatever a source knows of this device, written as a bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_simulate_test.config.schema import VidurProfileConfig
from gpu_simulate_test.io.run_dir import RunDir
from gpu_simulate_test.profiles.bundle import Contents, bundle_dir, write_bundle

KEPT = "measured.json"  # of an interrupted run, to go on from


def profile(config: VidurProfileConfig, fill: Callable[[], Contents], root: Path, run: RunDir) -> dict[str, Any]:
    """Fill a bundle and write it.

    Parameters
    ----------
    fill : callable
        The source: the function `fill` of a module of `gpu_simulate_test.profiles`, its arguments given.
    root : pathlib.Path
        The final profiling root, for the record; `run` is where it is written.

    Returns
    -------
    dict
        The bundle's metadata, ``profile_meta.json``.
    """
    contents = fill()
    path = bundle_dir(run.path, config.hardware.vidur_device, config.model.id)
    meta = write_bundle(path, config, contents)
    title = f"# Profile of {config.model.id} on {config.hardware.name}"
    run.write_text("summary.md", "\n".join([title, "", f"- root: {root.name}", *contents.lines]) + "\n")
    return meta
