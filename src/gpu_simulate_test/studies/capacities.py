"""The capacity of many combinations of settings, side by side: each round is a simulation of each still open."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpu_simulate_test.errors import ConfigError, StageError
from gpu_simulate_test.io.progress import progress
from gpu_simulate_test.studies.capacity import SHORT, Search, Trial
from gpu_simulate_test.studies.jobs import Outcome
from gpu_simulate_test.studies.settings import CONCURRENCY, RATE
from gpu_simulate_test.studies.trials import ENOUGH, trial_of

Launch = Callable[[list[list[str]], int], Sequence[Outcome]]
"""Runs jobs, each by its overrides, numbered from one on; what became of each."""


@dataclass
class Combination:
    """One combination of settings, and what is known of its capacity.

    Attributes
    ----------
    overrides : list of str
        Without the load.
    key : str
        The setting that is searched.
    search : Search
    error : str or None
        Why there is nothing to search.
    outcomes : dict of float to Outcome
        By the load.
    """

    overrides: list[str]
    key: str
    search: Search
    error: str | None = None
    outcomes: dict[float, Outcome] = field(default_factory=dict)
    is_open: bool = True

    @property
    def best(self) -> Outcome | None:
        """The job at the highest load that met the objectives."""
        met = self.search.bracket().met
        return None if met is None else self.outcomes[met.value]


def searched_key(kind: str, swept: Sequence[str]) -> str:
    """The setting that says how much load there is, by the kind of arrivals.

    Raises
    ------
    ConfigError
        There is none, or the command line sweeps it.
    """
    if kind == "closed_loop":
        key = CONCURRENCY
    elif kind in ("poisson", "gamma"):
        key = RATE
    else:
        raise ConfigError(
            f"workload.arrival.kind={kind} has no rate to search: hydra/sweeper=capacity needs poisson, gamma or "
            "closed_loop"
        )
    if key in swept:
        raise ConfigError(f"{key} is what is searched: give one value, to begin with, or none")
    return key


def search_all(
    combinations: Sequence[Combination], launch: Launch, root: Path, max_rounds: int, number: int = 0
) -> None:
    """Search until every capacity is decided, or the rounds are over.

    Parameters
    ----------
    combinations : sequence of Combination
        What is found is added to them.
    launch : callable
    root : Path
        ``output.root``.
    max_rounds : int
    number : int
        Of the first job.
    """
    with progress("capacity", len(combinations), "decided") as bar:
        for turn in range(max_rounds):
            tries = [
                (one, value) for one in combinations if one.error is None and (value := one.search.next()) is not None
            ]
            for one in combinations:
                one.is_open = any(one is other for other, _ in tries)
            if not tries:
                return
            bar.note(f"round {turn + 1}, {_tried(*tries[0])}")
            bar.update(len(combinations) - len(tries) - bar.done)
            jobs = [[*one.overrides, f"{one.key}={written(value)}"] for one, value in tries]
            for (one, value), outcome in zip(tries, launch(jobs, number), strict=True):
                _learn(one, value, outcome, root)
            number += len(tries)
    for one in combinations:
        one.is_open = one.error is None and one.search.next() is not None


def _learn(one: Combination, value: float, outcome: Outcome, root: Path) -> None:
    """Add what became of a simulation."""
    one.outcomes[value] = outcome
    try:
        one.error = outcome.error
        if outcome.status == "ok":
            one.search.trials.append(trial_of(outcome, value, root))
    except StageError as error:
        one.error = str(error)


def _tried(one: Combination, value: float) -> str:
    """The load that is tried, and what is known so far."""
    found = one.search.bracket()
    ends = [f"met at {written(found.met.value)}"] if found.met else []
    ends += [f"not at {written(found.above.value)}"] if found.above else []
    return ", ".join([f"{one.key.rpartition('.')[2]}={written(value)}", *ends])


def written(value: float) -> str:
    """A load as one types it."""
    return str(int(value)) if value == int(value) and value < 1e15 else repr(value)


def remark(one: Combination, max_rounds: int) -> str:
    """What is to be said of a capacity besides its figure; empty where there is nothing."""
    if one.error is not None:
        return f"failed: {one.error}"
    search, found = one.search, one.search.bracket()
    said = [f"not decided in {max_rounds} rounds"] if one.is_open else []
    if found.above is None:
        said.append("met at the highest value that is allowed")
    elif found.above.verdict(search.target) == SHORT:
        said.append(
            f"not limited by the objectives: at {written(found.above.value)} they are met, but requests arrive for "
            f"less than {ENOUGH} times the mean time in the system, too short to tell; raise workload.num_requests"
        )
    elif found.above.attainment >= search.target:
        said.append(f"at {written(found.above.value)} the objectives are met so far, but the queue grows")
    if found.met is None and found.above is not None and not one.is_open:
        said.append(_without_load(search, found.above))
    return "; ".join(said)


def _without_load(search: Search, lowest: Trial) -> str:
    if search.is_alone(lowest):
        return f"none: a request alone misses them, {lowest.attainment:.1%} of the requests meet them without any load"
    return "missed at the lowest value that can be tried"
