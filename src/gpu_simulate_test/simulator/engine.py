"""An engine on a virtual clock: a scheduler, and a latency model that says how long its batches take."""

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, EngineRequest
from gpu_simulate_test.latency.calibration import NOTHING, Constants, Delivery
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.serving import serve
from gpu_simulate_test.simulator.clock import VirtualClock
from gpu_simulate_test.simulator.decoding import Changes, Prompts, Scheduler
from gpu_simulate_test.simulator.sarathi import SarathiScheduler
from gpu_simulate_test.simulator.vllm_v1 import VllmScheduler
from gpu_simulate_test.spans import Floats, Ints
from gpu_simulate_test.timeline import ITERATION_COLUMNS, Timeline

_WORTH = 6  # iterations that are priced sooner together than one by one
_PREFILLING, _DECODING = (ITERATION_COLUMNS.index(f"num_{kind}_seqs") for kind in ("prefill", "decode"))
_CONTEXT, _LONGEST = ITERATION_COLUMNS.index("kv_tokens_decode"), ITERATION_COLUMNS.index("max_kv_decode")


@dataclass(slots=True)
class SimulatedStep:
    """What one iteration did, or several of the same decoding requests.

    Attributes
    ----------
    number : int
        Of the first iteration.
    rows : numpy.ndarray of shape (n, len(ITERATION_COLUMNS)) or tuple of int
        The iterations, or the only one.
    changes : Changes
    """

    number: int
    rows: Ints | tuple[int, ...]
    changes: Changes

    def ends(self, ends: Callable[[int, int, Sequence[int]], list[tuple[int, int]]]) -> list[tuple[int, int]]:
        """Which requests ended with it, and when, by `Delivery.ends`."""
        last = self.rows if isinstance(self.rows, tuple) else self.rows[-1].tolist()
        return ends(last[1], last[_PREFILLING] + last[_DECODING], self.changes.finished)

    def record(self, line: Timeline) -> None:
        """Enter it: changes only, for a request that goes on decoding says nothing new."""
        line.add_iterations(self.rows)
        for request in self.changes.scheduled:
            line.first_scheduled[request] = self.number
        for request in self.changes.restarted:
            line.restarts[request] += 1
        for request, tokens in self.changes.cached:
            line.cached[request] = tokens
        for span in self.changes.spans:
            line.add_span(*span)


@dataclass(slots=True)
class _Batch:
    """One that was scheduled."""

    prompts: Prompts
    composition: Composition
    changes: Changes


