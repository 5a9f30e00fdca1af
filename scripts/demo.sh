#!/usr/bin/env bash
# The five stages on the CPU, from nothing to a report. Arguments are further overrides of every stage.
set -euo pipefail
cd "$(dirname "$0")/.."
stage() {
    echo "== $1" >&2
    "$@"
}
settings=(experiment=cpu_demo overwrite=true "$@")
stage workload-spec "${settings[@]}" >/dev/null
real=$(stage real-bench "${settings[@]}")
stage vidur-profile "${settings[@]}" >/dev/null
sim=$(stage vidur-sim "${settings[@]}" real_run_dir="$real")
stage compare-runs "${settings[@]}" real_run_dir="$real" sim_run_dir="$sim"
