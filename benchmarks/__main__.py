"""``python -m benchmarks [--full] [NAME...]``: one Markdown table on stdout, a row as it is measured."""

import argparse
import importlib
import pkgutil

import benchmarks
from benchmarks.table import HEADER, Scale, line

_HELPERS = ("__main__", "fidelity", "stages", "table", "timing")


def main() -> None:
    """Run the benchmarks named, or all."""
    known = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in _HELPERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all when none is given")
    parser.add_argument("--full", action="store_true", help="the sizes that are quoted; an hour, not minutes")
    arguments = parser.parse_args()
    for name in (names := arguments.names or known):
        if name not in known:
            parser.error(f"no benchmark {name}; there are {', '.join(known)}")
    scale: Scale = "full" if arguments.full else "quick"
    print(HEADER, flush=True)
    for name in names:
        for row in importlib.import_module(f"benchmarks.{name}").rows(scale):
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
