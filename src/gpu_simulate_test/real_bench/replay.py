"""Open-loop replay: requests are handed over at their scheduled arrival, whatever the engine is doing."""

from collections.abc import Callable, Sequence

import numpy as np

from gpu_simulate_test.engine import Clock, Engine, EngineRequest, Step
from gpu_simulate_test.serving import serve
from gpu_simulate_test.timeline import Timeline


def replay(
    engine: Engine,
    requests: Sequence[EngineRequest],
    arrival_ns: np.ndarray,
    clock: Clock,
    on_finished: Callable[[int], object] = lambda _count: None,
    on_idle: Callable[[int], object] = lambda _deadline_ns: None,
) -> Timeline:
    """Serve `requests` at `arrival_ns` and record every engine iteration; see `gpu_simulate_test.serving.serve`.

    Parameters
    ----------
    on_finished : callable
        Told how many requests ended in the last step.
    on_idle : callable
        Called when the engine has nothing to do, with the time at which the next request comes.
    """
    engine.forget()
    line = Timeline(len(requests), origin_ns=clock.now_ns())
    steps: list[Step] = []
    for step in serve(engine, requests, arrival_ns, clock, line, on_idle):
        steps.append(step)
        if finished := sum(token.finished for token in step.tokens) + len(step.failures):
            on_finished(finished)
    for step in steps:
        line.add_step(step)
    return line


def warm_up(engine: Engine, requests: Sequence[EngineRequest]) -> None:
    """Serve `requests` to their end and forget them: first-call costs stay out of the measured run."""
    for request in requests:
        engine.submit(request)
    while engine.has_unfinished():
        engine.step()
