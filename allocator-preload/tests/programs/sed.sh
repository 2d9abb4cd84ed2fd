#!/usr/bin/env bash
# sed: replacements, the hold space, loops, files changed in place.
# packages: sed
# program: sed
set -euo pipefail
lines=60000
[ "${1:-}" != brief ] || lines=100
awk -v n="$lines" 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + i) % 2147483647; print x, "line", i % 100, x % 1000 } }' >data
sed -E 's/([0-9])([0-9]+)/\2\1/g; s/line/\U&/; /^1/d' data | sha256sum
sed -n 'H; 2000~2000 { g; s/\n/+/g; p; s/.*//; h }' data | sha256sum
sed -e ':again' -e 's/\([0-9]\)\([0-9]\{3\}\)\($\|[, ]\)/\1,\2\3/' -e 't again' data | sha256sum
head -n 3000 data | sed -n '1!G; h; $p' | sha256sum
sed -e 'y/0123456789/abcdefghij/' -e '/b.*b/{N;P;D}' data | sha256sum
sed -n -e '/ 42 /w chosen' -e '$=' data
sha256sum chosen
split -n l/50 data part
sed -i.old -e 's/line/row/' part*
cat part* | sha256sum
cat part*.old | wc -l
awk 'BEGIN { for (i = 0; i < 300; i++) printf "s/ %d$/ <%d>/\n", i, i * 7 }' >script
head -n 5000 data | sed -f script | sha256sum
