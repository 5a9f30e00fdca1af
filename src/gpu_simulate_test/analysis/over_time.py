"""How a run went on: what was under way, and what came, in equal parts of its time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.samples import Floats, Ints, ints

_MIN_PARTS, _MAX_PARTS = 12, 90


@dataclass(frozen=True)
class Level:
    """A quantity that jumps, such as the length of a queue, in the parts of a run.

    Attributes
    ----------
    mean : ndarray of shape (n_parts,)
        Over the time of each part.
    peak : ndarray of shape (n_parts,)
        The most that it was at any moment of it.
    """

    mean: Floats
    peak: Floats

    def __truediv__(self, whole: float) -> "Level":
        return Level(self.mean / whole, self.peak / whole)


@dataclass(frozen=True)
class Course:
    """A simulated run in equal parts of its time, from the first arrival to the last completion.

    Attributes
    ----------
    edges_s : ndarray of shape (n_parts + 1,)
        Since the first arrival.
    coarse_s : ndarray of shape (n_parts / 3 + 1,)
        Every third of them, for what is counted.
    in_system, waiting : Level
        Requests that have arrived and not completed; those of them that no iteration has held yet.
    arrivals, completions, output_tokens : ndarray of shape (n_parts / 3,)
        A second. A token that a preempted request's prompt makes when it is processed again is not counted.
    batch, kv_tokens : Level
        Sequences in the iterations under way, and tokens that these hold in the KV cache at the end of theirs; of all
        replicas together. Between iterations nothing is under way.
    ttft_ms : Level
        Median and longest of the requests that arrived then; NaN where none did.
    """

    edges_s: Floats
    coarse_s: Floats
    in_system: Level
    waiting: Level
    arrivals: Floats
    completions: Floats
    output_tokens: Floats
    batch: Level
    kv_tokens: Level
    ttft_ms: Level


def course(run: Run) -> Course:
    """How a simulated run went on, from its requests and iterations."""
    assert run.iterations is not None
    done, rows = run.requests[is_ok(run.requests)], run.iterations
    origin = int(run.requests["arrival_time_ns"].min())

    def since(column: "pd.Series[int]") -> Ints:
        return ints(column) - origin

    arrival, completion, first = (since(done[f"{name}_time_ns"]) for name in ("arrival", "completion", "first_token"))
    begin, end = (since(rows[f"{name}_time_ns"]) for name in ("start", "end"))
    parts = 3 * round(np.clip(2 * np.sqrt(len(done)), _MIN_PARTS, _MAX_PARTS) / 3)
    edges = np.linspace(0, completion.max(), parts + 1)
    coarse = edges[::3]
    one, decoding = np.ones(len(done)), ints(rows["num_decode_seqs"])
    held = ints(rows["kv_tokens_prefill"]) + ints(rows["kv_tokens_decode"])
    return Course(
        edges / 1e9,
        coarse / 1e9,
        spans(edges, arrival, completion, one),
        spans(edges, arrival, since(done["first_scheduled_time_ns"]), one),
        rate(coarse, arrival),
        rate(coarse, completion),
        rate(coarse, first) + rate(coarse, end, decoding),
        spans(edges, begin, end, ints(rows["num_prefill_seqs"]) + decoding),
        spans(edges, begin, end, held + ints(rows["num_prefill_tokens"]) + decoding),
        _ttft_ms(edges, arrival, (first - arrival) / 1e6),
    )


def rate(edges_ns: Floats, times_ns: Ints, weights: Ints | None = None) -> Floats:
    """How many of some moments lie in each part, a second; a moment counts `weights` times."""
    counts, _ = np.histogram(times_ns, edges_ns, weights=weights)
    per_s: Floats = counts / np.diff(edges_ns) * 1e9
    return per_s


def spans(edges_ns: Floats, begin_ns: Ints, end_ns: Ints, weights: npt.ArrayLike) -> Level:
    """The summed weight of the spans that are under way.

    Parameters
    ----------
    edges_ns : ndarray of shape (n_parts + 1,)
    begin_ns, end_ns : ndarray of shape (n_spans,)
    weights : array-like of shape (n_spans,)
        Whole numbers.
    """
    steps = np.asarray(weights, dtype=np.float64)
    times, steps = np.append(begin_ns, end_ns), np.append(steps, -steps)
    order = np.argsort(times, kind="stable")
    at, first = np.unique(times[order], return_index=True)  # what ends and begins at one moment is one step
    value = np.append(0.0, np.cumsum(np.add.reduceat(steps[order], first)))  # before all of them, and from each on
    at = np.append(min(int(at[0]), edges_ns[0]), at)
    area = np.append(0.0, np.cumsum(value[:-1] * np.diff(at)))  # up to each
    last = np.searchsorted(at, edges_ns, side="right") - 1  # the step before each edge
    mean = np.diff(area[last] + value[last] * (edges_ns - at[last])) / np.diff(edges_ns)
    until = np.searchsorted(at, edges_ns[1:], side="left")
    peak = [value[low : max(low + 1, high)].max() for low, high in zip(last[:-1], until, strict=True)]
    return Level(np.maximum(mean, 0.0), np.array(peak))


def _ttft_ms(edges: Floats, arrival: Ints, ttft_ms: Floats) -> Level:
    part = np.clip(np.searchsorted(edges, arrival, side="right") - 1, 0, len(edges) - 2)
    found = np.full((2, len(edges) - 1), np.nan)
    for one in np.unique(part):
        values = ttft_ms[part == one]
        found[:, one] = np.median(values), values.max()
    return Level(found[0], found[1])
