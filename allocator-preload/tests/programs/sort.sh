#!/usr/bin/env bash
# GNU sort with threads and with files between, and what else sorts, joins and cuts: uniq, comm, join, shuf, split, paste.
# packages: coreutils
# program: sort
set -euo pipefail
lines=300000
[ "${1:-}" != brief ] || lines=1000
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sort --parallel=2 data >sorted
sha256sum sorted
sort --parallel=4 -S 2M -k4,4n -k1,1r data | sha256sum
sort --parallel=2 -s -k3,3n data | sha256sum
sort -u -k4,4 data | sha256sum
split -n l/8 data part
for part in part*; do sort --parallel=2 -o "$part" "$part"; done
sort -m part* | cmp - sorted
sort -c sorted
cut -d' ' -f4 data | sort -n | uniq -c | sort -rn | sed -n 1,3p
comm -12 <(sort partaa) <(sort partab) | wc -l
join -1 4 -2 4 -o 1.1,2.1 <(head -n 3000 data | sort -k4,4) <(tail -n 3000 data | sort -k4,4) | sha256sum
shuf --random-source=data data | sha256sum
paste -d, partaa partab partac | tac | fold -w 20 | fmt | nl | sha256sum
head -n 1000 data | tr ' ' '\n' | paste -sd ' ' | wc
factor $(seq 100000000000 100000000050) | sha256sum
