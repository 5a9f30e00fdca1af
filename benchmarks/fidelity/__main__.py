"""``python -m benchmarks.fidelity [NAME...]``: measure data sets anew, all or those named, and write their pages."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import benchmarks.fidelity
from benchmarks.fidelity import a100, h100, peers, rtx_pro_6000, silicon_page, this_machine
from benchmarks.fidelity.board import Case, Row, measured, one_line, percent
from benchmarks.fidelity.figures import Peers, Points, Runs, save, versions
from benchmarks.fidelity.page import CLOSED_LOOP, PAGES, PEERS, pages
from gpu_simulate_test.io.files import write_text

DataSet = Callable[[Path], list[Case]]
DATA_SETS: Mapping[str, DataSet] = {
    "h100": h100.cases,
    "rtx-pro-6000": rtx_pro_6000.cases,
    "a100": a100.cases,
    "this-machine": this_machine.cases,
}


def main() -> None:
    """Measure, keep the figures, write the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=benchmarks.fidelity.__doc__)
    known = [*DATA_SETS, CLOSED_LOOP, PEERS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all when none is given")
    parser.add_argument("--pages", action="store_true", help="measure nothing: write all pages from the figures kept")
    parser.add_argument("--scratch", type=Path, help="keep the runs in this folder; those that it has are not repeated")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in known:
            parser.error(f"no data set {name}; there are {', '.join(known)}")
    asked = [] if arguments.pages else arguments.names or known
    with tempfile.TemporaryDirectory() as folder:
        scratch = arguments.scratch.absolute() if arguments.scratch else Path(folder)
        missing = [name for name in asked if not update(name, scratch)]
    for path, text in pages().items():
        (PAGES / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(PAGES / path, text)
    print(PAGES)
    if missing:
        sys.exit(f"nothing was measured of {', '.join(missing)}: what was known of it stays")


def update(name: str, scratch: Path) -> bool:
    """Measure a data set and keep its figures, if there are any."""
    found: Peers | Points | Runs | None
    if name == PEERS:
        found = peers.published()
    elif name == CLOSED_LOOP:
        found = silicon_page.measure()
    else:
        rows = measure(name, DATA_SETS[name], scratch)
        across = h100.across_models(scratch) if name == "h100" else ()
        runs = Runs(versions(), rows, across)
        found = runs if runs.errors else None
    if found is not None:
        save(name, found)
    return found is not None


def measure(name: str, data_set: DataSet, scratch: Path) -> list[Row]:
    """The rows of a data set, told on stderr as they are measured."""
    try:
        cases = data_set(scratch)
    except Exception as error:  # one data set must not end the others
        cases = [Case(Row(name, remark=f"not compared: {one_line(error)}"))]
    rows = []
    for case in cases:
        rows.append(measured(case))
        print(told(rows[-1]), file=sys.stderr, flush=True)
    return rows


def told(row: Row) -> str:
    """A row on one line: its errors of E2E at P50, nothing fitted and calibrated, or why there are none."""
    errors = [percent(errors.of("e2e")) for errors in (row.plain, row.calibrated) if errors]
    return f"{row.run}: {', '.join(errors) or row.remark}"


if __name__ == "__main__":
    main()
