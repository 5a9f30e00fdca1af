"""What is found out about a real run and a simulated one, each thing once.

A broken finding is refused or noted (`gpu_simulate_test.analysis.compare`), graded by a gate
(`gpu_simulate_test.analysis.gates`) and shown by both reports: all of them read it from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import count, ms, percent
from gpu_simulate_test.analysis.samples import Ints, ints
from gpu_simulate_test.io.metadata import sources_told
from gpu_simulate_test.io.tables import share_outside_profile

# Both runs take arrivals from the workload; a simulator that keeps seconds as floats may round them.
_ARRIVAL_TOLERANCE_NS = 1_000
_MAX_OUTSIDE, _GRAVE_OUTSIDE = 0.01, 0.20
_MAX_HELD_OUT = 0.05
_MIN_MEASURED = 0.80
_HARDWARE = ("params.hardware.name", "hardware.hardware_id")  # ours, and another tool's
_LIMITS = (  # the gate, and the limit
    ("KV blocks", "num_blocks"),
    ("KV block size", "block_size"),
    ("requests in a batch", "max_num_seqs"),
    ("tokens in a batch", "max_num_batched_tokens"),
)
_SWITCHES = (("prefix caching", "enable_prefix_caching"), ("asynchronous scheduling", "async_scheduling"))
_HASH = 12  # characters of a hash that people compare
LEFT_OUT, COMPARED, CUT = "left out", "compared all the same", "each pair is cut to the tokens that both made"


@dataclass(frozen=True)
class Finding:
    """One thing that has to hold before the figures of a comparison mean what they seem to.

    Attributes
    ----------
    name : str
        Of the thing: ``workload``, ``KV blocks``.
    holds : bool or None
        None when a run does not record it.
    real, sim : str
        What either run says; empty where it says nothing or is not concerned.
    detail : str
        A clause for a reader.
    grave : bool
        When it does not hold, the figures mean nothing.
    otherwise : str
        What a comparison does all the same, when the user allowed it to.
    """

    name: str
    holds: bool | None
    real: str = ""
    sim: str = ""
    detail: str = ""
    grave: bool = False
    otherwise: str = COMPARED

    @property
    def value(self) -> str:
        """What both runs say, or either; that nothing was recorded."""
        return "not recorded" if self.holds is None else ", ".join(dict.fromkeys(filter(None, (self.real, self.sim))))


def find(real: Run, sim: Run) -> list[Finding]:
    """All that the two runs themselves say, whatever their figures."""
    return [
        *same_subject(real, sim),
        *recorded_arrivals(real),
        *same_limits(real, sim),
        *of_vidurs_loop(sim),
        *of_the_profile(sim),
    ]


def same_subject(real: Run, sim: Run) -> list[Finding]:
    """Workload, model and hardware, as far as the runs name them."""
    return [
        _same("workload", real, sim, "workload_sha256"),
        _same("model", real, sim, "model"),
        _same("hardware", real, sim, *_HARDWARE),
    ]


def _same(name: str, real: Run, sim: Run, *keys: str) -> Finding:
    full = [look_up(run.meta, *keys) for run in (real, sim)]
    of_real, of_sim = (value[:_HASH] if name == "workload" else value for value in full)
    if not all(full):
        who = "neither run names" if not any(full) else f"the {'simulated' if full[0] else 'real'} run does not name"
        return Finding(name, None, of_real, of_sim, f"{who} its {name}", grave=name == "workload")
    holds = full[0] == full[1]
    return Finding(
        name, holds, of_real, of_sim, "the same in both runs" if holds else "the two runs differ", grave=True
    )


def same_limits(real: Run, sim: Run) -> list[Finding]:
    """Batch limits and KV cache, those in force; where one is not recorded, what was asked for, for the record."""
    found = []
    for name, key in (*_LIMITS, *_SWITCHES):
        in_force = look_up(real.meta, f"engine.limits.{key}"), look_up(sim.meta, f"settings.limits.{key}")
        if not all(in_force) and (name, key) in _SWITCHES:  # an old run
            continue
        asked = [look_up(run.meta, f"params.limits.{key}") for run in (real, sim)]
        holds = in_force[0] == in_force[1] if all(in_force) else None
        detail = {
            None: f"engine.limits.{key} of the real run or settings.limits.{key} of the simulated run",
            True: "the same in both runs",
            False: "different engines: run vidur-sim with real_run_dir",
        }[holds]
        if key == "num_blocks" and look_up(sim.meta, "settings.num_blocks_estimated") == "True":
            detail = "the simulated run's are an estimate of the operator database's memory model"
        found.append(Finding(name, holds, in_force[0] or asked[0], in_force[1] or asked[1], detail))
    return found


@dataclass(frozen=True)
class Pairing:
    """The requests of one real run and a simulated one.

    Attributes
    ----------
    findings : list of Finding
        Same requests, prompt lengths, output lengths asked for, arrivals.
    common : ndarray of shape (n_common,)
        Ids, ascending, that both have.
    paired : ndarray of shape (n_pairs,)
        Those of them that completed on both sides.
    failed : (int, int)
        How many of the common ones failed in the real run and in the simulated one.
    """

    findings: list[Finding]
    common: Ints
    paired: Ints
    failed: tuple[int, int]


def same_requests(real: Run, sim: Run) -> Pairing:
    """Pair the requests of two runs by id, and see whether they are the same ones."""
    real_ids, sim_ids = (ints(run.requests["request_id"]) for run in (real, sim))
    alone, common = np.setxor1d(real_ids, sim_ids), np.intersect1d(real_ids, sim_ids)
    owner = "real" if len(alone) and alone[0] in real_ids else "simulated"
    detail = (
        f"{count(len(alone), 'request')} in only one of the runs, the first being request {alone[0]} of the {owner} run"
        if len(alone)
        else ""
    )
    findings = [Finding("requests", not len(alone), detail=detail, otherwise=LEFT_OUT)]
    of_real, of_sim = rows_of(real, common), rows_of(sim, common)
    for column, name in (("num_prefill_tokens", "prompt lengths"), ("num_decode_tokens", "asked output lengths")):
        findings.append(_equal(name, of_real[column], of_sim[column], common, COMPARED))
    if not (real.closed_loop and sim.closed_loop):
        findings.append(_same_arrivals(ints(of_real["arrival_time_ns"]), ints(of_sim["arrival_time_ns"])))
    ok = [is_ok(rows) for rows in (of_real, of_sim)]
    return Pairing(findings, common, common[ok[0] & ok[1]], (int((~ok[0]).sum()), int((~ok[1]).sum())))


def same_lengths(real: pd.DataFrame, sim: pd.DataFrame) -> Finding:
    """Whether the rows of paired requests made as many tokens on both sides."""
    made, ids = "num_decode_tokens_actual", ints(real["request_id"])
    return _equal("output tokens made", real[made], sim[made], ids, CUT)


def _equal(name: str, real: "pd.Series[int]", sim: "pd.Series[int]", ids: Ints, otherwise: str) -> Finding:
    of_real, of_sim = ints(real), ints(sim)
    differs = np.flatnonzero(of_real != of_sim)
    if not len(differs):
        return Finding(name, True)
    first = differs[0]
    detail = (
        f"{name} differ in {count(len(differs))} of {count(len(ids), 'request')}, the first being request {ids[first]} "
        f"({of_real[first]} real, {of_sim[first]} simulated)"
    )
    return Finding(name, False, str(of_real[first]), str(of_sim[first]), detail, otherwise=otherwise)


def _same_arrivals(real: Ints, sim: Ints) -> Finding:
    """Compare arrival schedules, wherever each run puts its zero."""
    apart = int(np.abs((real - real[:1]) - (sim - sim[:1])).max(initial=0))
    return Finding(
        "arrival schedules",
        apart <= _ARRIVAL_TOLERANCE_NS,
        detail=f"arrival schedules are up to {ms(apart)} ms apart",
    )


def recorded_arrivals(real: Run) -> list[Finding]:
    """Only of a run that was recorded without them."""
    if real.meta.get("arrivals_recorded", True):
        return []
    detail = "those of the workload were taken, so that queues need not be the real ones"
    return [Finding("arrivals", None, detail=detail)]


def of_vidurs_loop(sim: Run) -> list[Finding]:
    """Whether the simulation is what Vidur's own loop would have made, where the run says."""
    name, loop = "simulated loop", sim.meta.get("loop")
    if not loop:
        return []
    if loop.get("difference"):
        return [Finding(name, False, sim="Vidur's own", detail=f"our core differs: {loop['difference']}")]
    if look_up(sim.meta, "settings.scheduler") == "vllm_v1":
        return [Finding(name, True, sim="our core", detail="vLLM's own rules, for which Vidur has no loop")]
    if loop["name"] == "vidur":
        return [Finding(name, True, sim="Vidur's own", detail="nothing of ours schedules")]
    detail = f"identical to Vidur's on the first {count(loop['checked'])} requests"
    return [Finding(name, True, sim="our core", detail=detail)]


