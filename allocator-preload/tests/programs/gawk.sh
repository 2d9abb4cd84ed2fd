#!/usr/bin/env bash
# gawk: tables, strings, patterns, numbers without end, sorted walks, and pipes to itself.
# packages: gawk
# program: gawk
set -euo pipefail
n=150000
[ "${1:-}" != brief ] || n=100
gawk -v n="$n" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x % 5000, "word" x % 777, i } }' >data
gawk '{ sum[$1] += $3; words[$2] = words[$2] " " $1; list[$1 % 10][$2]++ }
    END {
        PROCINFO["sorted_in"] = "@ind_str_asc"
        for (k in sum) print k, sum[k]
        for (w in words) print w, length(words[w]), split(words[w], parts), substr(words[w], 5, 20)
        for (i in list) for (w in list[i]) print i, w, list[i][w]
    }' data | sha256sum
gawk '{ gsub(/[0-4]+/, "<&>"); print toupper($0); if (match($0, /d(<[0-9]+>)([5-9]+)/, m)) print m[1], m[2] }' data | sha256sum
gawk 'function rest(s) { return s == "" ? "" : rest(substr(s, 2)) substr(s, 1, 1) }
    NR % 50 == 0 { print rest($0) } NR % 10 == 0 { delete t; for (i = 0; i < 20; i++) t[i] = $0 i; c += asort(t) } END { print c }' data | sha256sum
gawk -M 'BEGIN { x = 1; for (i = 1; i < 500; i++) x *= i; print x; PREC = 1000; printf "%.200f\n", sqrt(2) }'
gawk '{ print $2 | "sort -u" } END { close("sort -u"); while (("seq 1000" | getline line) > 0) s += line; print s }' data | sha256sum
