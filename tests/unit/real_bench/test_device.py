"""Two measurements on one device come one after the other."""

import logging
import tempfile
import threading
from pathlib import Path

import pytest

from gpu_simulate_test.real_bench.device import alone_on
from tests.support.configs import typed_config


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_second_waits_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    hardware = typed_config("real_bench", "experiment=cpu_demo").hardware
    order = []

    def second() -> None:
        with alone_on(hardware):
            order.append("second")

    caplog.set_level(logging.WARNING)
    with alone_on(hardware):
        thread = threading.Thread(target=second)
        thread.start()
        while not caplog.records:
            thread.join(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert caplog.messages == ["waiting for cpu: something else is being measured on it"]


def test_devices_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cpu = typed_config("real_bench", "experiment=cpu_demo").hardware
    gpu = typed_config("real_bench", "hardware=h100").hardware
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with alone_on(cpu), alone_on(gpu):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a/../b")
        with alone_on(gpu):
            pass
    assert caplog.messages == []
