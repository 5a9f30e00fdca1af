"""Open-loop replay: requests are handed over at their scheduled arrival, whatever the engine is doing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpu_simulate_test.engine import Clock, Engine, EngineRequest, Failure, Step


@dataclass
class Recording:
    """What a replay saw; every time is relative to the run's start, in ns."""

    start_ns: int
    submit_ns: dict[int, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def replay(
    engine: Engine,
    requests: Sequence[EngineRequest],
    arrival_ns: np.ndarray,
    clock: Clock,
    on_finished: Callable[[int], object] = lambda _count: None,
    on_idle: Callable[[int], object] = lambda _deadline_ns: None,
) -> Recording:
    """Serve `requests` at `arrival_ns` and record every engine iteration.

    An engine that steps in our thread cannot be handed a request in the middle of a step: what arrives
    meanwhile is handed over when the step ends. Latency counts from the scheduled arrival all the same.

    Parameters
    ----------
    requests : sequence of EngineRequest
        In order of arrival.
    arrival_ns : numpy.ndarray of shape (n_requests,), int64
        Relative to the run's start, never decreasing.
    on_finished : callable
        Told how many requests ended in the last step.
    on_idle : callable
        Called when the engine has nothing to do, with the time at which the next request comes.

    Returns
    -------
    Recording
    """
    recording = Recording(start_ns=clock.now_ns())
    arrivals = [recording.start_ns + int(offset) for offset in arrival_ns]
    index = 0
    while index < len(requests) or engine.has_unfinished():
        while index < len(requests) and arrivals[index] <= clock.now_ns():
            _submit(engine, requests[index], clock, recording)
            index += 1
        if engine.has_unfinished():
            step = engine.step()
            recording.steps.append(step)
            recording.failures.extend(step.failures)
            finished = sum(token.finished for token in step.tokens) + len(step.failures)
            if finished:
                on_finished(finished)
        elif index < len(requests):
            on_idle(arrivals[index])
            clock.sleep_until_ns(arrivals[index])
    return recording


def _submit(engine: Engine, request: EngineRequest, clock: Clock, recording: Recording) -> None:
    recording.submit_ns[request.request_id] = clock.now_ns() - recording.start_ns
    try:
        engine.submit(request)
    except (ValueError, RuntimeError) as error:  # the engine's refusal of this request, not its end
        recording.failures.append(Failure(request.request_id, type(error).__name__, str(error)))


def warm_up(engine: Engine, requests: Sequence[EngineRequest]) -> None:
    """Serve `requests` to their end and forget them: first-call costs stay out of the measured run."""
    for request in requests:
        engine.submit(request)
    while engine.has_unfinished():
        engine.step()
