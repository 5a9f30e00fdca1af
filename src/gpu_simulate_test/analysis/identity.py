"""What two runs say about themselves, for the first table of a report."""

import re
from collections.abc import Sequence

from gpu_simulate_test.analysis.calibration import calibration_of
from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.findings import Finding, look_up
from gpu_simulate_test.analysis.load_metrics import Run
from gpu_simulate_test.analysis.numbers import count
from gpu_simulate_test.analysis.samples import Ints


def compared(real: Run, sim: Run, findings: Sequence[Finding]) -> list[dict[str, str]]:
    """List what the two runs say about themselves; a row that neither can fill is left out."""
    of_real = _identity(real, {one.name: one.real for one in findings})
    of_sim = _identity(sim, {one.name: one.sim for one in findings})
    of_real["Engine"] = look_up(real.meta, "engine.name", "backend", "params.backend.name")
    ours = look_up(sim.meta, "settings.scheduler") == "vllm_v1"
    named = ["our core, vLLM's rules"] if ours else ["Vidur", look_up(sim.meta, "env.versions.vidur")]
    of_sim["Engine"] = " ".join(filter(None, named))
    of_real["Scheduler"] = look_up(real.meta, "engine.details.scheduler")
    of_sim["Scheduler"] = look_up(sim.meta, "settings.scheduler", "params.vidur.scheduler.name")
    of_real["Predictor"] = "none, measured"
    calibration = calibration_of(sim)
    of_sim["Predictor"] = (
        f"calibrated, on {', '.join(calibration.runs)}"
        if calibration
        else look_up(sim.meta, "predictor", "params.vidur.predictor.name")
    )
    return [
        {"label": label, "real": of_real[label] or "not recorded", "sim": of_sim[label] or "not recorded"}
        for label in of_sim
        if of_real[label] or of_sim[label]
    ]


def _identity(run: Run, said: dict[str, str]) -> dict[str, str]:
    """Collect what both kinds of run record."""
    meta = run.meta
    done = run.requests[is_ok(run.requests)]
    failed = len(run.requests) - len(done)
    commit = look_up(meta, "git_commit")[:10]
    seqs, tokens, blocks, size = (
        said[name] for name in ("requests in a batch", "tokens in a batch", "KV blocks", "KV block size")
    )
    return {
        "Run": look_up(meta, "run_id") or run.path.name,
        "Model": said["model"],
        "Hardware": said["hardware"],
        "Ran on": look_up(meta, "engine.details.device_name", "env.cuda_device_name", "env.cpu"),
        "Data type": look_up(meta, "engine.limits.dtype", "settings.limits.dtype", "params.hardware.dtype"),
        "Engine": "",
        "Scheduler": "",
        "Predictor": "",
        "Batch limits": f"{seqs} requests, {tokens} tokens" if seqs and tokens else "",
        "KV cache": f"{blocks} blocks of {size} tokens" if blocks and size else "",
        "Requests": f"{count(len(done))} completed" + (f", {count(failed)} failed" if failed else ""),
        "Output tokens": count(done["num_decode_tokens_actual"].sum()),
        "Workload": said["workload"] or "unknown",
        "Ended": re.sub(r"\.\d+", "", look_up(meta, "ended_at")).replace("T", " "),
        "Code": f"{commit} with local changes" if commit and meta.get("git_dirty") else commit,
    }


def caveats(real: Run, sim: Run, num_tokens: Ints) -> list[str]:
    """What is not known, or not comparable, of runs that can be compared."""
    notes = []
    for run, side in ((real, "real"), (sim, "simulated")):
        if run.missing:
            notes.append(f"Not known of the {side} run: {', '.join(run.missing)}.")
    if real.closed_loop and sim.closed_loop:
        notes.append("Closed loop: when requests were sent is each run's own, and is not compared; latencies are.")
    if single := int((num_tokens == 1).sum()):
        notes.append(f"TPOT is undefined for {count(single, 'request')} with one output token.")
    return notes