class SimulatedEngine:
    """submit / has_unfinished / step, as any engine's, in no time of ours.

    Parameters
    ----------
    scheduler : Scheduler
    latency : LatencyModel
    clock : VirtualClock
        Moved by every step.
    ahead : bool
        Schedule the batch of an iteration when the one before it begins, not when it ends.
    """

    def __init__(self, scheduler: Scheduler, latency: LatencyModel, clock: VirtualClock, ahead: bool = False) -> None:
        self._scheduler = scheduler
        self._latency = latency
        self._clock = clock
        self._ahead = ahead
        self._next: _Batch | None = None  # scheduled ahead
        self._changes = Changes()  # of the batch that is scheduled next
        self._until_s = math.inf
        self._took_s = 0.0  # the last iteration
        self._number = 0

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; it waits until a step schedules it."""
        self._scheduler.add(request)

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""
        return self._next is not None or self._scheduler.has_unfinished()

    def num_waiting(self) -> int:
        """Requests that no batch holds: new ones, and preempted ones."""
        return self._scheduler.num_waiting()

    def look_ahead(self, next_ns: int | None) -> None:
        """When the next request comes: a step ends with the first iteration that ends then or later."""
        self._until_s = math.inf if next_ns is None else next_ns / 1e9

    def step(self) -> SimulatedStep:
        """Run the next iteration, and those after it that are made of the same decoding requests."""
        number, batch = self._number, self._next or self._schedule(self._number)
        assert batch is not None, "requests wait, and none can ever be served"
        self._next = self._schedule(number + 1) if self._ahead else None
        ends_s = None if batch.prompts else self._ends(number, batch)
        if ends_s is None:
            start_s = self._clock.now_s
            end_s = start_s + self._latency.step_ns(batch.composition, start_s * 1e9) / 1e9
            self._number += 1
        else:
            count = len(ends_s) - 1
            start_s, end_s = float(ends_s[-2]), float(ends_s[-1])
            self._go_on(number, count)
            self._number += count
        self._scheduler.end_batch(self._number - 1, batch.prompts, batch.changes)
        rows: Ints | tuple[int, ...]
        if ends_s is None:
            times = round(start_s * 1e9), round(end_s * 1e9)
            rows = (*times, *batch.composition, batch.changes.num_preempted)
        else:
            rows = _alike(batch.composition, ends_s)
        self._clock.now_s, self._took_s = end_s, end_s - start_s
        return SimulatedStep(number, rows, batch.changes)

    def close(self) -> None:
        """Nothing is held."""

    def _schedule(self, number: int) -> _Batch | None:
        """The next batch; None where nobody can be in it."""
        prompts = self._scheduler.schedule(number, self._changes)
        composition = self._scheduler.composition(number, prompts)
        if not prompts and not composition.num_decode_seqs:
            return None
        changes, self._changes = self._changes, Changes()
        return _Batch(prompts, composition, changes)

    def _ends(self, number: int, batch: _Batch) -> Floats | None:
        """The start and the ends, s, of a run of decode iterations; None where it is short, or not known beforehand."""
        now_s = self._clock.now_s
        if self._until_s - now_s < _WORTH * self._took_s:
            return None
        before = (self._until_s - now_s) / self._took_s + 2 if self._took_s > 0 else math.inf
        count = self._count_alike(number, batch, int(min(before, 1e6)))
        if count < _WORTH:
            return None
        took_ns = self._latency.decode_run_ns(batch.composition, count)
        if took_ns is None:
            return None
        # Added one after the other, as a clock does.
        ends_s: Floats = np.add.accumulate(np.concatenate([[now_s], took_ns / 1e9]))
        last = int(np.searchsorted(ends_s[1:], self._until_s)) + 1
        return ends_s[: last + 1]

    def _count_alike(self, number: int, batch: _Batch, most: int) -> int:
        """How many iterations have the same decoding requests as this one."""
        if not self._ahead:
            return self._scheduler.alike(number, most)
        after, decoding = self._next, batch.composition.num_decode_seqs
        if batch.changes.num_preempted or after is None:
            return 1
        if after.prompts or after.composition.num_decode_seqs != decoding:
            return 1
        return 1 + self._scheduler.alike(number + 1, most - 1)

    def _go_on(self, number: int, count: int) -> None:
        """Schedule the rest of `count` alike iterations, of which this is the first."""
        if not self._ahead:
            self._scheduler.go_on(number, count - 1)
        elif count > 1:
            self._scheduler.go_on(number + 1, count - 2)
            self._next = self._schedule(number + count)


def _alike(batch: Composition, ends_s: Floats) -> Ints:
    """Rows of a timeline: iterations of the same decoding requests, of which `batch` is the first."""
    count, times_ns = len(ends_s) - 1, np.rint(ends_s * 1e9).astype(np.int64)
    rows = np.empty((count, len(ITERATION_COLUMNS)), dtype=np.int64)
    rows[:, 0], rows[:, 1] = times_ns[:-1], times_ns[1:]
    rows[:, 2:] = (*batch, 0)
    ahead = np.arange(count)
    rows[:, _CONTEXT] += batch.num_decode_seqs * ahead
    rows[:, _LONGEST] += ahead
    return rows


class Asked(Sequence[EngineRequest]):
    """Requests of these lengths, each made when it is handed over."""

    def __init__(self, arrival_ns: Ints, num_prefill: Ints, num_decode: Ints) -> None:
        self._arrays = arrival_ns, num_prefill, num_decode
        # Arrays whose items are Python's integers.
        self._arrival, self._prefill, self._decode = (array("q", values.tobytes()) for values in self._arrays)

    def __len__(self) -> int:
        return len(self._arrival)

    @overload
    def __getitem__(self, index: int) -> EngineRequest: ...
    @overload
    def __getitem__(self, index: slice) -> "Asked": ...
    def __getitem__(self, index: int | slice) -> "EngineRequest | Asked":
        if isinstance(index, slice):
            return Asked(*(values[index] for values in self._arrays))
        return EngineRequest(index, range(self._prefill[index]), self._decode[index], True, self._arrival[index])


def make_engine(
    scheduler: str,
    limits: EngineLimits,
    latency: LatencyModel,
    clock: VirtualClock,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> SimulatedEngine:
    """An engine with the scheduler of this name; see `run_core`."""
    if scheduler == "vllm_v1":
        return SimulatedEngine(VllmScheduler(limits, prefixes), latency, clock, limits.async_scheduling)
    return SimulatedEngine(SarathiScheduler(limits), latency, clock)


def run_core(
    limits: EngineLimits,
    latency: LatencyModel,
    arrivals: ArrivalProcess,
    num_prefill: Ints,
    num_decode: Ints,
    on_finished: Callable[[int], object] = lambda _count: None,
    scheduler: str = "sarathi",
    prefixes: Sequence[Sequence[int]] | None = None,
    constants: Constants = NOTHING,
) -> Timeline:
    """Serve a workload on a simulated engine.

    Parameters
    ----------
    limits : EngineLimits
        Prompts share blocks, and batches are scheduled ahead, with vLLM's scheduler alone.
    arrivals : ArrivalProcess
        Of n_requests.
    num_prefill, num_decode : numpy.ndarray of shape (n_requests,), int64
    on_finished : callable
        Told how many requests completed in the last step.
    scheduler : str
        ``sarathi`` or ``vllm_v1``.
    prefixes : sequence of sequences of int, or None
        For each request, keys of its prompt's first whole blocks: equal keys, equal tokens up to the block's end.
    constants : Constants
        When the engine sees a request, and when its tokens come out.
    """
    clock, line, seen = VirtualClock(), Timeline(len(arrivals)), constants.seen(arrivals)
    engine = make_engine(scheduler, limits, latency, clock, prefixes)
    requests = Asked(seen.known_ns, num_prefill, num_decode)
    ends = Delivery(constants, limits, num_decode).ends
    for step in serve(engine, requests, seen, clock, line, lambda step: step.ends(ends), before_step=engine.look_ahead):
        step.record(line)
        if step.changes.finished:
            on_finished(len(step.changes.finished))
    constants.deliver(line, limits)
    return line
