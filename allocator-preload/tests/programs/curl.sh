#!/usr/bin/env bash
# curl: many files by file:// in one process, one after the other and several at a time; forms and headers to a file.
# packages: curl
# program: curl
set -euo pipefail
files=200
[ "${1:-}" != brief ] || files=3
mkdir in out
for ((i = 0; i < files; i++)); do
    seq "$i" $((i * 17)) >"in/$i"
    printf 'url = "file://%s/in/%d"\noutput = "out/%d"\n' "$PWD" "$i" "$i"
done >config
curl -sS --no-progress-meter -K config
diff -r in out
rm out/*
curl -sS --no-progress-meter --parallel --parallel-max 20 -K config
diff -r in out
curl -sS --no-progress-meter "file://$PWD/in/[0-$((files - 1))]" | sha256sum
curl -sS --no-progress-meter -r 10-200 "file://$PWD/in/2" | sha256sum
curl -sS --no-progress-meter -T config "file://$PWD/uploaded"
cmp config uploaded
status=0
curl -sS --no-progress-meter "file://$PWD/missing" 2>error || status=$?
echo "missing: $status"
status=0
curl -sS --no-progress-meter --max-time 5 --unix-socket none -F "a=<config" -F b=@config -H 'X: y' http://localhost/ 2>/dev/null || status=$?
echo "no server: $status"
