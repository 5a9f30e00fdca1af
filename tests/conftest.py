"""Property tests draw few examples, or as many as GST_EXAMPLES says; what takes longest begins first."""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

with suppress(ImportError):  # the tests of tests/manual need pytest only
    from hypothesis import settings

    settings.register_profile("few", max_examples=int(os.environ.get("GST_EXAMPLES", "25")), deadline=None)
    settings.load_profile("few")

if "PYTEST_XDIST_WORKER" in os.environ:  # processes of tests do not wait for each other's measurements
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="gst-", dir="/tmp")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

# Files of tests with the real engine run in one process, where it is imported once and their comparison made once.
_ENGINE = (
    "test_pipeline",
    "test_documented",
    "test_stock_predictor",
    "test_errors",
    "test_security",
    "test_transformers_api",
    "test_transformers_operators",
)
_LONG = ("test_gpu_day", *_ENGINE, "test_reliability", "test_sweep")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes take the files in turn: a long one begun last would leave one of them idle."""
    rank = {stem: number for number, stem in enumerate(_LONG)}
    items.sort(key=lambda item: (rank.get(item.path.stem, len(rank)), item.path.parent.name != "integration"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A process takes whole files, or all of `_ENGINE`."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "engine" if Path(file).stem in _ENGINE else file

    return Scheduling(config, log)
