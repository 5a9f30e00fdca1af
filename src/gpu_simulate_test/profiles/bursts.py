"""Measuring whole engine iterations, by serving small synthetic bursts through the engine protocol."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import COMPOSITION, Clock, Composition, Engine, EngineRequest, Step
from gpu_simulate_test.io.workload import random_token_ids
from gpu_simulate_test.latency.reference_bursts import ReferenceBursts
from gpu_simulate_test.profiles.operators import Reach, powers_of_two

_DECODE_STEPS, _STEPS_A_STAIR = 6, 2


@dataclass(frozen=True)
class Arrival:
    """A request of an episode: when it comes, how long it is."""

    step: int
    prompt_tokens: int
    output_tokens: int


Episode = tuple[Arrival, ...]


def plan_episodes(reach: Reach) -> list[Episode]:
    """Bursts that together cover what the engine can be given.

    Prompts alone, whole and in chunks; several prompts in one batch; and stairs: prompts of one length that come
    at once and stay longer one after another, so that one filling of the cache shows decoding at every batch size up
    to the top, and the mixtures with prompts on the way up.
    """
    longest = max(1, reach.max_context - _DECODE_STEPS)
    episodes: list[Episode] = []
    for tokens in powers_of_two(min(reach.max_tokens, longest), 8):
        episodes.append((Arrival(0, tokens, 2),))
        for count in (2, 4, 8):
            if tokens * count <= reach.max_tokens and count <= reach.max_seqs:
                episodes.append(tuple(Arrival(0, tokens, 2) for _ in range(count)))
    episodes.append((Arrival(0, longest, _DECODE_STEPS),))
    for context in powers_of_two(max(1, reach.max_context * 3 // 4), 16)[::-2]:
        episodes.append(_stairs(context, reach))
    return episodes


def _stairs(context: int, reach: Reach) -> Episode:
    stairs: list[Arrival] = []
    cached = 0
    for index in range(reach.max_seqs):
        outputs = max(2, min(_DECODE_STEPS + _STEPS_A_STAIR * index, reach.max_context - context))
        cached += context + outputs
        if cached > reach.max_cached:
            break
        stairs.append(Arrival(0, context, outputs))
    return tuple(stairs)


def traffic_episode(lengths: Sequence[tuple[int, int]], concurrency: float, seed: int) -> Episode:
    """A burst of the workload's own requests (prompt and output tokens), about `concurrency` of them at a time.

    What serving is mostly made of is measured most, and at many moments of a machine whose speed wanders.
    """
    rng = random.Random(f"traffic-{concurrency}-{seed}")
    drawn = [lengths[int(rng.random() * len(lengths))] for _ in range(max(4, round(2 * concurrency)))]
    spacing = sum(output for _, output in drawn) / len(drawn) / concurrency
    arrivals, step = [], 0.0
    for prompt, output in drawn:
        arrivals.append(Arrival(int(step), prompt, output))
        step += rng.expovariate(1 / spacing)
    return tuple(arrivals)


def random_episode(reach: Reach, seed: int) -> Episode:
    """A burst of any requests: lengths log-uniform, arrivals at random steps; 4 to 32 requests."""
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


def first_of(episode: Episode, most: float) -> Episode:
    """Its first requests, as many as cost no more than `most` together."""
    costs = np.cumsum([cost((arrival,)) for arrival in episode])
    return episode[: int(np.searchsorted(costs, most, side="right"))]


def fair_share(costs: Sequence[float], total: float) -> float:
    """How much each may cost at most so that all together cost `total`: what the cheap ones leave goes to the dear."""
    for index, one in enumerate(ordered := sorted(costs)):
        share = total / (len(ordered) - index)
        if one > share:
            return share
        total -= one
    return math.inf


def run_episode(engine: Engine, episode: Episode, vocab_size: int, clock: Clock) -> Iterator[Step]:
    """Serve an episode to its end, step by step; the caller may look at the machine in between episodes.

    Where the engine has nothing to do before the next arrival, it sleeps for as long as the steps until then would
    have taken: a machine that wakes up is slower at first, in service as well.
    """
    engine.forget()
    pending = list(enumerate(episode))
    step_number = 0
    began_ns = clock.now_ns()
    while pending or engine.has_unfinished():
        if pending and not engine.has_unfinished() and pending[0][1].step > step_number:
            now_ns, next_step = clock.now_ns(), pending[0][1].step
            if step_number:
                clock.sleep_until_ns(now_ns + (next_step - step_number) * (now_ns - began_ns) // step_number)
            step_number = next_step
        while pending and pending[0][1].step <= step_number:
            index, arrival = pending.pop(0)
            tokens = random_token_ids(f"{episode}-{index}", arrival.prompt_tokens, vocab_size)
            engine.submit(EngineRequest(index, tokens, arrival.output_tokens))
        yield engine.step()
        step_number += 1


@dataclass
class Measured:
    """Iterations measured so far, and how fast the machine was meanwhile.

    Attributes
    ----------
    rows : list of dict
        One an iteration: ``start_ns``, ``ns``, ``held_out`` (kept out of the fit that is checked), and its composition.
    speed : ReferenceBursts
    bursts : int
        Bursts done, of the order that `schedule` gives.
    cut : int
        Bursts of the first round that ran in part, or not at all, to keep to the time.
    cost : int
        Of what ran.
    elapsed_s : float
        Time spent, an interrupted run's included.
    """

    rows: list[dict[str, int]] = field(default_factory=list)
    speed: ReferenceBursts = field(default_factory=ReferenceBursts)
    bursts: int = 0
    cut: int = 0
    cost: int = 0
    elapsed_s: float = 0.0

    def add(self, steps: Iterable[Step], *, held_out: bool = False) -> None:
        """Take the iterations of one burst."""
        for step in steps:
            times = {"start_ns": step.start_ns, "ns": step.end_ns - step.start_ns, "held_out": int(held_out)}
            self.rows.append(times | Composition.of(step.batch)._asdict())

    def table(self) -> pd.DataFrame:
        """All iterations, in order of time."""
        columns = ["start_ns", "ns", "held_out", *COMPOSITION]
        return pd.DataFrame(self.rows, columns=columns, dtype="int64").sort_values("start_ns")

    def later(self, now_ns: int) -> "Measured":
        """The same with its end at `now_ns`: what another process measured, on its own clock, came just before."""
        last = max([*self.speed.times_ns, *(row["start_ns"] + row["ns"] for row in self.rows)], default=now_ns)
        shift = now_ns - last
        rows = [row | {"start_ns": row["start_ns"] + shift} for row in self.rows]
        speed = ReferenceBursts([time + shift for time in self.speed.times_ns], list(self.speed.burst_ns))
        return replace(self, rows=rows, speed=speed)


def schedule(rounds: Sequence[Sequence[Episode]], held_out: Sequence[Episode]) -> list[tuple[Episode, bool]]:
    """In which order to run the bursts of each round, and which are held out: the same ones in every round.

    Every round has another order, so that a drift or a busy neighbour spreads over all of them. The first goes from
    coarse to fine (van der Corput's sequence over the bursts by cost), from a dear one on, which tells best how long
    the others will take: should the time not suffice for all, what was measured spans the whole range.
    """
    by_cost = sorted(rounds[0], key=cost)
    ranks = sorted(range(len(by_cost)), key=lambda rank: int(f"{rank + 1:016b}"[::-1], 2))
    order = [(by_cost[rank], False) for rank in ranks]
    for number, episode in enumerate(sorted(held_out, key=cost)):  # evenly spread, the first one early
        order.insert(2 + number * (1 + len(by_cost) // len(held_out)), (episode, True))
    for number, planned in enumerate(rounds[1:], 1):
        again = [*((episode, False) for episode in planned), *((episode, True) for episode in held_out)]
        random.Random(number).shuffle(again)
        order += again
    return order


def iteration_table(iterations: pd.DataFrame, speed: ReferenceBursts) -> pd.DataFrame:
    """``iteration.csv``: one row a composition, its repeats summed up; times in ns at the mean speed."""
    scaled = iterations["ns"] / speed.slowness(iterations["start_ns"].to_numpy(dtype=float))
    grouped = scaled.groupby([iterations[name] for name in COMPOSITION])
    table = pd.DataFrame(
        {
            "repeats": grouped.size(),
            "median_ns": grouped.median().round(),
            "p10_ns": grouped.quantile(0.1).round(),
            "p90_ns": grouped.quantile(0.9).round(),
        }
    )
    return table.astype("int64").reset_index()


def noise_record(iterations: pd.DataFrame, predicted_ns: np.ndarray) -> pd.DataFrame:
    """``noise.csv``: what each iteration took over what is predicted, whatever the machine's speed.

    Parameters
    ----------
    iterations : pandas.DataFrame of shape (n, ...)
        In order of time.
    predicted_ns : numpy.ndarray of shape (n,)

    Returns
    -------
    pandas.DataFrame of shape (n, 2)
        ``time_ns`` since the first iteration, ``ratio``.
    """
    start = iterations["start_ns"]
    return pd.DataFrame({"time_ns": start - start.iloc[0], "ratio": (iterations["ns"] / predicted_ns).round(4)})
