"""Where the tests that need Sarathi-Serve find it."""

import os
import sys
from pathlib import Path

import pytest

_NEEDED = ("ray", "zmq", "torch", "transformers", "google.protobuf")


def checkout_or_skip() -> Path:
    """The checkout that SARATHI_SRC names."""
    if "SARATHI_SRC" not in os.environ:
        pytest.skip("SARATHI_SRC does not name a checkout of Sarathi-Serve")
    return Path(os.environ["SARATHI_SRC"])


def importable_or_skip() -> None:
    """Make ``import sarathi`` find it, where what it needs is installed."""
    checkout = checkout_or_skip()
    for package in _NEEDED:
        pytest.importorskip(package, reason=f"Sarathi-Serve needs {package}, which is not installed")
    if int(sys.modules["transformers"].__version__.split(".")[0]) >= 5:
        pytest.skip("Sarathi-Serve needs transformers below 5")
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # Ray's processes look there
