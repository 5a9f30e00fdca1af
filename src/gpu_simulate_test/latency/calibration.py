"""What kernels cannot know, as a handful of constants: the host's share of an iteration, and what is before and after.

An engine that schedules step by step adds the host's work to the kernels'. One that schedules ahead does it beside the
next iteration's kernels: an iteration takes the longer of the two, and its tokens come out when the host has been
through all its sequences. (What it does once an iteration delays every token alike, and so counts as the front end.)
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.timeline import Timeline


@dataclass(frozen=True)
class Constants:
    """What a calibration estimates.

    Attributes
    ----------
    step_ns : float
        Host time an iteration.
    sequence_ns : float
        Host time for each sequence in it.
    kernel_factor : float
        On the kernels' time.
    front_end_ns : float
        From a request's arrival until the engine sees it.
    after_first_token_ns : float
        By which tokens after a request's first one come out later than they were made.
    """

    step_ns: float = 0.0
    sequence_ns: float = 0.0
    kernel_factor: float = 1.0
    front_end_ns: float = 0.0
    after_first_token_ns: float = 0.0

    def slowed(self, factor: float) -> "Constants":
        """Those of the same host on a machine `factor` times as slow."""
        return replace(
            self,
            step_ns=self.step_ns * factor,
            sequence_ns=self.sequence_ns * factor,
            front_end_ns=self.front_end_ns * factor,
            after_first_token_ns=self.after_first_token_ns * factor,
        )

    def drawn(self, deviation: "Constants", rng: np.random.Generator) -> "Constants":
        """Others that they could be as well: normal, of these deviations, each for itself, and none below 0."""
        pairs = zip(vars(self).values(), vars(deviation).values(), strict=True)
        return Constants(*(max(0.0, float(rng.normal(value, spread))) for value, spread in pairs))

    def seen(self, arrivals: ArrivalProcess) -> ArrivalProcess:
        """How requests that are sent so come to the engine."""
        return arrivals.later(round(self.front_end_ns))

    def deliver(self, line: Timeline, limits: EngineLimits) -> None:
        """Enter when the requests that came to the engine had been sent, and when the tokens of iterations come out."""
        seen_ns = np.array(line.arrival_ns, dtype=np.int64)
        line.submit_ns = line.arrival_ns  # it orders requests by when they come, whenever it gets them
        line.arrival_ns = array("q", (seen_ns - round(self.front_end_ns)).tolist())
        line.later_ns = round(self.after_first_token_ns)
        if limits.async_scheduling and self.sequence_ns:
            line.host_ns = np.rint(self.sequence_ns * line.num_seqs).astype(np.int64)


class Delivery:
    """When the last tokens of requests come out, as an engine goes on.

    Parameters
    ----------
    constants : Constants
    limits : EngineLimits
    num_decode : numpy.ndarray of shape (n_requests,), int64
        Output tokens.
    """

    def __init__(self, constants: Constants, limits: EngineLimits, num_decode: Ints) -> None:
        self._host_ns = constants.sequence_ns if limits.async_scheduling else 0.0
        self._later_ns = round(constants.after_first_token_ns)
        self._num_decode = num_decode
        self._out_ns = 0

    def ends(self, end_ns: int, num_seqs: int, finished: Sequence[int]) -> list[tuple[int, int]]:
        """The requests that an iteration finished, and when their last tokens are out; asked of every iteration."""
        self._out_ns = max(self._out_ns, end_ns + round(self._host_ns * num_seqs))
        return [(one, self._out_ns + self._later_ns * (self._num_decode[one] > 1)) for one in finished]


NOTHING = Constants()
NO_DOUBT = Constants(kernel_factor=0.0)  # of deviations
NAMES = tuple(vars(NOTHING))


class Calibrated:
    """A latency model of kernels, and the host's work beside or between them.

    Parameters
    ----------
    model : LatencyModel
        What the kernels take.
    constants : Constants
    limits : EngineLimits
        Whether batches are scheduled ahead.
    """

    def __init__(self, model: LatencyModel, constants: Constants, limits: EngineLimits) -> None:
        self._model = model
        self._step, self._sequence = constants.step_ns, constants.sequence_ns
        self._factor = constants.kernel_factor
        self._beside = limits.async_scheduling

    @classmethod
    def of(cls, model: LatencyModel, constants: Constants, limits: EngineLimits) -> LatencyModel:
        """The model with constants; itself where there are none."""
        return model if constants == NOTHING else cls(model, constants, limits)

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns."""
        kernels = self._model.step_ns(batch, now_ns) * self._factor
        host = self._step + self._sequence * (batch.num_prefill_seqs + batch.num_decode_seqs)
        return max(kernels, host) if self._beside else kernels + host

    def host_ns(self, batch: Composition, now_ns: float) -> float:
        """Of that, what the kernels do not fill, ns."""
        return self.step_ns(batch, now_ns) - self._model.step_ns(batch, now_ns) * self._factor

    def decode_run_ns(self, batch: Composition, count: int) -> np.ndarray | None:
        """What the batches of `decode_run` take, ns, shape (count,)."""
        times = self._model.decode_run_ns(batch, count)
        if times is None:
            return None
        host = self._step + self._sequence * batch.num_decode_seqs
        return np.maximum(times * self._factor, host) if self._beside else times * self._factor + host
