"""A published vLLM run on an RTX PRO 6000, from the profile that came with it and from the database."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.fidelity.board import Case, Row, absent
from benchmarks.fidelity.deployment import Deployment
from benchmarks.stages import SHARED

DATA = SHARED / "gpu-public" / "rtxpro6000-llama-3.1-8b"
SETTINGS = (
    "model=llama_3_1_8b",
    "hardware=rtx_pro_6000",
    "backend=recorded",
    "backend.engine=vllm",
    "backend.engine_version=0.19.0",
    "workload=trace",
    f"workload.trace={DATA / 'vllm' / 'requests.jsonl'}",
    "limits.max_num_seqs=128",
    "limits.max_num_batched_tokens=2048",
    "limits.num_blocks=30000",  # the run does not say it; this many never fill
)
_NAME = "RTX PRO 6000, ShareGPT"
_SOURCES = {
    "LLMServingSim kernels": ("profile=llmservingsim", f"profile.folder={DATA / 'profile'}"),
    "database kernels": ("profile=operator_db",),
}
_WHY = (
    "the database has no launch of prompts and decoding requests together, which on this card takes longer than the "
    "two apart, and prices unequal contexts at their mean (`python -m benchmarks rtx_pro_6000`)"
)


def cases(scratch: Path) -> list[Case]:
    """Two rows a profile: the whole run, and what its calibration held back, as there is no other run."""
    if not DATA.is_dir():
        return absent(_NAME, f"gpu-public/{DATA.name}")
    found = []
    for source, settings in _SOURCES.items():
        run = Deployment(scratch / "rtx_pro_6000" / settings[0], (*SETTINGS, *settings)).run(_NAME)
        where = ("1 RTX PRO 6000", "Llama-3.1-8B", "vLLM 0.19.0")
        why = dict.fromkeys(("ttft", "e2e"), _WHY) if "profile=operator_db" in settings else {}
        row = Row(source, *where, line=f"RTX PRO 6000, {source}", why=why)
        part = replace(row, run=f"{source}, the third held back", part=True, donor="two thirds of the run")
        found += [
            Case(row, run.plain),
            Case(part, partial(run.held_out, "without"), partial(run.held_out, "errors")),
        ]
    return found
