"""The highest rate, or concurrency, that meets the objectives, by as few simulations as decide it.

Attainment falls as the load rises. So two simulations, one that meets the objectives and one that misses them, hold the
capacity between them, and each further one narrows that. A simulation says more than met or missed: one that was
overloaded shows the throughput that the deployment is capable of, and a share of requests is far from or close to the
one that is asked for.
"""

import math
from dataclasses import dataclass, field, replace

MET, MISSED, SHORT = "met", "missed", "too short to tell"

_ALONE = 0.05  # requests in the system, on average: what misses then, misses without any load
_LONGEST_S = 1e6  # of simulated time: its clock, in floating point, tells nanoseconds apart for not much longer
_SATURATED = 0.9  # of the rate asked for: where no more than that completes, it is as much as can
_OF_THROUGHPUT, _CLOSE = 0.8, 0.9  # guesses of the capacity
_ROUNDING = 1e-3  # of values to four digits


@dataclass(frozen=True)
class Trial:
    """What one simulation said.

    Attributes
    ----------
    value : float
        The rate, requests/s, or the concurrency.
    job : int
        Its number in the sweep.
    attainment : float
        Share of its requests that met all objectives.
    low, high : float or None
        95 % of its simulations with noise lie between, where there are any.
    num_requests : int
    throughput : float
        Requests/s that completed while there was work for the whole deployment.
    e2e_s : float
        Mean time that a request was in the system.
    lasting : str
        `MET` where a longer run would say the same; `MISSED` where requests piled up, so that a longer run must miss;
        `SHORT` where the run was too short to tell.
    """

    value: float
    job: int
    attainment: float
    low: float | None
    high: float | None
    num_requests: int
    throughput: float
    e2e_s: float
    lasting: str = MET

    def share(self, side: str = "") -> float:
        """Attainment, or the end ``low`` or ``high`` of its interval."""
        end = {"low": self.low, "high": self.high}.get(side)
        return self.attainment if end is None else end

    def verdict(self, target: float, side: str = "") -> str:
        """`MET`, `MISSED` or `SHORT`, by `share`."""
        return self.lasting if self.share(side) >= target else MISSED


@dataclass(frozen=True)
class Bracket:
    """The lowest value that did not meet the objectives, and the highest below it that did; None where there is none.

    Attributes
    ----------
    met, above : Trial or None
    """

    met: Trial | None
    above: Trial | None


