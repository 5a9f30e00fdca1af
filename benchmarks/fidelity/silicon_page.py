"""The closed-loop points: measured with nothing fitted and with constants from one in ten, and summed up."""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from benchmarks.fidelity import figures
from benchmarks.fidelity.board import NONE, one_line, percent
from benchmarks.fidelity.deployment import commit
from benchmarks.fidelity.figures import Pair, Points, versions
from benchmarks.fidelity.silicon import Point, collection, points, simulate
from benchmarks.fidelity.silicon_fit import Fitted, donors, fit
from gpu_simulate_test.io.provenance import git_state, now

LARGE = {"TPOT": 0.25, "TTFT": 0.5}  # beyond these it is said why
_GPUS = {"b200_sxm": "B200", "h100_sxm": "H100", "h200_sxm": "H200"}
_LOADS = (4, 8, 16, 32, 64, 512)
_DIGITS = 5  # of an error that is kept


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


def measure() -> Points | None:
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
    return kept(outcomes, left_out, fitted)


def kept(outcomes: Sequence[Outcome], left_out: Mapping[str, int], fitted: Fitted) -> Points:
    """What is kept of them: no time of any run, but its errors and what it was."""
    why = Counter(one.plain for one in outcomes if isinstance(one.plain, str))
    return Points(
        date=now()[:10],
        commits=(commit(git_state()),),
        versions=versions(),
        learned=learned(fitted),
        donors=len(fitted.donors),
        left_out=(Counter(left_out) + why).most_common(),
        far=far(outcomes),
        points=[
            figures.Point(
                _kind(one.point),
                one.point.concurrency,
                one.point.described,
                _pair(one.plain),
                _pair(one.calibrated),
            )
            for one in outcomes
        ],
    )


def kinds(of: Sequence[figures.Point]) -> list[tuple[str, list[figures.Point]]]:
    """All, then by where they are from, by model and GPU, by GPU and by concurrency."""
    found: dict[tuple[int, str], list[figures.Point]] = defaultdict(list)
    for point in of:
        low, high = next((low, high) for low, high in pairwise((0, *_LOADS)) if point.concurrency <= high)
        found[0, "**all**"].append(point)
        found[(1, "InferenceX, whose settings and client are published") if point.described else (2, "others")].append(
            point
        )
        found[3, point.kind].append(point)
        found[4, f"on {point.gpu}"].append(point)
        found[5 + _LOADS.index(high), f"{low + 1} to {high} at a time"].append(point)
    return [(kind[1], found[kind]) for kind in sorted(found)]


def signed(of: Sequence[figures.Point], side: str) -> tuple[int, list[str], list[str]]:
    """How many have errors of a side; of TPOT and TTFT the median and mean of the absolute ones and the signed median.

    In %.
    """
    pairs = [pair for point in of if (pair := getattr(point, side))]
    return len(pairs), *([_figures(pairs, metric) for metric in (1, 0)])  # type: ignore[return-value]


def change(of: Sequence[figures.Point]) -> tuple[int, list[str], list[str]]:
    """The absolute ones of the points that were held out, with nothing fitted and calibrated."""
    held_out = [point for point in of if point.calibrated]
    _, *plain = signed(held_out, "plain")
    number, *calibrated = signed(held_out, "calibrated")
    tpot, ttft = (
        [
            f"{before}\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}{after}" if number else NONE
            for before, after in zip(*both, strict=True)
        ][:2]
        for both in zip(plain, calibrated, strict=True)
    )
    return number, tpot, ttft


def far(outcomes: Sequence[Outcome]) -> list[str]:
    """The points that are far off, by the reason as far as it is known."""
    every, found = [one.point for one in outcomes], defaultdict[tuple[str, str], list[float]](list)
    for one in outcomes:
        for (metric, most), error in zip(LARGE.items(), reversed(_pair(one.plain) or ()), strict=False):
            if abs(error) > most:
                found[metric, _reason(metric, one.point, every)].append(error)
    told = sorted(found.items(), key=lambda item: (list(LARGE).index(item[0][0]), -len(item[1])))
    return [f"{metric}, {_range(of)}: {reason}" for (metric, reason), of in told]


def learned(fitted: Fitted) -> str:
    """The constants, in words."""
    host = fitted.host
    factors = ", ".join(
        f"{model} {precision.upper()} on {_GPUS[gpu]} {factor:.2f}"
        for (model, precision, gpu), factor in fitted.factors.items()
    )
    return (
        f"host {host.step_ns / 1e6:.1f} ms a step and {host.sequence_ns / 1e3:.0f} us a sequence, front end "
        f"{host.front_end_ns / 1e6:.0f} ms; kernels: {factors}"
    )


def _figures(pairs: Sequence[Pair], metric: int) -> list[str]:
    if not pairs:
        return [NONE] * 3
    errors = np.array([pair[metric] for pair in pairs])
    absolute = np.abs(errors)
    return [f"{100 * np.median(absolute):.1f}", f"{100 * absolute.mean():.1f}", percent(float(np.median(errors)))]


def _kind(point: Point) -> str:
    model, precision, system = point.group
    return f"{model}, {precision.upper()}, {_GPUS[system]}"


def _told(found: Sequence[Point], what: str) -> Iterator[Point]:
    yield from tqdm(found, desc=what, file=sys.stderr, mininterval=5)


def _attempt(point: Point, serve: Callable[[Point], Pair]) -> Pair | str:
    try:
        ttft, tpot = serve(point)
    except Exception as error:  # one point must not end the others
        return one_line(error)
    return ttft / point.ttft_ms - 1, tpot / point.tpot_ms - 1


def _range(errors: Sequence[float]) -> str:
    if len(errors) == 1:
        return f"1 point, {percent(errors[0])} %"
    return f"{len(errors)} points, {percent(min(errors))} to {percent(max(errors))} %"


def _pair(errors: Pair | str | None) -> Pair | None:
    if not isinstance(errors, tuple):
        return None
    ttft, tpot = errors
    return round(ttft, _DIGITS), round(tpot, _DIGITS)


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
