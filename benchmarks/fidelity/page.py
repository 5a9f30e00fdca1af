"""The pages: every figure of them is from a comparison, or from where a peer's was collected."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.fidelity import figures, plot
from benchmarks.fidelity.board import LEVELS, METRICS, Errors, Row, percent
from benchmarks.fidelity.figures import FOLDER, Peers, Points, Runs, load, sides, summary
from benchmarks.fidelity.silicon_page import LARGE as OF_MEANS
from benchmarks.fidelity.silicon_page import change, kinds, signed

PAGES = FOLDER.parent
RUNS = ("h100", "rtx-pro-6000", "a100", "this-machine")
CLOSED_LOOP, PEERS = "closed-loop", "peers"
LARGE = {"p50": 0.05, "p90": 0.1, "p99": 0.1}  # beyond these it is said below the table
UNKNOWN = "why is not known"
WITHIN = "no more than another real run could differ by"
WITHIN_P50 = f"at P50 {WITHIN}"
SCATTER = "the noise that the profile recorded is wide: the real figures lie where 95 % of the simulations with it do"
_PLOT = "images/errors.svg"
_FEW = 3  # fewer runs than this are not summed up on their page


def pages() -> dict[Path, str]:
    """Every page and the plot, as the figures say; paths below the folder of pages."""
    found = {name: kept for name in RUNS if (kept := load(Runs, name))}
    points, peers = load(Points, CLOSED_LOOP), load(Peers, PEERS)
    told = {f"{name}.md": of_runs(name, runs) for name, runs in found.items()}
    if points:
        told[f"{CLOSED_LOOP}.md"] = of_points(points)
    if peers:
        told[f"{PEERS}.md"] = _rendered(PEERS, peers=peers)
    told["index.md"] = index(found, points, peers)
    told[_PLOT] = plot.errors(found.values(), points)
    return {Path(name): text for name, text in told.items()}


def of_runs(name: str, runs: Runs) -> str:
    """The page of a data set whose runs are known request by request."""
    together = {}
    for line in dict.fromkeys(row.line for row in runs.rows if row.line):
        of_line = [row for row in runs.rows if row.line == line]
        if len(of_line) >= _FEW and not any(row.part for row in of_line):
            together[line] = [
                (f"{metric.upper()} {level.upper()}", *(_of_side(side, metric, level) for side in sides(of_line)))
                for metric in reversed(METRICS)
                for level in LEVELS
            ]
    return _rendered(
        name,
        runs=runs,
        metrics={metric: metric.upper() for metric in reversed(METRICS)},
        tables=[
            ("Nothing fitted", [(row, row.plain) for row in runs.rows if row.plain]),
            ("Calibrated", [(row, row.calibrated) for row in runs.rows if row.calibrated]),
        ],
        together=together,
        large=large(runs.rows),
        across=[(model, [_pair(errors) for errors in of_one]) for model, of_one in runs.across],
        tolerated={level: f"{100 * most:.0f} %" for level, most in LARGE.items()},
    )


def of_points(points: Points) -> str:
    """The page of the runs of which there are means alone."""
    tolerated = {metric: f"{100 * most:.0f} %" for metric, most in OF_MEANS.items()}
    return _rendered(
        CLOSED_LOOP,
        points=points,
        kinds=kinds(points.points),
        plain=partial(signed, side="plain"),
        changed=change,
        tolerated=tolerated,
    )


def index(found: Mapping[str, Runs], points: Points | None, peers: Peers | None) -> str:
    """What all of them say, one line each, with nothing fitted and calibrated."""
    tables: list[list[list[str]]] = [[], []]
    for name, runs in found.items():
        for line in dict.fromkeys(row.line for row in runs.rows if row.line):
            of_line = sides([row for row in runs.rows if row.line == line])
            for table, errors in zip(tables, of_line, strict=True):
                if errors:
                    table.append([f"[{line}]({name}.md)", str(len(errors)), *summary(errors)])
    versions = {name: (runs.date, runs.commits) for name, runs in found.items()}
    if points:
        (_, every), *_ = kinds(points.points)
        link = f"[closed loop, means]({CLOSED_LOOP}.md)"
        for table, side in zip(tables, ("plain", "calibrated"), strict=True):
            number, tpot, ttft = signed(every, side)
            table.append([link, str(number), "-", tpot[0], ttft[0]])
        versions[CLOSED_LOOP] = points.date, list(points.commits)
    near = [peer for peer in peers.claims if peer.near] if peers else []
    return _rendered("index", plain=tables[0], calibrated=tables[1], versions=versions, near=near, plot=_PLOT)


def large(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Figures that are far off: of what, in which runs, and why as far as it is known."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for kind, side in (("nothing fitted", "plain"), ("calibrated", "calibrated")):
        for metric in reversed(METRICS):
            for row in rows:
                errors: Errors | None = getattr(row, side)
                why = row.why if side == "plain" else row.why_calibrated
                if errors and any(abs(errors.of(metric, level)) > most for level, most in LARGE.items()):
                    known = why.get("e2e" if metric == "tpot" else metric, UNKNOWN)  # E2E is TPOT, most of it
                    found[kind, metric, _noise(errors, metric) or known].append(row.run)
    alike: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (kind, metric, reason), runs in found.items():
        which = "every run" if len(runs) == len(rows) > 1 else "; ".join(runs)
        alike[kind, which, reason].append(metric.upper())
    return [(f"{', '.join(metrics)}, {kind}", runs, reason) for (kind, runs, reason), metrics in alike.items()]


def _noise(errors: Errors, metric: str) -> str:
    """What of it the noise of a machine accounts for; nothing where that is not known."""
    floors = errors.floors.get(metric, ())
    within = [abs(error) <= floor for error, floor in zip(errors.table[metric], floors, strict=False)]
    if within and all(within):
        return WITHIN
    if metric in errors.inside:
        return SCATTER
    return WITHIN_P50 if within and within[0] else ""


def _of_side(errors: Sequence[Errors], metric: str, level: str) -> str:
    if not errors:
        return "-"
    return f"{figures.median(errors, metric, level):.1f} ({figures.largest(errors, metric, level):.1f})"


def _pair(errors: Errors | str) -> str:
    if isinstance(errors, str):
        return errors
    mark = " *(in-sample)*" if errors.in_sample else ""
    return f"{percent(errors.of('e2e'))} {percent(errors.of('ttft'))}{mark}"


def _rendered(name: str, **told: object) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["percent"] = percent
    text = templates.get_template(f"{name}.md.j2").render(told, levels=[level.upper() for level in LEVELS])
    title, _, rest = text.partition("\n")
    return f"{title}\n\n<!-- made board -->\n{rest}\n<!-- end -->\n"  # as the other pages that are made
