"""A real run held against its own repeats is not condemned; a simulation that is 20 % slow is."""

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.floor import floor_of
from gpu_simulate_test.analysis.samples import METRICS, PERCENTILES, Floats
from gpu_simulate_test.analysis.verdict import judge, verdict_of

TRIALS, REPEATS = 20, 10
FIGURES = len(METRICS) * len(PERCENTILES)


def figures(rng: np.random.Generator) -> Floats:
    """Percentiles of some runs on a noisy machine: a factor for the run, one for each figure, tails worst."""
    tails = np.tile([0.02, 0.03, 0.06], len(METRICS))
    luck = 0.04 * rng.standard_normal((REPEATS + 1, 1)) + tails * rng.standard_normal((REPEATS + 1, FIGURES))
    figures: Floats = 1e8 * np.exp(luck)
    return figures


def verdict(real: Floats, sim: Floats) -> str:
    mean, floor = real.mean(axis=0), floor_of(real)
    table = pd.DataFrame(
        {"metric": np.repeat(METRICS, len(PERCENTILES)), "statistic": list(PERCENTILES) * len(METRICS)}
    )
    table = table.assign(error_ns=sim - mean, relative_error=sim / mean - 1, floor_ns=floor, floor=floor / mean)
    table = table.assign(n_repeats=len(real))
    return verdict_of(table.assign(verdict=judge(table, 0.05)), pd.DataFrame({"status": ["passed"]}))


def test_in_nineteen_of_twenty_trials_a_real_run_agrees_with_its_own_repeats() -> None:
    rng = np.random.default_rng(7)
    found = [verdict(runs[:-1], runs[-1]) for runs in (figures(rng) for _ in range(TRIALS))]
    assert sum(word in ("within the floor", "within tolerance") for word in found) >= 19


def test_in_nineteen_of_twenty_trials_a_simulation_20_percent_slow_is_off() -> None:
    rng = np.random.default_rng(7)
    found = [verdict(runs[:-1], 1.2e8 * np.ones(FIGURES)) for runs in (figures(rng) for _ in range(TRIALS))]
    assert found.count("off") >= 19
