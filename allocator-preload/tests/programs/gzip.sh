#!/usr/bin/env bash
# gzip: every level, there and back, and a file that is damaged.
# packages: gzip
# program: gzip
set -euo pipefail
lines=100000
[ "${1:-}" != brief ] || lines=10
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sha256sum data
for level in 1 2 3 4 5 6 7 8 9; do
    gzip -n -$level -c data >data.$level.gz
    gzip -t data.$level.gz
    sha256sum data.$level.gz
    gzip -dc data.$level.gz | cmp - data
done
gzip -l data.*.gz
{ head -c 100 data.9.gz && echo damage && tail -c +200 data.9.gz; } >bad.gz
gzip -t bad.gz 2>/dev/null || echo "damaged"
