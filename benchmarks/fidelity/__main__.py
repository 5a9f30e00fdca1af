"""``python -m benchmarks.fidelity [NAME...]``: the board; whole, it is written to ``docs/fidelity.md``."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import benchmarks.fidelity
from benchmarks.fidelity import a100, h100, rtx_pro_6000, this_machine
from benchmarks.fidelity.board import Case, Row, absent, measured, one_line
from benchmarks.fidelity.page import PAGE, render
from benchmarks.stages import SHARED
from gpu_simulate_test.io.files import write_text

DataSet = Callable[[Path], list[Case]]


def _rtx_4090(scratch: Path) -> list[Case]:
    (row,) = absent("RTX 4090, ShareGPT", "gpu-public/rtx4090*")
    return [row] if not list(SHARED.glob("gpu-public/rtx4090*")) else [Case(row.run, remark="not read yet")]


def _closed_loop(scratch: Path) -> list[Case]:
    return [
        Case(
            "closed-loop points of the operator database's `silicon_sample.csv`",
            remark="waits for closed-loop arrivals",
        )
    ]


DATA_SETS: Mapping[str, DataSet] = {
    "h100": h100.cases,
    "rtx_pro_6000": rtx_pro_6000.cases,
    "rtx_4090": _rtx_4090,
    "a100": a100.cases,
    "closed_loop": _closed_loop,
    "transformers": partial(this_machine.cases, "transformers"),
    "vllm": partial(this_machine.cases, "vllm"),
}


def main() -> None:
    """Measure the data sets named, or all and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=benchmarks.fidelity.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATA_SETS)}; all when none is given")
    parser.add_argument("--scratch", type=Path, help="keep the runs in this folder; those that it has are not repeated")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in DATA_SETS:
            parser.error(f"no data set {name}; there are {', '.join(DATA_SETS)}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = arguments.scratch.absolute() if arguments.scratch else Path(folder)
        rows = {name: measure(name, DATA_SETS[name], scratch) for name in arguments.names or DATA_SETS}
        page = render(rows, h100.across_models(scratch) if "h100" in rows else ())
    if arguments.names:
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
