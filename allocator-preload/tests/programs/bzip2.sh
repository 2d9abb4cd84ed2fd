#!/usr/bin/env bash
# bzip2: blocks of each size, there and back, and a file that is damaged.
# packages: bzip2
# program: bzip2
set -euo pipefail
lines=60000
[ "${1:-}" != brief ] || lines=10
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sha256sum data
for level in 1 5 9; do
    bzip2 -k -$level -c data >data.$level.bz2
    bzip2 -t data.$level.bz2
    sha256sum data.$level.bz2
    bzip2 -dc data.$level.bz2 | cmp - data
    bzip2 -s -dc data.$level.bz2 | cmp - data
done
{ head -c 100 data.9.bz2 && echo damage && tail -c +200 data.9.bz2; } >bad.bz2
bzip2 -t bad.bz2 2>/dev/null || echo "damaged"
