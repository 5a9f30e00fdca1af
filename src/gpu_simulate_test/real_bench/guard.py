"""A guard around an engine: what fails or hangs in it ends the run in one line."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpu_simulate_test.engine import Clock, EngineInfo, EngineRequest, Operators, ProfilableEngine, Step
from gpu_simulate_test.errors import MachineError, StageError, end_process, is_out_of_memory


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Make a MachineError of whatever fails, but for errors that have a line of their own."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StageError) or is_out_of_memory(error):
            raise
        first_line = str(error).strip().partition("\n")[0]
        raise MachineError(
            f"{what} failed: {type(error).__name__}: {first_line}; stage.log of the run has its traceback"
        ) from error


class _GuardedOperators:
    """The operators protocol over operators that may raise."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    def compute(self, name: str, num_tokens: int) -> Callable[[], object]:
        with _in_one_line(f"the operator {name} over {num_tokens} tokens"):
            return self._operators.compute(name, num_tokens)

    def attention(self, batch_size: int, num_tokens: int, kv_cache_size: int) -> Callable[[], object]:
        with _in_one_line(f"attention of {batch_size} sequences, {num_tokens} tokens over {kv_cache_size}"):
            return self._operators.attention(batch_size, num_tokens, kv_cache_size)

    def kv_cache_save(self, num_tokens: int) -> Callable[[], object]:
        with _in_one_line(f"saving {num_tokens} tokens to the KV cache"):
            return self._operators.kv_cache_save(num_tokens)

    def time_ns(self, call: Callable[[], object]) -> int:
        with _in_one_line("an operator"):
            return self._operators.time_ns(call)


class GuardedEngine:
    """The engine protocol over an engine that may raise, hang or tell times that go back.

    Parameters
    ----------
    engine : ProfilableEngine
    clock : Clock
        The one the engine is timed with.
    timeout_s : float
        A request not finished that long after it was handed over ends the run. Between steps that is a MachineError;
        a step that never returns ends the process, up to a fifth later: no exception reaches a thread in native code.
    """

    def __init__(self, engine: ProfilableEngine, clock: Clock, timeout_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._timeout_s = timeout_s
        self._since_ns: dict[int, int] = {}  # of each unfinished request, in order of submission
        self._oldest: tuple[int, int] | None = None  # the first of them, which the other thread reads
        self._last_ns: int | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="engine-guard", daemon=True).start()

    def info(self) -> EngineInfo:
        """Settings in force."""
        return self._engine.info()

    def forget(self) -> None:
        """Let no later request find anything in the KV cache."""
        self._engine.forget()

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; what the engine refuses is not waited for."""
        self._engine.submit(request)
        self._since_ns[request.request_id] = self._clock.now_ns()
        self._oldest = next(iter(self._since_ns.items()))

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""
        return self._engine.has_unfinished()

    def step(self) -> Step:
        """Run one iteration.

        Raises
        ------
        MachineError
            The engine raised, a request is overdue, or the clock went back.
        """
        with _in_one_line("the engine"):
            step = self._engine.step()
        for token in step.tokens:
            if token.finished:
                self._since_ns.pop(token.request_id, None)
        for failure in step.failures:
            self._since_ns.pop(failure.request_id, None)
        self._oldest = next(iter(self._since_ns.items()), None)
        before = step.start_ns if self._last_ns is None else self._last_ns
        if not before <= step.start_ns <= step.end_ns:
            raise MachineError(
                f"the clock went back: a step from {step.start_ns} to {step.end_ns} ns after one that ended at "
                f"{before} ns; times of this machine mean nothing"
            )
        self._last_ns = step.end_ns
        if overdue := self._overdue(self._timeout_s):
            raise overdue
        return step

    def operators(self) -> Operators | None:
        """The engine's operators, if it lets us; a MachineError says which of them fails."""
        operators = self._engine.operators()
        return None if operators is None else _GuardedOperators(operators)

    def close(self) -> None:
        """Free the engine."""
        self._closed.set()
        self._engine.close()

    def _overdue(self, timeout_s: float) -> MachineError | None:
        oldest = self._oldest
        if oldest is None or self._clock.now_ns() - oldest[1] <= timeout_s * 1e9:
            return None
        return MachineError(
            f"request {oldest[0]} is not finished {self._timeout_s:g} s after it was handed over: the engine hangs or "
            "has too much to do; raise request_timeout_s or lower the load"
        )

    def _watch(self) -> None:
        while not self._closed.wait(self._timeout_s / 20):
            if overdue := self._overdue(1.1 * self._timeout_s):  # a step that does return may say so itself
                end_process(overdue)
