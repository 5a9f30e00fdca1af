"""``python -m benchmarks.fidelity [NAME...]``: the board; whole, it is written to ``docs/fidelity/index.md``."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import benchmarks.fidelity
from benchmarks.fidelity import a100, h100, rtx_pro_6000, silicon_page, this_machine
from benchmarks.fidelity.board import Case, Row, absent, measured, one_line
from benchmarks.fidelity.page import PAGE, render, with_section
from benchmarks.stages import SHARED
from gpu_simulate_test.io.files import write_text

DataSet = Callable[[Path], list[Case]]


def _rtx_4090(scratch: Path) -> list[Case]:
    (row,) = absent("RTX 4090, ShareGPT", "gpu-public/rtx4090*")
    return [row] if not list(SHARED.glob("gpu-public/rtx4090*")) else [Case(row.run, remark="not read yet")]


DATA_SETS: Mapping[str, DataSet] = {
    "h100": h100.cases,
    "rtx_pro_6000": rtx_pro_6000.cases,
    "rtx_4090": _rtx_4090,
    "a100": a100.cases,
    "transformers": partial(this_machine.cases, "transformers"),
    "vllm": partial(this_machine.cases, "vllm"),
}


SILICON = "silicon"  # has means alone, so no rows among the others


def main() -> None:
    """Measure the data sets named, or all and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=benchmarks.fidelity.__doc__)
    known = [*DATA_SETS, SILICON]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all when none is given")
    parser.add_argument("--scratch", type=Path, help="keep the runs in this folder; those that it has are not repeated")
    parser.add_argument(
        "--into-page", action="store_true", help=f"with {SILICON} alone: put it into the page, all else as it is"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in known:
            parser.error(f"no data set {name}; there are {', '.join(known)}")
    if arguments.into_page and arguments.names != [SILICON]:
        parser.error(f"--into-page is for {SILICON} alone")
    asked = arguments.names or known
    with tempfile.TemporaryDirectory() as folder:
        scratch = arguments.scratch.absolute() if arguments.scratch else Path(folder)
        rows = {name: measure(name, DATA_SETS[name], scratch) for name in asked if name != SILICON}
        across = h100.across_models(scratch) if "h100" in rows else ()
    silicon = silicon_page.measure() if SILICON in asked else None
    if silicon and arguments.into_page:
        page = with_section(PAGE.read_text(encoding="utf-8"), silicon)
    else:
        page = render(rows, across, silicon)
    if arguments.names and not arguments.into_page:
        print(page)
    else:
        PAGE.parent.mkdir(exist_ok=True)
        write_text(PAGE, page)
        print(PAGE)


def measure(name: str, data_set: DataSet, scratch: Path) -> list[Row]:
    """The rows of a data set, told on stderr as they are measured."""
    try:
        cases = data_set(scratch)
    except Exception as error:  # one data set must not end the others
        cases = [Case(name, remark=f"not compared: {one_line(error)}")]
    rows = []
    for case in cases:
        rows.append(measured(case))
        print(f"| {' | '.join(rows[-1].cells())} |", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
