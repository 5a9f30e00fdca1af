#!/bin/sh
# Make source-data, a link to a local checkpoint of Qwen/Qwen3-0.6B. See README.md.
set -eu

usage="usage: bootstrap.sh [FOLDER | --download]"

die() { # exit code, message
    printf 'error: %s\n' "$2" >&2
    exit "$1"
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
link=$here/source-data
repo=Qwen/Qwen3-0.6B
folder=
download=no

[ $# -le 1 ] || die 2 "one argument at most: $# given; $usage"
case ${1-} in
    -h | --help) printf '%s\n' "$usage"; exit 0 ;;
    --download) download=yes ;;
    -*) die 2 "unknown option: $1; $usage" ;;
    *) folder=${1-} ;;
esac

if [ -e "$link" ] && [ ! -L "$link" ]; then
    die 4 "source-data is not a link: $link; move it away, this script will not touch it"
fi

if [ -z "$folder" ] && [ -n "${GSIM_MODELS_ROOT-}" ]; then
    for candidate in "$GSIM_MODELS_ROOT/Qwen3-0.6B" "$GSIM_MODELS_ROOT/$repo"; do
        if [ -d "$candidate" ]; then
            folder=$candidate
            break
        fi
    done
    if [ -z "$folder" ] && [ "$download" = no ]; then
        die 4 "no Qwen3-0.6B or $repo folder: GSIM_MODELS_ROOT=$GSIM_MODELS_ROOT; name the folder as the argument, or pass --download"
    fi
fi

if [ -z "$folder" ] && [ "$download" = yes ]; then
    command -v hf >/dev/null || die 4 "no hf command: PATH; install huggingface_hub, or name a local folder"
    folder=$here/download
    hf download "$repo" --local-dir "$folder" >&2 || die 4 "hf could not download: $repo; check the network, or name a local folder"
fi

if [ -z "$folder" ]; then
    # Nothing named: an earlier link is good enough.
    [ -L "$link" ] || die 4 "no checkpoint named: $repo; name a folder, set GSIM_MODELS_ROOT, or pass --download"
    folder=$link
fi

target=$(CDPATH='' cd -- "$folder" 2>/dev/null && pwd -P) || die 4 "not a readable folder: $folder; name a checkpoint of $repo"
for name in config.json tokenizer.json; do
    [ -f "$target/$name" ] || die 4 "not a checkpoint, $name is missing: $target; name a folder that holds $repo"
done

if [ "$folder" != "$link" ]; then
    ln -sfn -- "$target" "$link" 2>/dev/null || die 4 "cannot write the link: $link; check the permissions of its folder"
fi
printf 'source-data -> %s\n' "$target"
