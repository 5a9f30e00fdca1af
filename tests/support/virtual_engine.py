"""An engine with a known truth: a clock that only it moves, and a cost for every batch.

Its scheduler is the one the real engines have: decode first, prompts split to fit a token budget.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import (
    Clock,
    Composition,
    Engine,
    EngineInfo,
    EngineRequest,
    Failure,
    ScheduledSeq,
    Step,
    Token,
)
from gpu_simulate_test.serving import serve
from gpu_simulate_test.timeline import Timeline


class VirtualClock:
    """Time moves when somebody sleeps or an engine works."""

    def __init__(self) -> None:
        self.time_ns = 5_000_000_000

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self.time_ns = max(self.time_ns, deadline_ns)


def affine_cost(composition: Composition) -> int:
    """1 ms an iteration, 10 us a token, 1 us a cached token."""
    tokens = composition.num_prefill_tokens + composition.num_decode_seqs
    cached = composition.kv_tokens_prefill + composition.kv_tokens_decode
    return 1_000_000 + 10_000 * tokens + 1_000 * cached


@dataclass
class _Running:
    request: EngineRequest
    cached: int = 0
    made: int = 0

    @property
    def remaining_prompt(self) -> int:
        return len(self.request.token_ids) - self.cached if self.made == 0 else 0


@dataclass
class VirtualEngine:
    """The engine protocol over a cost function.

    `refuse` fails a request at submission, `fail` at its first token, `stop_early` ends it after that
    many tokens.
    """

    clock: VirtualClock
    cost: Callable[[Composition], int] = affine_cost
    max_num_seqs: int = 4
    max_num_batched_tokens: int = 64
    refuse: frozenset[int] = frozenset()
    fail: frozenset[int] = frozenset()
    stop_early: dict[int, int] = field(default_factory=dict)
    block_size: int = 16
    num_blocks: int = 4096
    enable_prefix_caching: bool = False
    done: list[int | str] = field(default_factory=list)  # ids of requests submitted, and "forget"
    running: list[_Running] = field(default_factory=list)
    waiting: list[_Running] = field(default_factory=list)

    def info(self) -> EngineInfo:
        return EngineInfo(
            "virtual",
            EngineLimits(
                max_num_seqs=self.max_num_seqs,
                max_num_batched_tokens=self.max_num_batched_tokens,
                block_size=self.block_size,
                num_blocks=self.num_blocks,
                enable_prefix_caching=self.enable_prefix_caching,
                dtype="float32",
            ),
            4096,
            "cpu",
        )

    def submit(self, request: EngineRequest) -> None:
        if request.request_id in self.refuse:
            raise ValueError("refused by the engine")
        self.done.append(request.request_id)
        self.waiting.append(_Running(request))

    def forget(self) -> None:
        assert not self.has_unfinished()
        self.done.append("forget")

    def has_unfinished(self) -> bool:
        return bool(self.running or self.waiting)

    def step(self) -> Step:
        start = self.clock.now_ns()
        scheduled = self._schedule()
        batch = [seq for _, seq in scheduled]
        self.clock.time_ns += self.cost(Composition.of(batch))
        tokens, failures = [], []
        for state, seq in scheduled:
            state.cached += seq.num_tokens
            if state.cached < len(state.request.token_ids):
                continue
            request_id = state.request.request_id
            if request_id in self.fail:
                failures.append(Failure(request_id, "EngineError", "lost in the engine"))
                self.running.remove(state)
                continue
            state.made += 1
            limit = min(state.request.max_new_tokens, self.stop_early.get(request_id, 1 << 30))
            finished = state.made >= limit
            tokens.append(Token(request_id, 7, finished))
            if finished:
                self.running.remove(state)
        return Step(start, self.clock.now_ns(), batch, tokens, failures)

    def _schedule(self) -> list[tuple[_Running, ScheduledSeq]]:
        budget = self.max_num_batched_tokens
        scheduled: list[tuple[_Running, ScheduledSeq]] = []
        decoding = [state for state in self.running if state.made]
        prefilling = [state for state in self.running if not state.made]
        for state in decoding + prefilling:
            count = min(state.remaining_prompt or 1, budget)
            if count:
                scheduled.append((state, ScheduledSeq(state.request.request_id, count, state.cached, not state.made)))
                budget -= count
        while self.waiting and budget and len(self.running) < self.max_num_seqs:
            state = self.waiting.pop(0)
            self.running.append(state)
            count = min(len(state.request.token_ids), budget)
            scheduled.append((state, ScheduledSeq(state.request.request_id, count, 0, True)))
            budget -= count
        return scheduled

    def operators(self) -> None:
        """Has none."""

    def close(self) -> None:
        self.running.clear()


def served(
    engine: Engine, requests: Sequence[EngineRequest], arrivals: Sequence[int] | np.ndarray, clock: Clock
) -> tuple[list[Step], dict[int, Failure]]:
    """Every step of a replay, and which requests failed."""
    line = Timeline(len(requests), clock.now_ns())
    steps = list(serve(engine, requests, ArrivalProcess.at(np.array(arrivals)), clock, line, lambda step: step.ended))
    return steps, line.failures | {failure.request_id: failure for step in steps for failure in step.failures}


def requests_of(lengths: Sequence[tuple[int, int]]) -> list[EngineRequest]:
    """Requests of (prompt, output) lengths."""
    return [EngineRequest(index, [5] * prompt, output) for index, (prompt, output) in enumerate(lengths)]
