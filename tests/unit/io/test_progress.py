"""A bar with the time left where somebody watches, a few lines where nobody does."""

import io
import logging
import os
import pty
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from gpu_simulate_test.cli.logs import log_to_stderr
from gpu_simulate_test.io import progress as module
from gpu_simulate_test.io.progress import Progress, progress, tracked


class Seconds:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, TextIO]]:
    """Where what is seen can be read, and what is to be stderr: set by the test, for pytest sets its own before it."""
    other, own = pty.openpty()
    os.set_blocking(other, False)
    termios.tcsetwinsize(own, (24, 100))
    monkeypatch.setattr(module, "_BAR_AFTER_S", 0.0)
    monkeypatch.setattr(module, "_REDRAW_S", 0.0)
    with os.fdopen(own, "w") as stream:
        yield other, stream
    os.close(other)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_terminal_has_a_bar_with_the_time_left(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    watched, stream = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("serving", 4, "requests") as bar:
        bar.note("repeat 1 of 2")
        for _ in range(3):
            bar.update()
    seen = os.read(watched, 1 << 16).decode()
    assert "serving  75%|" in seen
    assert "3 of 4 requests, 00:00 left, repeat 1 of 2" in seen
    assert "\n" not in seen, "nothing is left of it"


def test_a_line_on_a_terminal_is_above_the_bar(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    watched, stream = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("serving", 4, "requests") as bar:
        bar.update()
        module.say("hot")
        bar.update()
    assert "hot\r\n" in os.read(watched, 1 << 16).decode()


def test_elsewhere_there_is_a_line_at_the_beginning_and_at_each_quarter(caplog: pytest.LogCaptureFixture) -> None:
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        bar = Progress("serving", 1000, "requests", clock=clock)
        for _ in range(1000):
            clock.now += 0.3
            bar.update()
    assert lines_of(caplog) == [
        "serving: 34 of 1000 requests, 4:50 left",
        "serving: 250 of 1000 requests, 3:45 left",
        "serving: 500 of 1000 requests, 2:30 left",
        "serving: 750 of 1000 requests, 1:15 left",
    ]


@pytest.mark.parametrize("took_s", [1.0, 5.0])
def test_what_is_over_soon_needs_none(caplog: pytest.LogCaptureFixture, took_s: float) -> None:
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        bar = Progress("serving", 10, "requests", clock=clock)
        for _ in range(10):
            clock.now += took_s / 10
            bar.update()
    assert lines_of(caplog) == []


def test_a_week_of_which_nobody_knows_how_much_is_left_is_ten_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        bar = Progress("capacity", 1, "decided", clock=clock)
        bar.note("rate_per_s=2")
        while clock.now < 7 * 24 * 3600:
            clock.now += 5
            bar.update(0)
    assert lines_of(caplog)[0] == "capacity: 0 of 1 decided; rate_per_s=2"
    assert len(lines_of(caplog)) < 10


def test_what_was_done_before_does_not_make_it_faster(caplog: pytest.LogCaptureFixture) -> None:
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        bar = Progress("profile", 100, "%", 50, clock)
        clock.now = 20
        bar.update(10)
    assert lines_of(caplog) == ["profile: 60 of 100 %, 1:20 left"]


def test_a_job_of_many_shows_none(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shown", True)
    module.hide()
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        bar = Progress("serving", 2, "requests", clock=clock)
        clock.now = 100
        bar.update()
    assert lines_of(caplog) == []


def test_items_pass_through() -> None:
    assert list(tracked(iter("abc"), "letters", 3, "letters")) == ["a", "b", "c"]


def test_a_log_that_nobody_watches_is_few_lines_and_has_room_for_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.getLogger("gpu_simulate_test")
    before, level = logger.handlers[:], logger.level
    logger.handlers[:] = []
    try:
        log_to_stderr(verbose=False)
        for number in range(20):
            logger.info("line %d", number)
        for number in range(20):
            logger.warning("warning %d", number)
    finally:
        logger.handlers[:] = before
        logger.setLevel(level)
    said = stream.getvalue().splitlines()
    assert said[:6] == [f"line {number}" for number in range(6)]
    assert said[6:] == ["more of this is in stage.log of the run directory", "warning 0"]
