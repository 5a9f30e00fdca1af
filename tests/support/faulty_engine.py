"""A stage on an engine that goes wrong: ``python -m tests.support.faulty_engine STAGE WAY overrides...``."""

import ctypes
import datetime
import importlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from gpu_simulate_test.engine import Clock, ProfilableEngine, Step
from gpu_simulate_test.io import provenance
from gpu_simulate_test.real_bench import backends
from tests.support.virtual_engine import VirtualClock, VirtualEngine

WAYS = ("works", "raises", "memory", "hangs", "loops", "stalls", "waits", "dies", "clock goes back", "clock jumps")


class FaultyEngine(VirtualEngine):
    """Serves the warm-up and a first token of the workload; then the named thing happens."""

    def __init__(self, way: str, clock: Clock) -> None:
        super().__init__(VirtualClock())
        self.way = way
        self.real_clock = clock

    def step(self) -> Step:
        start = self.real_clock.now_ns()
        if any(state.request.request_id >= 0 and state.made for state in self.running):
            if self.way == "raises":
                raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA.")
            if self.way == "memory":
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            if self.way == "hangs":
                ctypes.CDLL(None).pause()  # native code, which no exception reaches
            if self.way == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "waits":
                time.sleep(3600)
            while self.way == "loops":
                pass
            if self.way == "stalls":
                time.sleep(0.01)
                return Step(start, self.real_clock.now_ns(), [], [])
            if self.way == "clock goes back":
                start -= 3_600_000_000_000
        return replace(super().step(), start_ns=start, end_ns=self.real_clock.now_ns())

    def close(self) -> None:
        if self.way == "waits":
            time.sleep(3)


class JumpingDatetime(datetime.datetime):
    """A wall clock that falls back an hour whenever somebody looks at it."""

    _looks = itertools.count()

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "JumpingDatetime":
        return super().now(tz) - datetime.timedelta(hours=next(cls._looks))


def create(way: str) -> Callable[..., ProfilableEngine]:
    """What takes the place of `create_engine`."""
    return lambda _backend, _limits, _model, _hardware, clock: FaultyEngine(way, clock)


def main() -> None:
    """Put the engine in and run the command."""
    stage, way = sys.argv.pop(1), sys.argv.pop(1)
    assert way in WAYS
    backends.create_engine = create(way)
    if way == "clock jumps":
        provenance.datetime = JumpingDatetime  # type: ignore
        time.time = lambda: JumpingDatetime.now(datetime.UTC).timestamp()
        time.time_ns = lambda: int(time.time() * 1e9)
    importlib.import_module(f"gpu_simulate_test.cli.{stage}").main()


if __name__ == "__main__":
    main()
