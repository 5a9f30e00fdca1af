"""Property tests draw few examples, or as many as GST_EXAMPLES says; what takes longest begins first."""

import os

import pytest
from hypothesis import settings

settings.register_profile("few", max_examples=int(os.environ.get("GST_EXAMPLES", "25")), deadline=None)
settings.load_profile("few")

_LONG = ("test_gpu_day", "test_reliability", "test_pipeline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes take the files in turn: a long one begun last would leave one of them idle."""
    items.sort(key=lambda item: (item.path.stem not in _LONG, item.path.parent.name != "integration"))
