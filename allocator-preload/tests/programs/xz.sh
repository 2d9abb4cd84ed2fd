#!/usr/bin/env bash
# xz: a few levels, with one thread and with several that work on blocks.
# packages: xz-utils
# program: xz
set -euo pipefail
lines=80000
[ "${1:-}" != brief ] || lines=10000
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sha256sum data
for options in '-0' '-3 -T2 --block-size=500KiB' '-1 -T4 --block-size=200KiB' '-6 -T1' '--format=lzma -2' '-2 --x86 --lzma2 -C sha256'; do
    # shellcheck disable=SC2086 # several words
    xz $options -c data >packed
    sha256sum packed
    xz -dc -T2 packed | cmp - data
done
xz --robot -l packed | tail -1
