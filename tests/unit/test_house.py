"""What holds of the source as a whole: no module and no function is long, and a room holds what its name says."""

import ast
from collections.abc import Iterator
from pathlib import Path

from gpu_simulate_test.config.paths import PACKAGE_DIR

MODULE_LINES, FUNCTION_LINES = 300, 60
ROOMS = {
    "calibration",
    "cli",
    "workloads",
    "real_bench",
    "vidur_ext",
    "analysis",
    "simulator",
    "studies",
    "profiles",
    "latency",
    "io",
    "config",
}

# Of vidur_ext/: stages whose places are given, whether or not they import Vidur themselves.
STAGES = {"sim_runner", "run_vidur", "profiling_root", "profile_runner", "qwen3_model_config"}


def modules() -> Iterator[tuple[Path, str]]:
    for file in sorted(PACKAGE_DIR.rglob("*.py")):
        yield file.relative_to(PACKAGE_DIR), file.read_text(encoding="utf-8")


def test_no_module_is_long() -> None:
    assert {str(file): count for file, text in modules() if (count := text.count("\n")) > MODULE_LINES} == {}


def test_no_function_is_long() -> None:
    functions = {
        f"{file}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for file, text in modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in functions.items() if count > FUNCTION_LINES} == {}


def test_every_module_is_in_a_room_or_one_of_the_few_at_the_door() -> None:
    outside = {str(file) for file, _ in modules() if len(file.parts) == 1}
    assert outside == {
        "__init__.py",
        "arrivals.py",
        "engine.py",
        "errors.py",
        "run_tables.py",
        "serving.py",
        "spans.py",
        "timeline.py",
    }
    assert {file.parts[0] for file, _ in modules() if len(file.parts) > 1} == ROOMS


def test_the_room_of_vidur_holds_what_imports_vidur_and_the_stages() -> None:
    for file, text in modules():
        if file.parts[0] == "vidur_ext" and file.stem not in {*STAGES, "__init__"}:
            nodes = list(ast.walk(ast.parse(text)))
            names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
            names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
            assert any(name.partition(".")[0] == "vidur" for name in names), f"{file} does not touch Vidur"
