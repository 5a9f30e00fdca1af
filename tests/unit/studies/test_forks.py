"""A job's process answers, or its end is told; the next job has one of its own."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_simulate_test.studies.forks import Forks, StoppedError


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    one = Forks("tests.support.forked:work", ["json"], {"PYTHONPATH": os.pathsep.join(sys.path)})
    yield one
    one.close()


def test_it_answers_from_a_process_of_its_own_as_the_caller_is(
    forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = set()
    for value in ("a", "b"):
        monkeypatch.setenv("GST_TEST", value)
        status, answer = forks.run({"text": "x\n" * 100_000})
        assert (status, answer["text"], answer["folder"]) == (0, "x\n" * 100_000, str(tmp_path))
        assert answer["variable"] == value
        seen.add(answer["process"])
    assert len(seen | {os.getpid()}) == 3


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_its_death_is_told(forks: Forks, name: str) -> None:
    assert forks.run({"killed_by": name}) == (-signal.Signals[name], None)
    assert forks.run({})[0] == 0


def test_so_is_a_bug(forks: Forks) -> None:
    assert forks.run({"raises": True}) == (1, None)


def test_what_it_said_before_it_ended_counts(forks: Forks) -> None:
    status, answer = forks.run({"exits": 4})
    assert (status, answer["exits"]) == (4, 4)


def test_it_ends_when_nobody_wants_it(forks: Forks) -> None:
    with pytest.raises(StoppedError):
        forks.run({"seconds": 60}, lambda: False)
    assert forks.run({})[0] == 0
