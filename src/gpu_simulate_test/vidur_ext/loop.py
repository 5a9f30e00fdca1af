"""The loop that serves a simulation's requests: our core, held to Vidur's own on the first of them, or Vidur's own."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.simulator.sarathi import SarathiCore
from gpu_simulate_test.simulator.timeline import Ints, Timeline
from gpu_simulate_test.vidur_ext.simulation import SimSettings, simulate

log = logging.getLogger(__name__)

Step = Callable[[Composition, float, Any], float]
"""Time of a batch, ns, from its composition, when it begins, s, and Vidur's own batch where there is one."""

_CHECKED_REQUESTS, _CHECKED_TOKENS = 300, 40_000  # less than a second of Vidur's loop


class Loop:
    """Runs simulations of one workload.

    Parameters
    ----------
    name : str
        ``core`` or ``vidur``.
    settings : SimSettings
    arrival_ns, num_prefill, num_decode : numpy.ndarray of shape (n_requests,)
    step : callable
        What the two are compared with.
    own_batch : bool
        `step` needs Vidur's batch.

    Attributes
    ----------
    name : str
        The loop in use: Vidur's own for what the core does not have, and where the two differ.
    checked : int
        Requests that both served alike.
    difference : str or None
        Where they differ, and in what.
    """

    def __init__(
        self,
        name: str,
        settings: SimSettings,
        arrival_ns: Ints,
        num_prefill: Ints,
        num_decode: Ints,
        step: Step,
        *,
        own_batch: bool,
    ) -> None:
        self._settings = settings
        self._requests = arrival_ns, num_prefill, num_decode
        self.name = name if settings.scheduler == "sarathi" and not own_batch else "vidur"
        self.checked, self.difference = 0, None
        if self.name == "core":
            enough = int(np.searchsorted(np.cumsum(num_decode), _CHECKED_TOKENS)) + 1
            first = min(enough, _CHECKED_REQUESTS)
            core, vidur = (self._serve(one, step, first, lambda _count: None) for one in ("core", "vidur"))
            self.difference = core.difference(vidur)
            if self.difference is None:
                self.checked = min(first, len(arrival_ns))
            else:
                log.warning("our core differs from Vidur's loop, which is used: %s", self.difference)
                self.name = "vidur"

    def run(self, step: Step, on_finished: Callable[[int], object]) -> Timeline:
        """Simulate the workload; `on_finished` is told how many requests completed in the last iteration."""
        return self._serve(self.name, step, len(self._requests[0]), on_finished)

    def described(self) -> str:
        """For a summary."""
        if self.name == "core":
            return f"our core, identical to Vidur's loop on the first {self.checked} requests"
        return "Vidur's own" + (f"; our core differs: {self.difference}" if self.difference else "")

    def _serve(self, name: str, step: Step, count: int, on_finished: Callable[[int], object]) -> Timeline:
        arrival, prefill, decode = (values[:count] for values in self._requests)
        if name == "core":
            core = SarathiCore(self._settings.limits, lambda batch, now: step(batch, now, None))
            return core.run(arrival.tolist(), prefill.tolist(), decode.tolist(), on_finished)
        return simulate(
            self._settings,
            arrival,
            prefill.tolist(),
            decode.tolist(),
            lambda batch, own: step(batch, own.scheduled_at, own),
            on_finished,
        )