@dataclass
class Search:
    """The search of one combination of settings.

    Parameters
    ----------
    target : float
        Share of requests that must meet all objectives.
    guess : float
        The first value to try.
    tolerance : float
        Relative distance of the two values that decide it.
    low, high : float, optional
        Nothing below or above is tried.
    whole : bool
        Values are integers from 1: concurrencies, not rates.
    trials : list of Trial
        So far.
    """

    target: float
    guess: float
    tolerance: float = 0.05
    low: float | None = None
    high: float | None = None
    whole: bool = False
    trials: list[Trial] = field(default_factory=list)

    @property
    def sides(self) -> tuple[str, ...]:
        """By what it is decided: the attainment, and where there are simulations with noise both ends of its range."""
        return ("", "low", "high") if self.trials and self.trials[0].low is not None else ("",)

    def next(self) -> float | None:
        """The next value to try; None where all is decided."""
        if not self.trials:
            return self._allowed(self.guess)
        return next((value for side in self.sides if (value := self._next(side)) is not None), None)

    def bracket(self, side: str = "") -> Bracket:
        """What is known so far, by the attainment or by an end of its interval."""
        ordered = sorted(self.trials, key=lambda trial: trial.value)
        met = [trial.verdict(self.target, side) == MET for trial in ordered]
        first = met.index(False) if False in met else len(met)
        return Bracket(ordered[first - 1] if first else None, ordered[first] if first < len(met) else None)

    def is_alone(self, trial: Trial) -> bool:
        """Whether hardly ever two requests were in the system at a time."""
        return trial.value <= (1.0 if self.whole else _ALONE / trial.e2e_s) * (1 + _ROUNDING)

    def _next(self, side: str) -> float | None:
        found = self.bracket(side)
        if found.above is None:
            value: float | None = self._higher()
        elif found.met is None:
            value = self._lower(found.above)
        else:
            value = self._between(found.met, found.above, side)
        if value is None:
            return None
        value = self._allowed(value)
        return None if any(trial.value == value for trial in self.trials) else value

    def _allowed(self, value: float) -> float:
        """Within the limits, and with no more digits than matter."""
        value = float(max(1, round(value))) if self.whole else float(f"{value:.4g}")
        return max(self.low or 0.0, min(value, self.high or math.inf))

    def _higher(self) -> float:
        values = [trial.value for trial in self.trials]
        return math.ldexp(max(values), 1 << min(len(values) - 1, 4))  # 2, 4, 16 times the one before

    def _lower(self, missed: Trial) -> float | None:
        """Below the lowest value, which misses: what the throughput says, then half of it, then no load at all."""
        lowest = 1.0 if self.whole else max(_ALONE / missed.e2e_s, missed.num_requests / _LONGEST_S)
        if missed.value <= lowest * (1 + _ROUNDING):
            return None
        if self.whole:
            return missed.value / 2 if len(self.trials) < 3 else lowest
        if self._saturated(missed):
            return missed.throughput * _OF_THROUGHPUT
        halved = sum(not self._saturated(trial) for trial in self.trials) > 1
        return min(missed.value / 2, lowest) if halved else max(missed.value / 2, lowest)

    def _between(self, met: Trial, above: Trial, side: str) -> float | None:
        bottom, top, apart = met.value, above.value, 1 + self.tolerance
        if top / bottom <= apart * (1 + _ROUNDING) or (self.whole and top - bottom <= 1):
            return None
        most = above.throughput
        if self._saturated(above) and bottom * apart < most < top:
            value = _CLOSE * most if bottom < _OF_THROUGHPUT * most else most
        elif top > 2 * bottom or self._slow(side):
            value = math.sqrt(bottom * top)
        else:
            value = self._across(self._crossing(met, above, side), bottom, top)
        return min(max(round(value), bottom + 1), top - 1) if self.whole else value

    def _slow(self, side: str) -> bool:
        """Whether the last trial left more than half of the way between: then the next one is half-way."""
        now, before = self.bracket(side), replace(self, trials=self.trials[:-1]).bracket(side)
        if not (now.met and now.above and before.met and before.above):
            return False
        return (now.above.value / now.met.value) ** 2 > before.above.value / before.met.value

    def _across(self, crossing: float, bottom: float, top: float) -> float:
        """Where a trial leaves as little as is asked for, if the capacity is where it seems to be."""
        apart = 1 + self.tolerance * (1 - _ROUNDING)
        if crossing <= bottom * apart:
            return bottom * apart
        return top / apart if crossing >= top / apart else min(crossing * math.sqrt(apart), top / apart)

    def _crossing(self, met: Trial, above: Trial, side: str) -> float:
        """Where a straight line between two trials, on logarithmic and logistic scales, has the share asked for."""
        over, under = (self._distance(trial, side) for trial in (met, above))
        part = over / (over - under) if over > 0 > under else 0.5
        return float(met.value * (above.value / met.value) ** part)

    def _saturated(self, trial: Trial) -> bool:
        return not self.whole and trial.throughput < _SATURATED * trial.value

    def _distance(self, trial: Trial, side: str) -> float:
        """How far a share is above the one asked for, on the logistic scale; one request is half there and half not."""
        edge = 0.5 / trial.num_requests
        share, target = (min(max(one, edge), 1 - edge) for one in (trial.share(side), self.target))
        return math.log(share / (1 - share)) - math.log(target / (1 - target))
