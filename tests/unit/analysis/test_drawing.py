"""The process that draws ends with its work, and says why it could not do it."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpu_simulate_test.analysis.drawing import Artist, Picture

CURVE = (np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.array([1.5]))
PICTURE = Picture("title", "below", "x", "y", {"P50": 0.5}, {"real": CURVE, "sim": CURVE}, (0.0, 3.0), "figures")


def ended(artist: Artist) -> bool:
    try:
        os.kill(artist.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_pictures_come_back_in_their_order_whatever_the_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    with Artist() as artist:
        artist.begin([PICTURE, Picture(*"tbxy", {}, {}, (0.0, 1.0), "why not")])
        images = artist.drawn()
    assert [image[:4] for image in images] == [b"\x89PNG"] * 2
    assert len(images[0]) > len(images[1])
    assert ended(artist)


def test_a_drawing_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"drawing ended with 1: (?s:.*)KeyError"), Artist() as artist:
        artist.begin([replace(PICTURE, curves={"a third side": CURVE})])
        artist.drawn()
    assert ended(artist)


def test_it_ends_with_what_it_was_for_and_hears_no_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), Artist() as artist:
        assert os.getpgid(artist.pid) != os.getpgrp()
        raise KeyboardInterrupt
    assert ended(artist)


def test_a_process_that_was_killed_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="drawing ended with -9"), Artist() as artist:
        os.kill(artist.pid, signal.SIGKILL)
        artist.begin([PICTURE] * 1000)
        artist.drawn()
