#!/bin/sh
# Fetch the Azure LLM inference traces of 2023 into source-data, or link a local copy. See README.md.
set -eu

usage="usage: bootstrap.sh [FOLDER]"
commit=b469a113cedca53ddc3bdea71a143dc4b7d8700c
url=https://raw.githubusercontent.com/Azure/AzurePublicDataset/$commit/data
conv=AzureLLMInferenceTrace_conv.csv
code=AzureLLMInferenceTrace_code.csv
header=TIMESTAMP,ContextTokens,GeneratedTokens

die() { # exit code, message
    printf 'error: %s\n' "$2" >&2
    exit "$1"
}

expected() { # file name
    case $1 in
        "$conv") echo 2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8 ;;
        "$code") echo 54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6 ;;
    esac
}

sha256() { # path
    if command -v sha256sum >/dev/null; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d ' ' -f 1
}

[ $# -le 1 ] || die 2 "one argument at most: $# given; $usage"
case ${1-} in
    -h | --help) printf '%s\n' "$usage"; exit 0 ;;
    -*) die 2 "unknown option: $1; $usage" ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
data=$here/source-data

if [ -n "${1-}" ]; then
    if [ -e "$data" ] && [ ! -L "$data" ]; then
        die 4 "source-data is not a link: $data; move it away, this script will not touch it"
    fi
    target=$(CDPATH='' cd -- "$1" 2>/dev/null && pwd -P) || die 4 "not a readable folder: $1; name the folder of the two CSVs"
    for name in "$conv" "$code"; do
        [ -f "$target/$name" ] || die 4 "$name is missing: $target; name the folder of the two CSVs"
        [ "$(head -n 1 -- "$target/$name" | tr -d '\r')" = "$header" ] ||
            die 4 "its header is not $header: $target/$name; name the folder of the original CSVs"
    done
    ln -sfn -- "$target" "$data" 2>/dev/null || die 4 "cannot write the link: $data; check the permissions of its folder"
    printf 'source-data -> %s\n' "$target"
    exit 0
fi

part=$data/.part.$$
# An empty folder left behind would stop a later link.
trap 'rm -f -- "$part"; rmdir -- "$data" 2>/dev/null || :' EXIT
trap 'exit 130' HUP INT TERM
for name in "$conv" "$code"; do
    file=$data/$name
    if [ -e "$file" ]; then
        [ "$(sha256 "$file")" = "$(expected "$name")" ] || die 4 "not the published file: $file; move it away"
        continue
    fi
    [ ! -L "$data" ] || die 4 "$name is missing behind the link: $data; remove the link, or name another folder"
    command -v curl >/dev/null || die 4 "no curl command: PATH; install curl, or name a local folder"
    mkdir -p -- "$data" 2>/dev/null || die 4 "cannot make the folder: $data; check the permissions"
    said=$(curl -fsSL --connect-timeout 20 --retry 2 -o "$part" "$url/$name" 2>&1) ||
        die 4 "curl cannot fetch: $url/$name: $(printf '%s\n' "$said" | tail -n 1); check the network, or name a local folder"
    [ "$(sha256 "$part")" = "$(expected "$name")" ] || die 4 "checksum differs from the one recorded: $url/$name; try again"
    mv -- "$part" "$file"
done
printf 'source-data holds %s and %s\n' "$conv" "$code"
