"""One small comparison, made once and read by many tests."""

import subprocess
from pathlib import Path

import pytest

from tests.support.commands import SMALL, run, run_dir


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output root whose name has a space and letters beyond ASCII."""
    return tmp_path_factory.mktemp("Läufe und mehr")


@pytest.fixture(scope="session")
def settings(root: Path) -> tuple[str, ...]:
    return (*SMALL, f"output.root={root}")


@pytest.fixture(scope="session")
def said() -> dict[str, str]:
    """What each of the commands below wrote on stderr, which is no terminal."""
    return {}


def kept(said: dict[str, str], done: subprocess.CompletedProcess[str]) -> Path:
    said[done.args[0]] = done.stderr
    return run_dir(done)


@pytest.fixture(scope="session")
def workload(settings: tuple[str, ...], said: dict[str, str]) -> Path:
    return kept(said, run("workload-spec", *settings))


@pytest.fixture(scope="session")
def real(settings: tuple[str, ...], workload: Path, said: dict[str, str]) -> Path:
    return kept(said, run("real-bench", *settings, "repeats=2"))


@pytest.fixture(scope="session")
def profile(settings: tuple[str, ...], workload: Path, said: dict[str, str]) -> Path:
    return kept(said, run("vidur-profile", *settings))


@pytest.fixture(scope="session")
def sim(settings: tuple[str, ...], real: Path, profile: Path, said: dict[str, str]) -> Path:
    return kept(said, run("vidur-sim", *settings, f"real_run_dir={real}"))


@pytest.fixture(scope="session")
def comparison(settings: tuple[str, ...], real: Path, sim: Path, said: dict[str, str]) -> Path:
    return kept(said, run("compare-runs", *settings))
