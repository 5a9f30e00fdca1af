"""Replay: requests are handed over when they are sent, whatever the engine is doing."""

from collections.abc import Callable, Sequence

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.engine import Clock, Engine, EngineRequest, Step
from gpu_simulate_test.serving import serve
from gpu_simulate_test.timeline import Timeline


def replay(
    engine: Engine,
    requests: Sequence[EngineRequest],
    process: ArrivalProcess,
    clock: Clock,
    on_finished: Callable[[int], object] = lambda _count: None,
    on_idle: Callable[[int], object] = lambda _deadline_ns: None,
) -> Timeline:
    """Serve `requests` and record every engine iteration; see `gpu_simulate_test.serving.serve`.

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
    for step in serve(engine, requests, process, clock, line, lambda step: step.ended, on_idle):
        steps.append(step)
        if ended := step.ended:
            on_finished(len(ended))
    for step in steps:
        line.add_step(step)
    return line


def warm_up(engine: Engine, requests: Sequence[EngineRequest]) -> None:
    """Serve `requests` to their end and forget them: first-call costs stay out of the measured run."""
    for request in requests:
        engine.submit(request)
    while engine.has_unfinished():
        engine.step()
