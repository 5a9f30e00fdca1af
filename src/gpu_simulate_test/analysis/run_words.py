"""What the page of one simulated run says in words: what was simulated, what to doubt, how to read it."""

from typing import Any

from gpu_simulate_test.analysis.calibration import calibration_of
from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.findings import look_up
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import count, number, percent
from gpu_simulate_test.analysis.run_figures import num_gpus_of
from gpu_simulate_test.analysis.slo import objectives
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.io.metadata import sources_told
from gpu_simulate_test.io.tables import share_outside_profile

_ARRIVALS = {  # by kind; what else is told of it
    "poisson": ("Poisson", "rate_per_s"),
    "gamma": ("gamma", "rate_per_s"),
    "ramp": ("ramp", "rate_per_s"),
    "fixed_interval": ("evenly spaced", ""),
    "closed_loop": ("closed loop", "concurrency"),
    "trace": ("as recorded", ""),
}
_TOLD = {"rate_per_s": "{} requests a second", "concurrency": "{} requests at a time"}


def limits_of(run: Run) -> EngineLimits:
    """Those that it was simulated with."""
    return EngineLimits.model_construct(**run.meta["settings"]["limits"])


def simulated(run: Run, num_samples: int) -> list[dict[str, str]]:
    """What was simulated, a row each; what is not known is left out."""
    meta, limits = run.meta, limits_of(run)
    calibration = calibration_of(run)
    rows = {
        "Run": look_up(meta, "run_id") or run.path.name,
        "Model": look_up(meta, "model"),
        "Hardware": hardware(run) + _split(limits, look_up(meta, "settings.router")),
        "Data type": f"{limits.dtype}, KV cache {'as that' if limits.kv_cache_dtype == 'auto' else 'fp8'}",
        "Scheduler": look_up(meta, "settings.scheduler") + _switches(limits),
        "Loop": "our core" if look_up(meta, "loop.name") == "core" else "Vidur's own",
        "Predictor": f"calibrated, on {', '.join(calibration.runs)}" if calibration else look_up(meta, "predictor"),
        "Profile": look_up(meta, "profile_source") or look_up(meta, "profiling_root"),
        "Held out of the profile": _held_out(meta),
        "Batch limits": f"{count(limits.max_num_seqs, 'request')}, {count(limits.max_num_batched_tokens, 'token')}",
        "KV cache": f"{count(limits.num_blocks, 'block')} of {count(limits.block_size, 'token')}"
        + (", of each replica" if limits.data_parallel > 1 else ""),
        "Limits and output lengths from": look_up(meta, "real_run_dir"),
        "Requests": _requests(run),
        "Arrivals": _arrivals(meta),
        "Workload": look_up(meta, "workload_sha256")[:12],
        "Simulations with noise": count(num_samples) if num_samples else "none",
        "Outside the profiled range": _outside(run),
    }
    return [{"label": label, "value": value} for label, value in rows.items() if value]


def hardware(run: Run) -> str:
    """What serves, as ``4 x h100``."""
    gpus, name = num_gpus_of(run), look_up(run.meta, "params.hardware.name") or "an unknown device"
    return f"{gpus} x {name}" if gpus > 1 else name


def _split(limits: EngineLimits, router: str) -> str:
    """Over how many GPUs."""
    parts = (
        (limits.tensor_parallel, "GPUs share a layer"),
        (limits.expert_parallel, "groups of experts"),
        (limits.pipeline_parallel, "pipeline stages"),
        (limits.data_parallel, f"replicas, {router}"),
    )
    return "".join(f", {size} {what}" for size, what in parts if size > 1)


def _switches(limits: EngineLimits) -> str:
    on = {"prefix caching": limits.enable_prefix_caching, "scheduled one ahead": limits.async_scheduling}
    return "".join(f", {name}" for name, is_on in on.items() if is_on)


def _held_out(meta: dict[str, Any]) -> str:
    found = meta.get("profile_held_out") or {}
    if not found.get("iterations"):
        return ""
    error, total = percent(found["median_abs_error"]), percent(found["total_error"], sign=True)
    return f"{count(found['iterations'], 'iteration')}: {error} off in the median, {total} in all"


