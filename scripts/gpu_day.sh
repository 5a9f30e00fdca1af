#!/usr/bin/env bash
# Everything worth measuring in a few minutes on a GPU, in one archive:
#   OUT=results WHEELS=wheels bash scripts/gpu_day.sh
# WHEELS is a folder that scripts/gpu_wheels.sh made: no network is needed, and torch and transformers are those of
# `python3` (or PYTHON) here. Without WHEELS the commands on the PATH are taken. It runs the smoke tests, measures the
# engine's capacity, profiles it, serves and simulates 30, 60 and 85 % of that capacity, and ends within BUDGET_S
# seconds: what finds no time is left out, and said. HARDWARE is found by the card's name; HARDWARE=cpu needs no GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

BUDGET_S=${BUDGET_S:-570}
HARDWARE=${HARDWARE:-}
LOADS=${LOADS:-0.3 0.6 0.85} # shares of the capacity
REPEATS=${REPEATS:-5}
SETTINGS=${SETTINGS:-} # further overrides of every stage; see also REQUESTS, LOAD_S and PROFILE_S below
SMOKE=${SMOKE:-tests/manual}
ARCHIVE_MB=${ARCHIVE_MB:-16}
archive_s=40 # kept for the archive

mkdir -p "${OUT:=results}" && OUT=$(realpath "$OUT")
work=$(mktemp -d)
status=0
mkdir "$work/results"
exec 3>&1 4>&2 > >(tee "$work/results/log.txt") 2>&1
tee_pid=$!

say() { echo "[${SECONDS} s] $*"; }

pack() { # xz keeps what is the same in all reports once; gzip is always there, and quick
    rm -f "$OUT"/gpu_day.tar.*
    file=$OUT/gpu_day.tar.xz
    XZ_OPT=-T0 timeout 25 tar -cJf "$file" -C "$work" results 2>/dev/null && return
    rm -f "$file"
    file=$OUT/gpu_day.tar.gz
    tar -czf "$file" -C "$work" results
}

archive() { # the largest files are left out until the rest fits
    trap - EXIT
    local file largest
    say "done: writing the archive"
    exec >&3 2>&4
    wait "$tee_pid"
    while pack && (($(stat -c %s "$file") >= ARCHIVE_MB * 1000000)); do
        largest=$(find "$work/results" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
        say "left out of the archive, for its size: ${largest#"$work/"}" | tee -a "$work/results/log.txt"
        rm "$largest"
    done
    rm -rf "$work"
    say "$(stat -c %s "$file" | awk '{ printf "%.1f MB", $1 / 1e6 }'): $file"
    exit "$status"
}
trap archive EXIT
trap 'status=130; exit' INT TERM

left_s() { echo $((BUDGET_S - archive_s - SECONDS)); }

step() { # step <seconds at most> <name> <command...>
    local most=$1 name=$2 left code=124
    shift 2
    left=$(left_s)
    if ((left >= 10)); then
        say "== $name"
        timeout --kill-after=5 $((left < most ? left : most)) "$@" && return
        code=$?
    fi
    status=1
    case $code in
    124 | 137) say "left out: $name, or the rest of it: no time is left" ;;
    *) say "not complete: $name: exit $code" ;;
    esac
}

environment() { # the machine's own packages below those of the wheels
    local python
    python=$(command -v "${PYTHON:-python3}")
    "$python" -m venv --without-pip "$work/venv" || return
    "$python" - "$work"/venv/lib/python*/site-packages <<'PY' || return
import sys
own = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
with open(f"{sys.argv[1]}/machine.pth", "w") as file:
    file.writelines(f"import site; site.addsitedir({path!r})\n" for path in own)
PY
    "$python" -m pip --quiet --disable-pip-version-check --python "$work/venv/bin/python" \
        install --no-index --no-deps --no-compile "$WHEELS"/*.whl
}

facts() {
    uname -srm
    lscpu | grep -E 'Model name|^CPU\(s\)'
    nvidia-smi && nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,MEMORY
    python -c 'import sys, torch; print(sys.version, torch.__version__, torch.version.cuda, torch.cuda.is_available())'
    python -m pip check
    python -m pip list --format=freeze
}

if [ -n "${WHEELS:-}" ]; then
    WHEELS=$(realpath "$WHEELS")
    say "== environment from $WHEELS"
    environment || { status=1; say "failed: environment"; exit; }
    PATH=$work/venv/bin:$PATH
fi
gpu=$(python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')
for file in configs/compare_vidur_real/hardware/*.yaml; do
    name=$(sed -n 's/^gpu_name: //p' "$file")
    if [[ -z $HARDWARE && $name != null && $gpu == *"$name"* ]]; then HARDWARE=$(basename "$file" .yaml); fi
done
case $HARDWARE in
'')
    status=4
    say "error: no hardware is described for this GPU: ${gpu:-none}; take HARDWARE=cpu, or add it as the runbook says"
    exit
    ;;
cpu) model=(model=qwen3_tiny) && : "${REQUESTS:=40}" "${LOAD_S:=5}" "${PROFILE_S:=30}" ;;
*) model=(model=qwen3_0_6b model.weights=dummy) && : "${REQUESTS:=400}" "${LOAD_S:=10}" "${PROFILE_S:=60}" ;;
esac
say "$HARDWARE, ${gpu:-no GPU}: ${model[*]}"

export -f facts
step 60 "facts of the machine" bash -c 'facts >"$0" 2>&1' "$work/results/machine.txt"

export GSIM_MANUAL_ROOT=$work/results/smoke
export GSIM_MANUAL_SETTINGS="hardware=$HARDWARE ${model[*]} model.tokenizer=example_prompts workload.num_requests=8
    workload.num_decode_tokens=16 repeats=2 vidur.profiling.repeats=2 vidur.profiling.budget_s=5"
step $((BUDGET_S / 3)) "smoke tests" python -m pytest -rs -p no:cacheprovider "$SMOKE"

# REQUESTS of a load at most, and no more than arrive in LOAD_S seconds; the lists of words are meant
# shellcheck disable=SC2086
step "$(left_s)" baseline python scripts/fidelity.py --out "$work/results/runs" --budget-s $(($(left_s) - 5)) \
    --loads $LOADS --requests "$REQUESTS" --seconds "$LOAD_S" --repeats "$REPEATS" \
    -- "hardware=$HARDWARE" "${model[@]}" "vidur.profiling.budget_s=$PROFILE_S" $SETTINGS
