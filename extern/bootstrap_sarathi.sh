#!/bin/sh
# Check out Sarathi-Serve at a fixed commit into extern/tracked/sarathi-serve. See README.md.
set -eu

url=https://github.com/microsoft/sarathi-serve.git
commit=96f9911790ecc00af12ee9fae47cb8fa9ba0d199

die() { # exit code, message
    printf 'error: %s\n' "$2" >&2
    exit "$1"
}

reason() { # what git said: its first fatal line
    printf '%s\n' "$1" | sed -n '/^fatal: /{s///p;q;}'
}

[ $# -eq 0 ] || die 2 "no argument is taken: $1; usage: bootstrap_sarathi.sh"

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
dest=$here/tracked/sarathi-serve
work=$here/tracked/.sarathi-serve.$$

command -v git >/dev/null || die 4 "no git command: PATH; install git"

if [ -e "$dest" ] || [ -L "$dest" ]; then
    # --git-dir, so that git does not fall back to the repository around this folder.
    head=$(git --git-dir="$dest/.git" rev-parse --verify -q HEAD 2>/dev/null) || head=none
    [ "$head" = "$commit" ] || die 4 "not Sarathi-Serve at $commit: $dest (HEAD $head); move it away"
    git --git-dir="$dest/.git" --work-tree="$dest" diff --quiet HEAD 2>/dev/null ||
        die 4 "its tracked files were changed: $dest; restore them, or move it away"
    printf 'sarathi-serve is at %s already\n' "$commit"
    exit 0
fi

trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' HUP INT TERM
mkdir -p -- "$here/tracked" 2>/dev/null || die 4 "cannot make the folder: $here/tracked; check the permissions"

said=$(GIT_TERMINAL_PROMPT=0 git clone --quiet --no-checkout -- "$url" "$work" 2>&1) ||
    die 4 "git cannot clone: $url: $(reason "$said"); check the network"
said=$(git -C "$work" checkout --quiet --detach "$commit" 2>&1) ||
    die 4 "git cannot check out: $commit: $(reason "$said"); see $url"
mv -- "$work" "$dest"
printf 'sarathi-serve is at %s\n' "$commit"
