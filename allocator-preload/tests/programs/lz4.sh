#!/usr/bin/env bash
# lz4: fast and slow levels, blocks of each size, there and back.
# packages: lz4
# program: lz4
set -euo pipefail
lines=200000
[ "${1:-}" != brief ] || lines=10
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sha256sum data
for options in -1 -5 -12 '-9 -BD -B4' '-1 -BX -B7'; do
    # shellcheck disable=SC2086 # several words
    lz4 -q $options -c data >packed
    sha256sum packed
    lz4 -q -dc packed | cmp - data
done
