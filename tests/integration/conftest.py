"""One small comparison, made once and read by many tests."""

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
def workload(settings: tuple[str, ...]) -> Path:
    return run_dir(run("workload-spec", *settings))


@pytest.fixture(scope="session")
def real(settings: tuple[str, ...], workload: Path) -> Path:
    return run_dir(run("real-bench", *settings, "repeats=2"))


@pytest.fixture(scope="session")
def profile(settings: tuple[str, ...], workload: Path) -> Path:
    return run_dir(run("vidur-profile", *settings))


@pytest.fixture(scope="session")
def sim(settings: tuple[str, ...], real: Path, profile: Path) -> Path:
    return run_dir(run("vidur-sim", *settings, f"real_run_dir={real}"))


@pytest.fixture(scope="session")
def comparison(settings: tuple[str, ...], real: Path, sim: Path) -> Path:
    return run_dir(run("compare-runs", *settings))
