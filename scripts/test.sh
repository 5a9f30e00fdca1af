#!/usr/bin/env bash
# Everything a change must pass.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
# byte code, also where Python is told to write none: dozens of processes would each compile the package anew
export PYTHONDONTWRITEBYTECODE=
pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
