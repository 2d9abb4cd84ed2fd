#!/usr/bin/env bash
# find and xargs: a tree of thousands of files, by name, by size, by expression, with programs started for them.
# packages: findutils
# program: find
set -euo pipefail
digest() { sha256sum | cut -c1-16; }
directories=100
[ "${1:-}" != brief ] || directories=2
for ((i = 0; i < directories; i++)); do
    directory=tree/$((i % 3))/$((i % 11))/$i
    mkdir -p "$directory"
    (cd "$directory" && split -l 1 -a 3 <(seq 30) part)
    truncate -s $((i * 1000)) "$directory/big"
done
find tree | sort | digest
find tree -type f -size +20k -printf '%p %s\n' | sort | digest
find tree -depth -regex '.*[13579]/part.*' -not \( -name '*a' -o -name '*b' \) | sort | digest
find tree -type f -name 'part*' -exec sha256sum {} + | sort | digest
find tree -type f -print0 | sort -z | xargs -0 -n 50 -P 2 cksum | sort | digest
find tree -maxdepth 2 -type d -exec echo {} \; | sort | digest
find tree -name big -delete
find tree -empty | wc -l
find tree -type f | wc -l
