"""What fails or hangs in an engine is one error, and what does not is let through as it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Step
from gpu_simulate_test.errors import ConfigError, MachineError
from gpu_simulate_test.real_bench.guard import GuardedEngine
from gpu_simulate_test.real_bench.replay import replay, warm_up
from tests.support.virtual_engine import VirtualClock, VirtualEngine, requests_of

HOUR_S = 3600.0


@dataclass
class Scripted(VirtualEngine):
    """A virtual engine with something done in each step, before it or instead of it."""

    script: Callable[["Scripted"], Step | None] = lambda _engine: None

    def step(self) -> Step:
        return self.script(self) or super().step()


@pytest.fixture
def guard() -> Iterator[Callable[..., GuardedEngine]]:
    made: list[GuardedEngine] = []

    def make(script: Callable[[Scripted], Step | None], timeout_s: float = HOUR_S) -> GuardedEngine:
        clock = VirtualClock()
        made.append(GuardedEngine(Scripted(clock, script=script), clock, timeout_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


def raising(error: Exception) -> Callable[[Scripted], Step | None]:
    def script(_engine: Scripted) -> Step | None:
        raise error

    return script


def test_an_engine_that_raises_is_one_line(guard: Callable[..., GuardedEngine]) -> None:
    with pytest.raises(MachineError, match=r"the engine failed: KeyError: 'seq 7'; stage\.log") as caught:
        warm_up(guard(raising(KeyError("seq 7"))), requests_of([(4, 2)]))
    assert isinstance(caught.value.__cause__, KeyError), "the log shows where"


def test_an_operator_that_raises_is_one_line() -> None:
    class Failing(VirtualEngine):
        def operators(self) -> Any:
            return self

        def compute(self, name: str, num_tokens: int) -> Callable[[], object]:
            raise AttributeError("no q_norm")

        def time_ns(self, call: Callable[[], object]) -> int:
            call()
            return 1

    clock = VirtualClock()
    engine = GuardedEngine(Failing(clock), clock, HOUR_S)
    operators = engine.operators()
    assert operators is not None
    with pytest.raises(MachineError, match=r"the operator add over 8 tokens failed: AttributeError: no q_norm; stage"):
        operators.compute("add", 8)
    with pytest.raises(MachineError, match=r"an operator failed: ZeroDivisionError"):
        operators.time_ns(lambda: 1 // 0)
    engine.close()


@pytest.mark.parametrize("error", [ConfigError("ours"), MemoryError(), RuntimeError("CUDA out of memory. Tried")])
def test_errors_that_have_a_line_of_their_own_pass(guard: Callable[..., GuardedEngine], error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        warm_up(guard(raising(error)), requests_of([(4, 2)]))
    assert caught.value is error


def idle(engine: Scripted) -> Step:
    start = engine.clock.now_ns()
    engine.clock.time_ns += 1_000_000_000
    return Step(start, engine.clock.now_ns(), [], [])


def test_an_engine_that_steps_and_never_finishes_is_given_up(guard: Callable[..., GuardedEngine]) -> None:
    engine = guard(idle, timeout_s=30)
    with pytest.raises(MachineError, match=r"request 0 is not finished 30 s after .*request_timeout_s"):
        warm_up(engine, requests_of([(4, 2), (4, 2)]))


def test_a_long_run_of_requests_that_do_finish_is_not(guard: Callable[..., GuardedEngine]) -> None:
    def slow(engine: Scripted) -> None:
        engine.clock.time_ns += 5_000_000_000

    engine = guard(slow, timeout_s=30)
    line = replay(engine, requests_of([(4, 4)] * 10), ArrivalProcess.at(np.arange(10) * 25_000_000_000), VirtualClock())
    assert line.token_counts().sum() == 40


def test_a_refused_request_is_not_waited_for() -> None:
    clock = VirtualClock()
    engine = GuardedEngine(VirtualEngine(clock, refuse=frozenset({0})), clock, 30)
    line = replay(engine, requests_of([(4, 2)] * 2), ArrivalProcess.at(np.array([0, 60_000_000_000])), clock)
    engine.close()
    assert list(line.failures) == [0]


def test_a_clock_that_goes_back_is_noticed(guard: Callable[..., GuardedEngine]) -> None:
    def rewind(engine: Scripted) -> None:
        if any(state.made for state in engine.running):
            engine.clock.time_ns -= 1_000_000_000

    with pytest.raises(MachineError, match="the clock went back"):
        warm_up(guard(rewind), requests_of([(4, 3)]))
