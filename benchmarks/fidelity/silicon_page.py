"""The closed-loop points' part of the page: errors with nothing fitted and with constants from one in ten."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from benchmarks.fidelity.board import NONE, one_line, percent
from benchmarks.fidelity.deployment import commit
from benchmarks.fidelity.silicon import Point, collection, points, simulate
from benchmarks.fidelity.silicon_fit import Fitted, donors, fit
from gpu_simulate_test.io.provenance import git_state

LARGE = {"TPOT": 0.25, "TTFT": 0.5}  # beyond these it is said why
TITLE = "## Closed-loop points"
_GPUS = {"b200_sxm": "B200", "h100_sxm": "H100", "h200_sxm": "H200"}
_LOADS = (4, 8, 16, 32, 64, 512)
Pair = tuple[float, float]
"""Errors of mean TTFT and mean TPOT, simulated / real - 1."""


@dataclass(frozen=True)
class Outcome:
    """A point and its errors.

    Attributes
    ----------
    plain : tuple of float, or str
        With nothing fitted, or why it was not simulated.
    calibrated : tuple of float, or str, or None
        With the constants; None of the points that these come from.
    """

    point: Point
    plain: Pair | str
    calibrated: Pair | str | None


@dataclass(frozen=True)
class Section:
    """All that the page says of them."""

    outcomes: Sequence[Outcome]
    left_out: Sequence[tuple[str, int]]
    fitted: Fitted
    commit: str

    def rows(self) -> list[list[str]]:
        """The table: all, then by where they are from, by model and GPU, by GPU and by concurrency."""
        kinds: dict[tuple[int, str], list[Outcome]] = defaultdict(list)
        for one in self.outcomes:
            for kind in _kinds(one.point):
                kinds[kind].append(one)
        return [[kind[1], *_summary(kinds[kind])] for kind in sorted(kinds)]

    def large(self) -> list[str]:
        """The points that are far off, by the reason as far as it is known."""
        every, found = [one.point for one in self.outcomes], defaultdict[tuple[str, str], list[float]](list)
        for one in self.outcomes:
            for (metric, most), error in zip(LARGE.items(), reversed(_pair(one.plain)), strict=False):
                if abs(error) > most:
                    found[metric, _reason(metric, one.point, every)].append(error)
        told = sorted(found.items(), key=lambda item: (list(LARGE).index(item[0][0]), -len(item[1])))
        return [f"{metric}, {_range(of)}: {reason}" for (metric, reason), of in told]

    def constants(self) -> str:
        """What was learned, in words."""
        host, factors = self.fitted.host, self.fitted.factors
        kernels = ", ".join(
            f"{model} {precision.upper()} on {_GPUS[gpu]} {factor:.2f}"
            for (model, precision, gpu), factor in factors.items()
        )
        return (
            f"host {host.step_ns / 1e6:.1f} ms a step and {host.sequence_ns / 1e3:.0f} us a sequence, front end "
            f"{host.front_end_ns / 1e6:.0f} ms; kernels: {kernels}"
        )


def measure() -> Section | None:
    """Serve every point; some minutes. None where the database is not installed."""
    path = collection()
    if path is None:
        return None
    found, left_out = points(path)
    plain = {point.id: _attempt(point, lambda point: simulate(point)) for point in _told(found, "nothing fitted")}
    fitted = fit([point for point in donors(found) if not isinstance(plain[point.id], str)])
    others = [point for point in found if point.id not in fitted.donors]
    calibrated = {
        point.id: _attempt(point, lambda point: simulate(point, fitted.of(point)))
        for point in _told(others, "calibrated")
    }
    outcomes = [Outcome(point, plain[point.id], calibrated.get(point.id)) for point in found]
    left_out.update(why for why in plain.values() if isinstance(why, str))
    return Section(outcomes, left_out.most_common(), fitted, commit(git_state()))


def _told(found: Sequence[Point], what: str) -> Iterator[Point]:
    yield from tqdm(found, desc=what, file=sys.stderr, mininterval=5)


def _attempt(point: Point, serve: Callable[[Point], Pair]) -> Pair | str:
    try:
        ttft, tpot = serve(point)
    except Exception as error:  # one point must not end the others
        return one_line(error)
    return ttft / point.ttft_ms - 1, tpot / point.tpot_ms - 1


def _kinds(point: Point) -> list[tuple[int, str]]:
    """The rows of the table that a point counts in, with where they stand."""
    model, precision, system = point.group
    low, high = next((low, high) for low, high in pairwise((0, *_LOADS)) if point.concurrency <= high)
    return [
        (0, "**all**"),
        (1, "InferenceX, whose settings and client are published") if point.described else (2, "others"),
        (3, f"{model}, {precision.upper()}, {_GPUS[system]}"),
        (4, f"on {_GPUS[system]}"),
        (5 + _LOADS.index(high), f"{low + 1} to {high} at a time"),
    ]


def _range(errors: Sequence[float]) -> str:
    if len(errors) == 1:
        return f"1 point, {percent(errors[0])} %"
    return f"{len(errors)} points, {percent(min(errors))} to {percent(max(errors))} %"


def _pair(errors: Pair | str | None) -> Pair | tuple[()]:
    return errors if isinstance(errors, tuple) else ()


def _summary(outcomes: Sequence[Outcome]) -> list[str]:
    held_out = [one for one in outcomes if _pair(one.calibrated)]
    plain = [_pair(one.plain) for one in outcomes if _pair(one.plain)]
    sides = plain, [_pair(one.plain) for one in held_out], [_pair(one.calibrated) for one in held_out]
    cells = [[_figures([of[metric] for of in side]) if side else NONE for metric in (1, 0)] for side in sides]
    return [f"{len(plain)}", *cells[0], f"{len(held_out)}", *cells[1], *cells[2]]


def _figures(errors: Sequence[float]) -> str:
    """Median and mean of the absolute errors, and the median with its sign, in %."""
    absolute = np.abs(errors)
    return f"{100 * np.median(absolute):.1f} {100 * absolute.mean():.1f} {percent(float(np.median(errors)))}"


def _reason(metric: str, point: Point, every: Sequence[Point]) -> str:
    """Why a figure is far off, as far as it is known; never from the error itself."""
    alike = ("model", "precision", "system", "version", "tensor", "expert", "prompt", "output")
    same = [other for other in every if all(getattr(other, name) == getattr(point, name) for name in alike)]
    if any(other.concurrency > point.concurrency and other.tpot_ms < point.tpot_ms for other in same):
        return "slower than the same deployment with more requests at a time: no run of what the row says"
    if point.ttft_ms > 1000 * point.tpot_ms:
        return (
            "the first token takes thousands of times as long as any other: the server took far fewer requests at a "
            "time than the client sent"
        )
    kind = " ".join(point.group)
    return next((reason for pattern, reason in _KNOWN[metric] if fnmatch(kind, pattern)), "why is not known")


_OTHER_EXPERTS = (
    "served with FP8 activations in the experts (`VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1`); of vLLM the database has "
    "those kernels with 16-bit ones, which in its tables of SGLang, where they are the same to 2 %, take 1.3 times as "
    "long for 32 tokens and 3.8 times as long for 8,192"
)
_CACHED = (
    "at these TTFT and TPOT one H200 goes through up to 118,000 prompt tokens a second, with 1.6 PFLOP/s of the 1.98 "
    "that it has at all: prompts were found in the cache, or there were more GPUs"
)
_IN_STEP = (
    "how many requests were sent, and how, is not told; with lengths that are all alike they stay in step for ever, "
    "and each waits for the prompts of all"
)
_FRONT_END = "client, HTTP, tokenizer and the engine's own host work are in TTFT and in no table"
_DYNAMO = "served by Dynamo, with how many engines is not told"
_FUSED = (
    "served with FlashInfer's all-reduce (`enable_fi_allreduce_fusion`); the database has vLLM's, which on eight GPUs "
    "takes 9 us for 64 KiB and 26 for 128"
)
_KNOWN = {
    "TPOT": (
        ("gpt-oss* b200_sxm", _OTHER_EXPERTS),
        ("Llama-3.1-8B*", _CACHED),
        ("Llama-3.1-70B * b200_sxm", _FUSED),
        (
            "*A22B*",
            "on two GPUs TPOT is 51 to 56 ms from 4 to 20 requests at a time and from 1,000 to 8,000 tokens: not the "
            "kernels but what launches them takes so long in vLLM 0.12",
        ),
        ("Qwen3-32B fp8 *", _DYNAMO),
        ("Qwen3-32B bf16 *", "vLLM 0.12 schedules step by step: the host, which is in no table, adds to each of them"),
    ),
    "TTFT": (
        (
            "gpt-oss* b200_sxm",
            f"too little for 1,024 prompt tokens: {_FRONT_END}; too much for 8,192: {_OTHER_EXPERTS}",
        ),
        ("gpt-oss* h?00_sxm", "served with Marlin's experts (`VLLM_MXFP4_USE_MARLIN=1`), the database has Triton's"),
        ("Llama-3.1-8B*", _CACHED),
        ("Llama-3.1-70B*", _FRONT_END),
        ("Qwen3-32B fp8 *", _DYNAMO),
        ("Qwen3*", _IN_STEP),
    ),
}
