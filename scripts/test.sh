#!/usr/bin/env bash
# Everything a change must pass.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
pytest -n auto --dist loadgroup --no-loadscope-reorder "$@"