def of_the_profile(sim: Run) -> list[Finding]:
    """What the simulated run says of the profile it was priced with: range covered, error on what was held out."""
    return [*_of_its_engine(sim), *_measured_share(sim), _in_range(sim), _held_out(sim)]


def _of_its_engine(sim: Run) -> list[Finding]:
    """Whether the profile is of the engine that the simulation stands for, where the run says."""
    name, differing = "profile", sim.meta.get("profile_mismatch")
    if differing is None:
        return []
    if not differing:
        return [Finding(name, True, sim="the same engine", detail="engine, attention kernel, threads, as far as known")]
    detail = "; ".join(f"{one['what']} {one['profile']}, simulated for {one['settings']}" for one in differing)
    return [
        Finding(name, False, sim=", ".join(str(one["what"]) for one in differing), detail=f"measured with {detail}")
    ]


def _measured_share(sim: Run) -> list[Finding]:
    """Only of a profile from the operator database."""
    sources = sim.meta.get("profile_sources")
    if not sources:
        return []
    least = min(shares["measured"] + shares["interpolated"] for shares in sources.values())
    detail = f"of the operators' time is not estimated: {sources_told(sources)}"
    return [Finding("measured share", least >= _MIN_MEASURED, sim=percent(least), detail=detail)]


def _in_range(sim: Run) -> Finding:
    name = "profiled range"
    if sim.iterations is None or "in_profile" not in sim.iterations or sim.iterations.empty:
        return Finding(name, None, detail="the simulated run does not say which iterations the profile covers")
    outside = share_outside_profile(sim.iterations)
    return Finding(
        name,
        outside <= _MAX_OUTSIDE,
        sim=percent(outside),
        detail="of the simulated engine time is extrapolated",
        grave=outside > _GRAVE_OUTSIDE,
    )


