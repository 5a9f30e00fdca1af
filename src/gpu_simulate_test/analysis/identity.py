"""What two runs say about themselves, for the first table of a report."""

import re
from typing import Any

from gpu_simulate_test.analysis.load_metrics import Run, is_ok

HARDWARE = ("params.hardware.name", "hardware.hardware_id")  # ours, and another tool's


def compared(real: Run, sim: Run) -> list[dict[str, str]]:
    """List what the two runs say about themselves; a row that neither can fill is left out."""
    of_real, of_sim = _identity(real), _identity(sim)
    of_real["Engine"] = look_up(real.meta, "engine.name", "backend", "params.backend.name")
    of_sim["Engine"] = " ".join(filter(None, ["Vidur", look_up(sim.meta, "env.versions.vidur")]))
    of_real["Scheduler"] = look_up(real.meta, "engine.details.scheduler")
    of_sim["Scheduler"] = look_up(sim.meta, "settings.scheduler", "params.vidur.scheduler.name")
    of_real["Predictor"] = "none, measured"
    of_sim["Predictor"] = look_up(sim.meta, "predictor", "params.vidur.predictor.name")
    return [
        {"label": label, "real": of_real[label] or "not recorded", "sim": of_sim[label] or "not recorded"}
        for label in of_sim
        if of_real[label] or of_sim[label]
    ]


def _identity(run: Run) -> dict[str, str]:
    """Collect what both kinds of run record; settings in force go before those asked for."""
    meta = run.meta
    done = run.requests[is_ok(run.requests)]
    failed = len(run.requests) - len(done)
    commit = look_up(meta, "git_commit")[:10]
    seqs, tokens, blocks, size = (
        look_up(meta, f"engine.{key}", f"settings.{simulated}", f"params.backend.{key}")
        for key, simulated in (
            ("max_num_seqs", "batch_cap"),
            ("max_num_batched_tokens", "token_budget"),
            ("num_blocks", "num_blocks"),
            ("block_size", "block_size"),
        )
    )
    return {
        "Run": look_up(meta, "run_id") or run.path.name,
        "Model": look_up(meta, "model"),
        "Hardware": look_up(meta, *HARDWARE),
        "Ran on": look_up(meta, "engine.details.device_name", "env.cuda_device_name", "env.cpu"),
        "Data type": look_up(meta, "engine.dtype", "params.hardware.dtype"),
        "Engine": "",
        "Scheduler": "",
        "Predictor": "",
        "Batch limits": f"{seqs} requests, {tokens} tokens" if seqs and tokens else "",
        "KV cache": f"{blocks} blocks of {size} tokens" if blocks and size else "",
        "Requests": f"{len(done):,} completed" + (f", {failed:,} failed" if failed else ""),
        "Output tokens": f"{int(done['num_decode_tokens_actual'].sum()):,}",
        "Workload": look_up(meta, "workload_sha256")[:12] or "unknown",
        "Ended": re.sub(r"\.\d+", "", look_up(meta, "ended_at")).replace("T", " "),
        "Code": f"{commit} with local changes" if commit and meta.get("git_dirty") else commit,
    }


def look_up(meta: dict[str, Any], *keys: str) -> str:
    """Find the first dotted key that holds a plain value; empty when none does."""
    for key in keys:
        value: Any = meta
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict | list):
            return " ".join(str(value).split())
    return ""
