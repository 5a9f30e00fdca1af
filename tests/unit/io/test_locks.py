"""A lock is held by one at a time, although its file comes and goes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpu_simulate_test.io.locks import LockedError, locked


def test_one_at_a_time_and_nothing_left(tmp_path: Path) -> None:
    lock, count = tmp_path / ".lock", tmp_path / "count"
    count.write_text("0")

    def add(_: int) -> None:
        with locked(lock, lambda: None):
            count.write_text(str(int(count.read_text()) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(400)))
    assert count.read_text() == "400"
    assert not lock.exists()


def test_who_does_not_wait_is_told(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(LockedError), locked(tmp_path / ".lock"):
        pass
    with locked(tmp_path / ".lock"):
        assert (tmp_path / ".lock").exists()


def test_a_file_that_was_left_behind_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with locked(tmp_path / ".lock"):
        pass
