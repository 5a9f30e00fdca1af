"""How fast the machine is: one fixed little burst, timed over and over on the engine at hand.

A shared machine's speed was seen to jump by 20 to 45 % for seconds at a time. A burst knows nothing of
the workload, so two times of it tell two states of one machine apart, and nothing else.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Clock, Engine, EngineRequest

_SHARE = 20  # bursts take a twentieth of the time
_MARGIN = 3  # a burst is begun only when this many would fit before the deadline
_SAMPLES, _SAMPLES_LIMIT_NS = 3, 1_000_000_000


@dataclass
class ReferenceBursts:
    """Reference bursts over time.

    Attributes
    ----------
    times_ns, burst_ns : list of int
        When each burst ended, and how long its iterations took.
    """

    times_ns: list[int] = field(default_factory=list)
    burst_ns: list[int] = field(default_factory=list)

    def sample(self, engine: Engine, clock: Clock) -> None:
        """Time three bursts in a row, or fewer where they take long."""
        total = 0
        for _ in range(_SAMPLES):
            self._burst(engine, clock)
            total += self.burst_ns[-1]
            if total >= _SAMPLES_LIMIT_NS:
                break

    def watch(self, engine: Engine, clock: Clock, deadline_ns: int | None = None) -> None:
        """Time a burst on an idle engine, unless the last one is recent or it might not end before the deadline.

        What the engine has in its KV cache is lost.
        """
        if self.times_ns:
            now, last = clock.now_ns(), self.burst_ns[-1]
            if now - self.times_ns[-1] < _SHARE * last:
                return
            if deadline_ns is not None and deadline_ns - now < _MARGIN * last:
                return
        self._burst(engine, clock)

    def _burst(self, engine: Engine, clock: Clock) -> None:
        engine.forget()
        for index in range(2):
            engine.submit(EngineRequest(-1_000_000 - index, [3 + index, *range(4, 67)], 8))  # sharing no beginning
        total = 0
        while engine.has_unfinished():
            step = engine.step()
            total += step.end_ns - step.start_ns
        self.burst_ns.append(total)
        self.times_ns.append(clock.now_ns())

    @property
    def reference_ns(self) -> int:
        """The mean burst without its slowest and fastest twentieth: how long things take on this machine.

        Not the median: a machine of two speeds would be described by one of them.
        """
        cut = len(self.burst_ns) // 20
        return round(float(np.mean(sorted(self.burst_ns)[cut : len(self.burst_ns) - cut])))

    def slowness(self, time_ns: np.ndarray) -> np.ndarray:
        """How much slower than the mean the machine was, shape (n,); a running median of 3 bursts."""
        smooth = pd.Series(self.burst_ns).rolling(3, center=True, min_periods=1).median().to_numpy()
        slowness: np.ndarray = np.interp(time_ns, self.times_ns, smooth) / self.reference_ns
        return slowness
