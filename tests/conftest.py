"""Property tests draw few examples, or as many as GST_EXAMPLES says; what takes longest begins first."""

import os
from contextlib import suppress

import pytest

with suppress(ImportError):  # the tests of tests/manual need pytest only
    from hypothesis import settings

    settings.register_profile("few", max_examples=int(os.environ.get("GST_EXAMPLES", "25")), deadline=None)
    settings.load_profile("few")

_LONG = ("test_gpu_day", "engine", "test_reliability")
_ENGINE = {"root", "workload_of_a_checkpoint", "owners"}  # fixtures of tests with the real engine


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one file stay in one process, and all with the real engine: it is imported and compared once.

    Processes take the groups in turn: a long one begun last would leave the others idle.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    order = {}
    for item in items:
        group = "engine" if _ENGINE & set(getattr(item, "fixturenames", ())) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
        order[item] = (_LONG.index(group) if group in _LONG else len(_LONG), item.path.parent.name != "integration")
    items.sort(key=lambda item: order[item])
