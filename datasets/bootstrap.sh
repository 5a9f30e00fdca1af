#!/bin/sh
# Fetch a public data set into its folder's source-data, or link a local copy. See README.md.
set -eu

usage="usage: bootstrap.sh azure-llm-2023|burstgpt|mooncake|sharegpt [FOLDER]"

die() { # exit code, message
    printf 'error: %s\n' "$2" >&2
    exit "$1"
}

sha256() { # path
    if command -v sha256sum >/dev/null; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d ' ' -f 1
}

case ${1-} in
    -h | --help) printf '%s\n' "$usage"; exit 0 ;;
esac
case $# in
    1 | 2) ;;
    *) die 2 "a data set and one folder at most: $# given; $usage" ;;
esac

# files: lines of name, SHA-256 (- where none is recorded). start: how each file begins.
case $1 in
    azure-llm-2023)
        url=https://raw.githubusercontent.com/Azure/AzurePublicDataset/b469a113cedca53ddc3bdea71a143dc4b7d8700c/data
        start=TIMESTAMP,ContextTokens,GeneratedTokens
        files='AzureLLMInferenceTrace_conv.csv 2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8
AzureLLMInferenceTrace_code.csv 54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6' ;;
    burstgpt)
        url=https://github.com/HPMLL/BurstGPT/releases/download/v1.1
        start='Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type'
        files='BurstGPT_1.csv -' ;;
    mooncake)
        url=https://raw.githubusercontent.com/kvcache-ai/Mooncake/3cca71daccf2a7afb8fe3f0295358f70e3a69fdb/FAST25-release/traces
        start='{"timestamp":'
        files='conversation_trace.jsonl b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df
toolagent_trace.jsonl -
synthetic_trace.jsonl bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131' ;;
    sharegpt)
        url=https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main
        start='['
        files='ShareGPT_V3_unfiltered_cleaned_split.json -' ;;
    *) die 2 "unknown data set: $1; $usage" ;;
esac
names=$(printf '%s\n' "$files" | cut -d ' ' -f 1)

begins_right() { # path
    [ "$(head -c "${#start}" -- "$1")" = "$start" ]
}

expected() { # file name
    printf '%s\n' "$files" | sed -n "s/^$1 //p"
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
data=$here/$1/source-data

if [ -n "${2-}" ]; then
    if [ -e "$data" ] && [ ! -L "$data" ]; then
        die 4 "source-data is not a link: $data; move it away, this script will not touch it"
    fi
    target=$(CDPATH='' cd -- "$2" 2>/dev/null && pwd -P) || die 4 "not a readable folder: $2; name the folder of the files"
    for name in $names; do
        [ -f "$target/$name" ] || die 4 "$name is missing: $target; name the folder of the original files"
        begins_right "$target/$name" || die 4 "it does not begin with $start: $target/$name; name the original files"
    done
    ln -sfn -- "$target" "$data" 2>/dev/null || die 4 "cannot write the link: $data; check the permissions of its folder"
    printf 'source-data -> %s\n' "$target"
    exit 0
fi

part=$data/.part.$$
# An empty folder left behind would stop a later link.
trap 'rm -f -- "$part"; rmdir -- "$data" 2>/dev/null || :' EXIT
trap 'exit 130' HUP INT TERM

right() { # path, file name
    sum=$(expected "$2")
    if [ "$sum" = - ]; then begins_right "$1"; else [ "$(sha256 "$1")" = "$sum" ]; fi
}

for name in $names; do
    file=$data/$name
    if [ -e "$file" ]; then
        right "$file" "$name" || die 4 "not the published file: $file; move it away"
        continue
    fi
    [ ! -L "$data" ] || die 4 "$name is missing behind the link: $data; remove the link, or name another folder"
    command -v curl >/dev/null || die 4 "no curl command: PATH; install curl, or name a local folder"
    mkdir -p -- "$data" 2>/dev/null || die 4 "cannot make the folder: $data; check the permissions"
    said=$(curl -fsSL --connect-timeout 20 --retry 2 -o "$part" "$url/$name" 2>&1) ||
        die 4 "curl cannot fetch: $url/$name: $(printf '%s\n' "$said" | tail -n 1); check the network, or name a local folder"
    right "$part" "$name" || die 4 "not the file recorded here: $url/$name; try again"
    mv -- "$part" "$file"
    printf '%s  %s\n' "$(sha256 "$file")" "$name"
done
printf 'source-data holds %s\n' "$(printf '%s\n' "$names" | tr '\n' ' ')"
