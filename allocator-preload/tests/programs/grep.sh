#!/usr/bin/env bash
# grep: basic, extended and Perl's expressions, lists of thousands of words, trees, references back.
# packages: grep
# program: grep
set -euo pipefail
lines=100000
[ "${1:-}" != brief ] || lines=10000
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
grep -c '1.*2.*3' data
grep -E '^(1|22|333)[0-9]+ .*(7|8){2}' data | sha256sum
grep -P '(?<=line )(\d)(?=\d? \d*\1$)' data | sha256sum
grep -oP '\b(\d)\d*\1\b' data | sha256sum
grep -cP '^(?:(\d)(?!\1))+\s' data
grep -E -c '([0-9])\1\1' data || true
seq 1000 77 900000 >words
grep -F -f words data | sha256sum
grep -F -v -f words -c data
head -n 100 words | grep -F -w -c -f - data || true
head -n 100 words | sed 's/$/$/' | grep -E -f - -c data || true
{ grep -n -A2 -B1 ' 42 99$' data || true; } | sha256sum
mkdir -p tree/{a,b,c}
split -n l/60 data tree/a/part
mv tree/a/part?[a-m] tree/b
grep -r -l ' 999$' tree | sort | sha256sum
grep -i -c 'LINE 4[2-5]' data
