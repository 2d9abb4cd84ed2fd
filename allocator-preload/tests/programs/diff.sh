#!/usr/bin/env bash
# diff, diff3, cmp, sdiff and patch: texts with many changes, compared each way, and made out of each other.
# packages: diffutils patch
# program: diff
set -euo pipefail
digest() { sha256sum | cut -c1-16; }
lines=20000
[ "${1:-}" != brief ] || lines=100

# $1: which text.
text() {
    awk -v n="$lines" -v which="$1" 'BEGIN {
        for (i = 0; i < n; i++) {
            x = (x * 16807 + 12345) % 2147483647
            if (x % 37 == which) continue
            if (x % 41 == which) print "a line more", i
            print "line", x % 5000, x % 53 == which ? "changed" : ""
        }
    }'
}

for which in 0 1 2; do text $which >text$which; done
for options in -u -c -y -e --normal --minimal '-U 0 -w' --speed-large-files; do
    # shellcheck disable=SC2086 # several words
    echo "$options $({ diff $options --label old --label new text0 text1 || test $? = 1; } | digest)"
done
diff -u --label old --label new text0 text1 >change || test $? = 1
cp text0 copy
patch -s copy change
cmp copy text1
patch -s -R copy change
cmp copy text0
{ diff3 -m text1 text0 text2 || test $? = 1; } | digest
{ sdiff -l text1 text0 || test $? = 1; } | digest
cmp text0 text1 || true
mkdir -p old new
(cd old && split -l 50 ../text0)
(cd new && split -l 50 ../text1)
{ diff -r -q old new || test $? = 1; } | digest
