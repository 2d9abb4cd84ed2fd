#!/usr/bin/env bash
# Misuse under valgrind's memcheck: ci/memcheck.sh [EVERY]; every 41st case of the catalogue (tests/catalogue.rs) without
# an argument, 1 for all of them, which takes an hour. The catalogue goes round by 15, 17, 30 and 34 (calls, threads): a
# multiple of one of them would meet the same ones each time.
#
# Of the program's blocks memcheck knows nothing: to it they are parts of large mappings. What it can tell is whether the
# allocator, while it judges a bad pointer, reads or jumps where nothing is mapped, or decides by a word of its stack that
# nobody has written. (What is mapped counts as written.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
every=${1:-41}
ci/tools.sh valgrind

# Builds the test program $1 and says where it is.
program() {
    local build
    build=$(CARGO_TERM_COLOR=never cargo test -p allocator-global --test "$1" --no-run 2>&1) || { echo "$build" >&2; return 1; }
    realpath "$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$build")"
}
binary=$(program catalogue)
# The last number that the catalogue has: a number beyond it panics.
cases=$(KMALLOC_TEST_CHILD=count "$binary")
if [ "$cases" -lt 1000 ]; then echo "memcheck: $cases cases are not all" >&2; exit 1; fi
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export binary logs

one() {
    local said code=0
    said=$(KMALLOC_TEST_CHILD=one_case KMALLOC_TEST_ARGUMENT=$1 valgrind --log-file="$logs/$1" "$binary" 2>/dev/null) ||
        code=$?
    # It names its address first, and ends by itself or by the abort.
    if [[ $said != 0x* ]] || [[ ! $code =~ ^(0|134)$ ]] || ! grep -q 'ERROR SUMMARY: 0 errors' "$logs/$1"; then
        echo "memcheck: case $1, exit code $code"
        cat "$logs/$1"
        return 1
    fi
}
export -f one

correct=$(program misuse)
echo "memcheck: a correct program"
KMALLOC_TEST_CHILD=correct valgrind --quiet --error-exitcode=1 "$correct"

# shellcheck disable=SC2016 # for the inner shell
seq 0 "$every" $((cases - 1)) | xargs -P "$(nproc)" -I{} bash -c 'one "$1" 2>/dev/null' _ {} || { echo "memcheck: an error was found" >&2; exit 1; }
echo "memcheck: $(((cases + every - 1) / every)) of $cases cases of misuse, no access where nothing is mapped, no decision by what nobody wrote"
