#!/usr/bin/env bash
# zstd: levels, threads, long distances, dictionaries.
# packages: zstd
# program: zstd
set -euo pipefail
lines=300000
[ "${1:-}" != brief ] || lines=30000
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sha256sum data
for options in -1 '-3 -T2 -B512KiB' '-9 -T4' '--long=24 -5 -T2' '--adapt=min=3,max=3 -T2' --fast=5; do
    # shellcheck disable=SC2086 # several words
    zstd -q $options -c data >packed
    zstd -q -dc --long=24 packed | cmp - data
    case $options in *adapt*) ;; *) sha256sum packed ;; esac
done
mkdir samples
split -l 200 -a 4 <(head -n 40000 data) samples/
zstd -q --train samples/* --maxdict=20KB -o dictionary
sha256sum dictionary
zstd -q -D dictionary samples/*
zstd -q -t -D dictionary samples/*.zst
cat samples/*.zst | sha256sum