def _held_out(sim: Run) -> Finding:
    name, held_out = "predictor", sim.meta.get("profile_held_out") or {}
    median, total = held_out.get("median_error"), held_out.get("total_error")
    if median is None or total is None:
        return Finding(name, None, detail="the profile has no held-out error")
    detail = f"median error on iterations held out of the profile, {percent(total, sign=True)} of their total time"
    return Finding(name, abs(median) <= _MAX_HELD_OUT, sim=percent(median, sign=True), detail=detail)


def why_not_judged(metric: str, runs: Sequence[Run], sim: Run, num_tokens: Ints) -> str:
    """Why no compared request has a metric in every run; `num_tokens` are those compared of each."""
    if metric != "ttft" and (num_tokens == 1).all():
        return "every request made one token"

    def lacks(run: Run) -> bool:
        return not run.has_tokens if metric == "tbt" else bool(run.requests["first_token_time_ns"].isna().all())

    of_real, of_sim = any(map(lacks, runs)), lacks(sim)
    if not (of_real or of_sim):
        return "no request has it in every run"
    who = (
        "neither run recorded" if of_real and of_sim else f"the {'real' if of_real else 'simulated'} run did not record"
    )
    return f"{who} {'the times of tokens' if metric == 'tbt' else 'first tokens, as when answers are not streamed'}"


def rows_of(run: Run, ids: Ints) -> pd.DataFrame:
    """Request rows with the ascending `ids`, all of which the run has."""
    return run.requests[run.requests["request_id"].isin(ids)]


def look_up(meta: dict[str, Any], *keys: str) -> str:
    """Find the first dotted key that holds a plain value; empty when none does."""
    for key in keys:
        value: Any = meta
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict | list):
            return " ".join(str(value).split())
    return ""
