#!/usr/bin/env bash
# The wheels that scripts/gpu_day.sh needs on a machine without network: this package, and what that machine lacks.
#   PYTHON=python3.12 bash scripts/gpu_wheels.sh wheels present.txt
# PYTHON is a Python of that machine's version on this one. present.txt names the packages that machine has, one a line,
# as `pip list --format=freeze` prints them there; take a name out, and that package comes along in our version.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -ne 2 ]; then
    echo "usage: PYTHON=python3.12 bash scripts/gpu_wheels.sh <folder of wheels> <list of packages that machine has>" >&2
    exit 2
fi
mkdir -p "$1"
folder=$(realpath "$1")
present=$(realpath "$2")
python=${PYTHON:-python3.12}

# PEP 503 names, one a line; the last three are of Vidur's dashboard, which nothing here imports
normal() { tr '[:upper:]_.' '[:lower:]--'; }
excluded=$(sed 's/[ =@<>;].*//' "$present" | normal; printf '%s\n' torch transformers altair pydeck streamlit)

rm -f "$folder"/*.whl
# --wheel-dir gets a wheel of everything, sdists built; psutil and pytest are those of the extras that are needed there
"$python" -m pip wheel --quiet --constraint constraints.txt --wheel-dir "$folder" . psutil pytest
for wheel in "$folder"/*.whl; do
    name=${wheel##*/}
    if grep -qxF "$(normal <<<"${name%%-*}")" <<<"$excluded"; then rm "$wheel"; fi
done
du -cb "$folder"/*.whl | awk 'END { printf "%d wheels, %.1f MB: ", NR - 1, $1 / 1e6 }'
echo "$folder"