def _requests(run: Run) -> str:
    done = run.requests[is_ok(run.requests)]
    prompt, output = (float(done[f"num_{kind}"].mean()) for kind in ("prefill_tokens", "decode_tokens_actual"))
    said = f"{count(len(done))}, on average {number(prompt, 0)} prompt and {number(output, 0)} output tokens"
    if "num_cached_tokens" in done and (cached := float(done["num_cached_tokens"].fillna(0).sum())):
        said += f"; {percent(cached / float(done['num_prefill_tokens'].sum()))} of the prompts found in the KV cache"
    return said


def _arrivals(meta: dict[str, Any]) -> str:
    arrival = "params.workload.arrival"
    kind = look_up(meta, f"{arrival}.kind")
    name, told = _ARRIVALS.get(kind, (kind, ""))
    value = look_up(meta, f"{arrival}.{told}") if told else ""
    return f"{name}, {_TOLD[told].format(value)}" if value else name


def _outside(run: Run) -> str:
    if run.iterations is None or "in_profile" not in run.iterations or run.iterations.empty:
        return ""
    return f"{percent(share_outside_profile(run.iterations))} of the engine's time"


def doubts(run: Run, num_samples: int) -> list[str]:
    """What speaks against the figures, a sentence each."""
    meta, done = run.meta, run.requests[is_ok(run.requests)]
    found = []
    if (outside := _outside(run)) and not outside.startswith("0.0 "):
        found.append(f"{outside} lies outside what was profiled; there, times are extrapolated.")
    found += [
        f"The profile is of another {one['what']}: measured with {one['profile']}, simulated with {one['settings']}."
        for one in meta.get("profile_mismatch") or []
    ]
    if meta.get("profile_sources"):
        found.append(f"Operator times are from a database: {sources_told(meta['profile_sources'])}.")
        if not meta.get("calibration"):
            found.append("The host's own work, such as scheduling, sampling and HTTP, is not in them: not calibrated.")
    if meta["settings"].get("num_blocks_estimated"):
        found.append("The number of KV blocks is an estimate of the database's memory model.")
    if difference := look_up(meta, "loop.difference"):
        found.append(f"Our core differs from Vidur's loop, which was used: {difference}.")
    if not num_samples:
        none = look_up(meta, "params.vidur.samples") == "0"
        why = "vidur.samples=0" if none else "the profile has no record of how its iterations scattered"
        found.append(f"No ranges: {why}.")
    if failed := len(run.requests) - len(done):
        found.append(f"{count(failed, 'request')} failed; no latency is of them.")
    if len(done) < 100:
        found.append(f"With {count(len(done), 'request')}, P99 rests on the slowest one or two.")
    if single := int((done["num_decode_tokens_actual"] == 1).sum()):
        found.append(f"TPOT is undefined for {count(single, 'request')} with one output token.")
    return [f"{one[0].upper()}{one[1:]}" for one in found]


def how_to_read(run: Run, slo: SloConfig, num_samples: int) -> list[str]:
    """What the figures mean, a sentence or two each."""
    said = [
        "Over time: a line is the mean over each part of the run, the band above it reaches to the most at any moment "
        "of it. Of the time to first token it is the median and the longest of the requests that arrived then.",
        "A request waits until the first iteration that holds it; one that waits again after a preemption does not "
        "count. Batch size and KV cache are those of the iterations under way, of all replicas together; between "
        "iterations they are 0.",
        "KV cache in use: the tokens that the requests of an iteration hold at its end. A request that sits one out, "
        "the unfilled rest of a last block and what is kept for prompts to come are not in it; a shared prefix counts "
        "for each request. So it is an approximation of the blocks in use.",
        "Throughput counts requests that completed, from the first arrival to the last completion.",
    ]
    if run.closed_loop:
        said.append("Closed loop: a request's arrival is when it was sent, and the rate is what was completed.")
    if num_samples:
        said.append(
            f"A figure is the mean of {count(num_samples, 'simulation')}, each with the scatter of the profile's own "
            "iterations and calibrated constants out of their intervals, where there are such; 95 % of them lie in the "
            "range beside it. Charts and single requests are of one without."
        )
    if objectives(slo):
        said.append(
            "A request meets an objective when its latency is at most the limit; its TBT is the mean time between its "
            "tokens. Goodput counts those that do, for each second."
        )
    return said
