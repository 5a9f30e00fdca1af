"""Measuring whole engine iterations, by serving small synthetic bursts through the engine protocol."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Clock, Composition, Engine, EngineRequest, Step, reference_burst
from gpu_simulate_test.vidur_ext.operators import Reach, powers_of_two
from gpu_simulate_test.vidur_ext.predictor import COMPOSITION

_FIRST_PLAIN_TOKEN = 3
_DECODE_STEPS = 6


@dataclass(frozen=True)
class Arrival:
    """A request of an episode: when it comes, how long it is."""

    step: int
    prompt_tokens: int
    output_tokens: int


Episode = tuple[Arrival, ...]


def plan_episodes(reach: Reach) -> list[Episode]:
    """Bursts that together cover what the engine can be given.

    Prompts alone, whole and in chunks; several prompts in one batch; decoding at every batch size and
    context; prompts arriving while others decode. Filling the cache for the large batches gives the
    mixtures in between for nothing.
    """
    longest = max(1, reach.max_context - _DECODE_STEPS)
    episodes: list[Episode] = []
    for tokens in powers_of_two(min(reach.max_tokens, longest), 8):
        episodes.append((Arrival(0, tokens, 2),))
        for count in (2, 4, 8):
            if tokens * count <= reach.max_tokens and count <= reach.max_seqs:
                episodes.append(tuple(Arrival(0, tokens, 2) for _ in range(count)))
    episodes.append((Arrival(0, longest, _DECODE_STEPS),))
    episodes.append((Arrival(0, max(1, longest * 2 // 3), _DECODE_STEPS),))
    for batch in powers_of_two(reach.max_seqs):
        for context in powers_of_two(longest, 16)[::2]:
            if batch * (context + _DECODE_STEPS) <= reach.max_cached:
                filling = -(-batch * context // reach.max_tokens)
                outputs = min(_DECODE_STEPS + filling, max(2, reach.max_context - context))
                episodes.append(tuple(Arrival(0, context, outputs) for _ in range(batch)))
    return episodes


def random_episode(reach: Reach, seed: int) -> Episode:
    """A burst as traffic would make it: lengths log-uniform, arrivals at random steps; 4 to 32 requests."""
    rng = random.Random(f"episode-{seed}")
    count = min(2 * reach.max_seqs, 4 << seed % 4)
    arrivals = []
    cached = 0
    for _ in range(count):
        prompt = max(1, int(np.exp(rng.random() * np.log(max(2, reach.max_context - 2)))))
        outputs = max(1, min(2 + int(rng.random() * 24), reach.max_context - prompt))
        cached += prompt + outputs + 16
        if cached > reach.max_cached:
            break
        arrivals.append(Arrival(int(rng.random() * count * 1.5), prompt, outputs))
    return tuple(sorted(arrivals, key=lambda arrival: arrival.step))


def cost(episode: Episode) -> int:
    """Tokens an episode processes: what it costs, roughly."""
    return sum(arrival.prompt_tokens + 16 * arrival.output_tokens for arrival in episode)


def run_episode(engine: Engine, episode: Episode, vocab_size: int) -> Iterator[Step]:
    """Serve an episode to its end, step by step; the caller may look at the machine in between episodes."""
    rng = random.Random(str(episode))
    pending = list(enumerate(episode))
    step_number = 0
    while pending or engine.has_unfinished():
        while pending and (pending[0][1].step <= step_number or not engine.has_unfinished()):
            index, arrival = pending.pop(0)
            tokens = [
                _FIRST_PLAIN_TOKEN + int(rng.random() * (vocab_size - _FIRST_PLAIN_TOKEN))
                for _ in range(arrival.prompt_tokens)
            ]
            engine.submit(EngineRequest(index, tokens, arrival.output_tokens))
        yield engine.step()
        step_number += 1


@dataclass
class Drift:
    """How fast the machine was over time, from reference bursts between the episodes.

    A shared machine's speed wanders by tens of per cent within minutes. Every iteration is scaled to the
    median speed, so that a point measured in a slow minute does not look dearer than its neighbours.
    """

    times_ns: list[int] = field(default_factory=list)
    burst_ns: list[int] = field(default_factory=list)

    def watch(self, engine: Engine, clock: Clock) -> None:
        """Time a reference burst, unless the last one is recent: bursts take a twentieth of the time."""
        if self.times_ns and clock.now_ns() - self.times_ns[-1] < 20 * self.burst_ns[-1]:
            return
        self.burst_ns.append(reference_burst(engine))
        self.times_ns.append(clock.now_ns())

    @property
    def reference_ns(self) -> int:
        """The median burst: the speed that all times are scaled to."""
        return int(np.median(self.burst_ns))

    def slowness(self, time_ns: np.ndarray) -> np.ndarray:
        """How much slower than the median the machine was, shape (n,); a running median of 5 bursts."""
        smooth = pd.Series(self.burst_ns).rolling(5, center=True, min_periods=1).median().to_numpy()
        slowness: np.ndarray = np.interp(time_ns, self.times_ns, smooth) / self.reference_ns
        return slowness


def iteration_table(steps: Sequence[Step], drift: Drift) -> pd.DataFrame:
    """``iteration.csv``: one row a composition, its repeats summed up; times in ns at the median speed."""
    slowness = drift.slowness(np.array([step.start_ns for step in steps]))
    rows = [
        asdict(Composition.of(step.batch)) | {"ns": (step.end_ns - step.start_ns) / slow}
        for step, slow in zip(steps, slowness, strict=True)
    ]
    grouped = pd.DataFrame(rows, columns=[*COMPOSITION, "ns"], dtype=float).groupby(list(COMPOSITION))["ns"]
    table = pd.DataFrame(
        {
            "repeats": grouped.size(),
            "median_ns": grouped.median().round(),
            "p10_ns": grouped.quantile(0.1).round(),
            "p90_ns": grouped.quantile(0.9).round(),
        }
    )
    return table.astype("int64").reset_index()
