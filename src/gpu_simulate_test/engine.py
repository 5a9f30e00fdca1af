"""The protocol every backend speaks, and the clock it is timed with.

A backend is submit / has_unfinished / step. The replay loop and the profiler drive nothing else.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gpu_simulate_test.config.limits import EngineLimits


class Clock(Protocol):
    """Monotonic time, in integer nanoseconds."""

    def now_ns(self) -> int:
        """The present."""

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return at `deadline_ns`, or at once when it has passed."""


class MonotonicClock:
    """The machine's monotonic clock."""

    def now_ns(self) -> int:
        """The present."""
        return time.perf_counter_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Sleep; the operating system wakes us tens of microseconds late."""
        remaining = deadline_ns - self.now_ns()
        if remaining > 0:
            time.sleep(remaining / 1e9)


@dataclass(frozen=True)
class EngineRequest:
    """A request as an engine takes it: greedy, at most `max_new_tokens` output tokens.

    `arrival_ns`, since the run began, is for an engine that orders its requests by it.
    """

    request_id: int
    token_ids: Sequence[int]
    max_new_tokens: int
    ignore_eos: bool = True
    arrival_ns: int = 0


@dataclass(frozen=True)
class ScheduledSeq:
    """One request's share of an iteration.

    Attributes
    ----------
    num_tokens : int
        Query tokens processed: a prefill chunk, or 1.
    num_cached : int
        Tokens already in its KV cache.
    is_prefill : bool
        True while the prompt is processed, its last chunk included.
    """

    request_id: int
    num_tokens: int
    num_cached: int
    is_prefill: bool


class Composition(NamedTuple):
    """What an iteration's time depends on: the columns of ``iteration_metrics.csv``.

    Attributes
    ----------
    num_prefill_tokens, num_prefill_seqs, num_decode_seqs : int
    kv_tokens_prefill, kv_tokens_decode : int
        Cached tokens that the prefill chunks, and the decoding sequences, attend to.
    prefill_pairs : int
        Query-key pairs of the prefill chunks, the sum of ``q x (cached + q)``.
    max_kv_decode : int
        Cached tokens of the decoding sequence that has most: a GPU waits for it when others are done.
    """

    num_prefill_tokens: int
    num_prefill_seqs: int
    num_decode_seqs: int
    kv_tokens_prefill: int
    kv_tokens_decode: int
    prefill_pairs: int
    max_kv_decode: int

    @classmethod
    def of(cls, batch: Sequence[ScheduledSeq]) -> "Composition":
        """The composition of a batch."""
        prefill = [seq for seq in batch if seq.is_prefill]
        return cls(
            num_prefill_tokens=sum(seq.num_tokens for seq in prefill),
            num_prefill_seqs=len(prefill),
            num_decode_seqs=len(batch) - len(prefill),
            kv_tokens_prefill=sum(seq.num_cached for seq in prefill),
            kv_tokens_decode=sum(seq.num_cached for seq in batch if not seq.is_prefill),
            prefill_pairs=sum(seq.num_tokens * (seq.num_cached + seq.num_tokens) for seq in prefill),
            max_kv_decode=max((seq.num_cached for seq in batch if not seq.is_prefill), default=0),
        )


COMPOSITION = Composition._fields


@dataclass(frozen=True)
class Token:
    """An output token, made at the end of the step that returns it."""

    request_id: int
    token_id: int
    finished: bool


@dataclass(frozen=True)
class Failure:
    """A request that ended without completing."""

    request_id: int
    error_type: str
    message: str


@dataclass(frozen=True)
class Step:
    """What one engine iteration did."""

    start_ns: int
    end_ns: int
    batch: Sequence[ScheduledSeq]
    tokens: Sequence[Token]
    failures: Sequence[Failure] = ()
    preempted: Sequence[int] = ()

    @property
    def ended(self) -> list[tuple[int, int]]:
        """Requests that ended with it, whether they completed or failed, and when."""
        ended = [token.request_id for token in self.tokens if token.finished]
        return [(request, self.end_ns) for request in (*ended, *(failure.request_id for failure in self.failures))]


@dataclass(frozen=True)
class EngineInfo:
    """Engine settings that scheduling and timing depend on, read back from the engine."""

    name: str
    limits: EngineLimits
    max_model_len: int
    device: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As ``run_meta.json`` keeps them."""
        return {**vars(self), "limits": self.limits.model_dump(), "details": dict(self.details)}


class Engine(Protocol):
    """An LLM engine driven one iteration at a time."""

    def info(self) -> EngineInfo:
        """Settings in force."""

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; it waits until a step schedules it."""

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""

    def step(self) -> Step:
        """Run one iteration."""

    def forget(self) -> None:
        """Let no later request find anything in the KV cache; asked of an engine that serves none."""

    def close(self) -> None:
        """Free the engine."""


class Operators(Protocol):
    """Single operators of an engine's own model, for profiling."""

    def compute(self, name: str, num_tokens: int) -> Callable[[], object]:
        """An operator over `num_tokens` tokens of one layer, ready to call."""

    def attention(self, batch_size: int, num_tokens: int, kv_cache_size: int) -> Callable[[], object]:
        """Attention of `batch_size` sequences, each `num_tokens` queries over `kv_cache_size` cached tokens more."""

    def kv_cache_save(self, num_tokens: int) -> Callable[[], object]:
        """Writing the keys and values of `num_tokens` tokens into the cache."""

    def time_ns(self, call: Callable[[], object]) -> int:
        """Duration of one call: CUDA events on a GPU, a monotonic clock on a CPU."""


class ProfilableEngine(Engine, Protocol):
    """An engine whose operators can be timed one by one, if it lets us."""

    def operators(self) -> Operators | None:
        """Its model's operators; None where they cannot be called by themselves."""
