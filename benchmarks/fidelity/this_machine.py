"""Engines measured here, on this machine's CPU: the demo's tiny model, two workloads each, a few repeats."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.fidelity.board import Case, Row, absent
from benchmarks.fidelity.deployment import Deployment
from benchmarks.stages import StageFailed

_SETTINGS = (
    "experiment=cpu_demo",
    "workload=synthetic",
    "workload.num_requests=40",
    "workload.num_prefill_tokens=200",
    "workload.num_decode_tokens=32",
)
_VERSION = "import importlib.metadata as m, sys; print(m.version(m.packages_distributions()[sys.argv[1]][0]))"
_MEASURING = ("repeats=3",)
_RATES = {"transformers": (3, 2), "vllm": (8, 4)}  # requests a second: an engine's share of what it can serve
_NAMES = {"transformers": "transformers", "vllm": "vLLM"}


def cases(scratch: Path) -> list[Case]:
    """A row a workload of each engine."""
    return [case for backend in _RATES for case in _cases(backend, scratch)]


def _cases(backend: str, scratch: Path) -> list[Case]:
    python = interpreter(backend)
    if not python.is_file():
        return absent(f"this machine, {_NAMES[backend]}", f"{python.parents[1].name} (`make {backend}`)")
    settings = (*_SETTINGS, f"backend={backend}")
    deployment = Deployment(scratch / backend, settings, _MEASURING, str(python))
    runs = [
        deployment.run(
            f"this machine, {_NAMES[backend]}, {rate} a second",
            f"workload.arrival.rate_per_s={rate}",
            f"workload.seed={seed}",
        )
        for seed, rate in enumerate(_RATES[backend])
    ]
    engine = f"{_NAMES[backend]} {version(backend, python)}"
    row = Row("", "1 CPU core", "tiny Qwen3", engine, f"{_NAMES[backend]} on a CPU")
    labels = [f"{_NAMES[backend]}, {rate} a second" for rate in _RATES[backend]]
    pairs = zip(runs, reversed(runs), labels, reversed(labels), strict=True)
    return [
        Case(replace(row, run=label, donor=donor), run.plain, partial(run.calibrated_on, other))
        for run, other, label, donor in pairs
    ]


def interpreter(backend: str) -> Path:
    """Of the environment that has the engine: vLLM's is beside ours."""
    return Path(sys.prefix).with_name(".venv-vllm") / "bin" / "python" if backend == "vllm" else Path(sys.executable)


def version(package: str, python: Path) -> str:
    """Of an installed engine.

    Raises
    ------
    StageFailed
        It is not installed there.
    """
    done = subprocess.run([str(python), "-c", _VERSION, package], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageFailed(f"{package} is not installed for {python}")
    return done.stdout.strip()
