"""The compare-runs stage: two run directories in, tables, plots and reports out."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.drawing import Artist
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.analysis.pictures import picture_paths, pictures, write_pictures
from gpu_simulate_test.analysis.report import headline, verdict_line, write_report
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.progress import progress
from gpu_simulate_test.io.run_dir import RunDir, ended_at, newest_runs, read_run_meta, repeat_dirs

_log = logging.getLogger(__name__)
_STEPS = 4  # besides reading the repeats: the simulated run read, compared, written, drawn


def compare_runs(
    real_dir: Path,
    sim_dir: Path,
    run: RunDir,
    *,
    tolerance: float = 0.05,
    allow_mismatch: bool = False,
    slo: SloConfig | None = None,
) -> Assessment:
    """Compare two finished runs and write everything but the metadata file.

    Parameters
    ----------
    real_dir, sim_dir : Path
        Finished run directories; the real run's repeats are found beside it.
    run : RunDir
        The directory being written.
    tolerance : float
        A relative error up to this is good enough.
    allow_mismatch : bool
        See `gpu_simulate_test.analysis.compare.compare`.
    slo : SloConfig, optional
        Objectives to hold the requests against.

    Returns
    -------
    Assessment

    Raises
    ------
    ArtifactError
        A run is missing, incomplete or contradicts itself, or the two cannot be compared.
    MachineError
        The directory cannot be written.
    """
    plots = run.path / "plots"
    steps = len(repeat_dirs(real_dir, read_run_meta(real_dir))) + _STEPS
    with progress("compare-runs", steps, "steps") as bar, Artist() as artist, ThreadPoolExecutor(1) as pool:
        of_sim = pool.submit(load_run, sim_dir, "vidur")
        repeats, sim = load_repeats(real_dir, bar.update), of_sim.result()
        bar.update()
        assessment = assess(
            repeats,
            sim,
            tolerance=tolerance,
            allow_mismatch=allow_mismatch,
            slo=slo,
            compared=lambda comparison: artist.begin(pictures(comparison)),
        )
        bar.update()
        plots.mkdir(parents=True, exist_ok=True)
        write_report(assessment, repeats[0], sim, run, picture_paths(plots))
        bar.update()
        write_pictures(plots, artist.drawn())
    _log.info(headline(assessment))
    _log.info("verdict: %s", verdict_line(assessment))
    for note in assessment.comparison.notes:
        _log.info(note)
    return assessment


def load_repeats(real_dir: Path, loaded: Callable[[], object] = lambda: None) -> list[Run]:
    """Read a real run and the repeats it names, itself first; of these, the tokens of one at a time are held.

    Parameters
    ----------
    loaded : callable
        Called after each.

    Raises
    ------
    ArtifactError
        One of them is missing, incomplete or contradicts itself.
    """
    runs = [load_run(real_dir, "real")]
    loaded()
    for path in repeat_dirs(real_dir, runs[0].meta)[1:]:
        runs.append(load_run(path, "real").without_tokens())
        loaded()
    return runs


def find_pair(
    output_root: Path, real_dir: Path | None, sim_dir: Path | None, workload_sha256: str | None = None
) -> tuple[Path, Path]:
    """Find what the user did not name: the newest finished runs of one workload.

    Parameters
    ----------
    output_root : Path
        Holds ``real_runs`` and ``vidur_runs``.
    real_dir, sim_dir : Path, optional
        Runs the user named; the other one is looked up by its workload.
    workload_sha256 : str, optional
        Consider this workload only; otherwise that of the run that ended last among those with a partner.

    Returns
    -------
    real_dir, sim_dir : Path

    Raises
    ------
    ArtifactError
        There is no such pair.
    """
    if real_dir is not None and sim_dir is not None:
        return real_dir, sim_dir
    given = real_dir or sim_dir
    if given is not None:
        workload_sha256 = read_run_meta(given).get("workload_sha256")
        if not workload_sha256:
            raise ArtifactError(f"unknown workload: {given}; name both real_run_dir and sim_run_dir")
    real = {} if real_dir else _newest_of_each(output_root / "real_runs", "real", "real-bench", workload_sha256)
    sim = {} if sim_dir else _newest_of_each(output_root / "vidur_runs", "vidur", "vidur-sim", workload_sha256)
    if given is not None:
        ((found, _ended),) = (sim or real).values()
        return (given, found) if real_dir else (found, given)
    shared = real.keys() & sim.keys()
    if not shared:
        newest = max(real.values(), key=lambda item: item[1])[0]
        raise ArtifactError(f"no simulated run of the same workload: {newest}; run vidur-sim on its workload first")
    workload = max(shared, key=lambda digest: max(real[digest][1], sim[digest][1]))
    return real[workload][0], sim[workload][0]


def _newest_of_each(
    folder: Path, run_type: str, stage: str, workload_sha256: str | None
) -> dict[str, tuple[Path, datetime]]:
    """Newest finished run of each workload, or of the one asked for, with when it ended."""
    found: dict[str, tuple[Path, datetime]] = {}
    for path, meta in newest_runs(folder, run_type):
        digest = meta.get("workload_sha256")
        if digest and workload_sha256 in (None, digest):
            found.setdefault(str(digest), (path, ended_at(meta)))
    if not found:
        which = f" of workload {workload_sha256[:12]}" if workload_sha256 else ""
        raise ArtifactError(f"no finished {run_type} run{which}: {folder}; run {stage} first")
    return found
