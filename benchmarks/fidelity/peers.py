"""What others published of their simulators' errors, read from where it was collected."""

import re
from pathlib import Path

from benchmarks.fidelity.board import LEVELS, METRICS, percent
from benchmarks.fidelity.figures import Peer, Peers
from benchmarks.fidelity.h100 import DATA as H100
from benchmarks.fidelity.rtx_pro_6000 import DATA as RTX_PRO_6000
from benchmarks.stages import SHARED
from gpu_simulate_test.io.provenance import now

FACTS = SHARED.parent / "facts" / "peers.md"
_OURS = re.compile(r" \(`data/[^)]*\)")  # where it lies, not who said it
_ON_THESE = "Published errors on runs of this kind"
_NAMED = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "Latency"}
_LEVELS = {"p50": "Median", "p90": "P90", "p99": "P99"}


def published() -> Peers | None:
    """All that are found; a file that is not here is left out, and None where none is."""
    found = []
    if FACTS.is_file():
        rows = re.findall(r"^\| (.+?) \| (.+) \|$", FACTS.read_text(encoding="utf-8"), re.MULTILINE)
        found += [Peer(name, _OURS.sub("", said)) for name, said in rows if name not in ("Simulator", "---")]
    if (page := H100 / "README.md").is_file():
        found += [Peer("Several, on vLLM 0.15.1 and H100", said, near=True) for said in _said(page)]
    if (result := RTX_PRO_6000 / "peer-result.txt").is_file():
        found.append(Peer("LLMServingSim 2.0, on that very RTX PRO 6000 run", _result(result), near=True))
    return Peers(now()[:10], found) if found else None


def _said(page: Path) -> list[str]:
    """The paragraph on them, on one line."""
    paragraphs = page.read_text(encoding="utf-8").split("\n\n")
    return [" ".join(text.split()) for text in paragraphs if text.startswith(_ON_THESE)]


def _result(file: Path) -> str:
    """Its errors as ours are written: P50, P90 and P99."""
    lines = re.findall(r"^(\w+) (\w+) .* ([+-]?[\d.]+)%$", file.read_text(encoding="utf-8"), re.MULTILINE)
    errors = {(metric, level): float(error) / 100 for metric, level, error in lines}
    return "; ".join(
        f"{metric.upper()} {' '.join(percent(errors[_NAMED[metric], _LEVELS[level]]) for level in LEVELS)}"
        for metric in METRICS
    )
