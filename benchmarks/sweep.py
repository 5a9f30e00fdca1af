"""One sweep of simulations by each of Hydra's launchers on two cores: how much sooner than one job after another.

Every launcher has a folder of results of its own, so each makes workloads, profile and runs anew; what is said of the
sweeps must be the same, byte for byte.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.table import Row, Scale
from benchmarks.timing import measured
from gpu_simulate_test.config.paths import project_root

SWEEP = ("experiment=h100_llama_70b", "slo.e2e_ms=60000", "limits.max_num_batched_tokens=1024,2048")
AXES = {
    "quick": ("workload.num_requests=200", "workload.arrival.rate_per_s=2,4"),
    "full": ("workload.num_requests=16000", "workload.arrival.rate_per_s=2,3,4,5", "limits.max_num_seqs=32,64,128"),
}
LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "ray": ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"),
    "submitit_slurm": (),
}


def rows(scale: Scale) -> Iterator[Row]:
    """A row a launcher."""
    jobs = 24 if scale == "full" else 4
    basic_s, said = 0.0, ""
    for launcher, settings in LAUNCHERS.items():
        what = f"a sweep of {jobs} simulations, `hydra/launcher={launcher}`"
        if launcher == "submitit_slurm" and (os.geteuid() or not shutil.which("slurmctld")):
            yield Row(what, "not measured: needs root and slurm-wlm")
            continue
        with tempfile.TemporaryDirectory() as root, _slurm(launcher) as environment:
            command = [sys.executable, "-m", "gpu_simulate_test.cli.vidur_sim", "-m", *SWEEP, *AXES[scale]]
            command += [f"hydra/launcher={launcher}", *settings, f"output.root={root}"]
            took_s = measured(command, env=environment).wall_s
            found = _said(Path(root))
        if launcher == "basic":
            basic_s, said = took_s, found
            yield Row(what, f"{took_s:.1f} s")
        else:
            same = "the same bytes" if found == said else "other bytes"
            at_least = 1.7 if scale == "full" else None
            figure = f"{took_s:.1f} s, one after another {basic_s:.1f} s; {same}"
            yield Row(f"{what}, on two cores", figure, ratio=basic_s / took_s, at_least=at_least)


def _said(root: Path) -> str:
    """A digest of all files of the only sweep in a folder of results."""
    (folder,) = root.glob("sweeps/sweep_*")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


@contextmanager
def _slurm(launcher: str) -> Iterator[dict[str, str]]:
    """The environment of a launcher's process: of SLURM's, one node of two processors, while it is needed."""
    if launcher != "submitit_slurm":
        yield dict(os.environ)
        return
    script = ["bash", str(project_root() / "scripts" / "slurm_one_node.sh")]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*script, "start", folder, "2"], check=True, stdout=subprocess.DEVNULL)
        try:
            yield os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
        finally:
            subprocess.run([*script, "stop", folder], check=True)
