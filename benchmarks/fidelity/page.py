"""The page: every figure of it is from a comparison, or from where a peer's was collected."""

import importlib.metadata
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.fidelity.board import LEVELS, METRICS, NONE, Errors, Row, percent
from benchmarks.fidelity.peers import published
from benchmarks.fidelity.silicon_page import LARGE as OF_MEANS
from benchmarks.fidelity.silicon_page import TITLE, Section
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.io.provenance import environment, now

PAGE = project_root() / "docs" / "fidelity" / "index.md"
LARGE = {"p50": 0.05, "p90": 0.1, "p99": 0.1}  # beyond these it is said below the table
PEERS = "## What others published"
UNKNOWN = "why is not known"
WITHIN = "at P50 no more than another real run could differ by"
_PACKAGES = {"Vidur": "vidur", "aiconfigurator-core": "aiconfigurator-core", "PyTorch": "torch"}


def render(
    rows: Mapping[str, Sequence[Row]],
    across: Sequence[tuple[str, Sequence[Errors | str]]] = (),
    silicon: Section | None = None,
) -> str:
    """The page.

    Parameters
    ----------
    rows : mapping of str to sequence of Row
        The main table by data set.
    across : sequence of (str, sequence of Errors or str)
        Each model, predicted with the constants of every one of them in the same order, or why it was not.
    silicon : Section, optional
        The closed-loop points.
    """
    every = [row for of_one in rows.values() for row in of_one]
    return (
        _templates()
        .get_template("page.md.j2")
        .render(
            **_of(silicon),
            date=now()[:10],
            versions=versions(every),
            rows=every,
            metrics=[metric.upper() for metric in METRICS],
            figures=[f"{metric.upper()} {level.upper()}" for metric in METRICS for level in LEVELS],
            h100={kind: summary(errors) for kind, errors in _sides(rows.get("h100", ())).items() if errors},
            large=large(every),
            across=[(model, [_pair(errors) for errors in of_one]) for model, of_one in across],
            tolerated={level: f"{100 * most:.0f} %" for level, most in LARGE.items()},
            peers=published(),
        )
    )


def with_section(page: str, silicon: Section) -> str:
    """A page with its closed-loop points anew, and all else as it was."""
    section = _templates().get_template("silicon.md.j2").render(**_of(silicon))
    before, _, old = page.partition(f"\n{TITLE}\n")
    if not old:
        before, _, old = page.partition(f"\n{PEERS}\n")
        return f"{before}\n{section}\n{PEERS}\n{old}"
    _, following, rest = old.partition("\n## ")
    return f"{before}\n{section}{following}{rest}"


def _of(silicon: Section | None) -> dict[str, Any]:
    tolerated = {metric: f"{100 * most:.0f} %" for metric, most in OF_MEANS.items()}
    return {"silicon": silicon, "title": TITLE, "large_means": tolerated}


def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _pair(errors: Errors | str) -> str:
    if isinstance(errors, str):
        return errors
    mark = " *(in-sample)*" if errors.in_sample else ""
    return f"{percent(errors.of('e2e'))} {percent(errors.of('ttft'))}{mark}"


def versions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Of what made the figures: name and version."""
    env = environment()
    commits = {one for row in rows for errors in (row.plain, row.calibrated) if errors for one in errors.commits}
    found = [("this project, commit", ", ".join(sorted(commits)))]
    for name, package in _PACKAGES.items():
        try:
            found.append((name, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    engines = sorted({row.case.engine for row in rows} - {NONE})
    machine = f"{env['cpu']}, {env['cpu_count']} cores, load {os.getloadavg()[2]:.1f} in the last 15 minutes"
    return [*found, ("engines", ", ".join(engines)), ("Python", env["python"]), ("this machine", machine)]


def _sides(rows: Sequence[Row]) -> dict[str, list[Errors]]:
    return {
        "nothing fitted": [row.plain for row in rows if row.plain],
        "calibrated": [row.calibrated for row in rows if row.calibrated and not row.calibrated.in_sample],
    }


def summary(errors: Sequence[Errors]) -> list[str]:
    """How many runs, then of each figure the median of the absolute errors and the largest, in %."""
    absolute = [[100 * abs(one.of(metric, level)) for one in errors] for metric in METRICS for level in LEVELS]
    return [str(len(errors)), *(f"{statistics.median(of):.1f} ({max(of):.1f})" for of in absolute)]


def large(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Figures that are far off: of what, in which runs, and why as far as it is known."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for metric in ("ttft", "e2e"):
        for row in rows:
            for kind, errors, why in (
                ("nothing fitted", row.plain, row.case.why),
                ("calibrated", row.calibrated, row.case.why_calibrated),
            ):
                if errors is not None and any(abs(errors.of(metric, level)) > most for level, most in LARGE.items()):
                    within = metric in errors.floors and abs(errors.of(metric)) <= errors.floors[metric]
                    reason = WITHIN if within else why.get(metric, UNKNOWN)
                    found[f"{metric.upper()}, {kind}", reason].append(f"{row.case.run} ({errors.cell(metric)})")
    return [(kind, ", ".join(runs), reason) for (kind, reason), runs in found.items()]
