"""A published pair on an A100: a Sarathi-Serve run, and the Vidur run that was published beside it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.fidelity.board import Case, Row, absent
from benchmarks.fidelity.deployment import Deployment, compared
from benchmarks.stages import SHARED

DATA = SHARED / "a100-qwen3-0.6b-spaced-arrivals"
SETTINGS = (
    "model=qwen3_0_6b",
    "hardware=a100",
    "backend=recorded",
    "profile=operator_db",
    "vidur/scheduler=sarathi",
    "workload=trace",
    "limits.async_scheduling=false",
    "limits.enable_prefix_caching=false",
    "limits.max_num_seqs=1",
    "limits.max_num_batched_tokens=512",
    "limits.num_blocks=2048",  # as many never fill: one short request at a time
)
_NAME = "A100, spaced arrivals"
_LINE = "Sarathi-Serve on an A100"
_WHERE = ("1 A100", "Qwen3-0.6B", "Sarathi-Serve")
_FEW = "of so few requests, what comes before a first token is not told from noise"
_PUBLISHED = "no overheads, an attention table of another model: so it was published"
_WHY = "the GPU waits for the host between the kernels of so small a model, and the host is in no table"


def cases(scratch: Path) -> list[Case]:
    """Of the pair itself, then of our simulation."""
    if not DATA.is_dir():
        return absent(_NAME, DATA.name)
    root = scratch / "a100"
    published = partial(compared, root, DATA / "real_run", DATA / "vidur_run", "allow_mismatch=true")
    table = DATA / "real_run" / "request_metrics.csv"
    deployment = Deployment(root, SETTINGS)
    whole, first, second = (
        deployment.run(name, f"workload.trace={file}") for name, file in ((_NAME, table), *_halves(root, table))
    )
    why = _reasons(_WHY)
    row = Row("all requests", *_WHERE, line=_LINE, why=why)
    theirs = replace(row, run="all requests, the Vidur run that was published", line="", why=_reasons(_PUBLISHED))
    held_out = replace(row, run="second half", part=True, donor="the first half", why_calibrated={"ttft": _FEW})
    return [
        Case(theirs, published),
        Case(row, whole.plain),
        Case(held_out, second.plain, partial(second.calibrated_on, first)),
    ]


def _reasons(reason: str) -> dict[str, str]:
    return dict.fromkeys(("ttft", "e2e"), reason)


def _halves(root: Path, table: Path) -> list[tuple[str, Path]]:
    """The run cut in two, for each request had the engine to itself: a name and a file of recorded requests each."""
    requests = pd.read_csv(table)
    half = len(requests) // 2
    root.mkdir(parents=True, exist_ok=True)
    found = []
    for name, rows in (("first half", requests[:half]), ("second half", requests[half:])):
        file = root / f"{name.replace(' ', '_')}.csv"
        rows.to_csv(file, index=False)
        found.append((f"{_NAME}: {name}", file))
    return found
