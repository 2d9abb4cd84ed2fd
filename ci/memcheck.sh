#!/usr/bin/env bash
# Misuse under valgrind's memcheck: ci/memcheck.sh [EVERY]; every 40th case of the catalogue (tests/catalogue.rs) without
# an argument, 1 for all of them, which takes an hour.
#
# Of the program's blocks memcheck knows nothing: to it they are parts of large mappings. What it can tell is whether the
# allocator, while it judges a bad pointer, reads or jumps where nothing is mapped, or decides by a word that nobody has
# written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
every=${1:-40}
ci/tools.sh valgrind

build=$(cargo test -p allocator-global --test catalogue --no-run 2>&1) || { echo "$build" >&2; exit 1; }
binary=$(realpath "$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$build")")
# The last number that the catalogue has: a number beyond it panics.
cases=$(KMALLOC_TEST_CHILD=count "$binary")
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export binary logs

one() {
    KMALLOC_TEST_CHILD=one_case KMALLOC_TEST_ARGUMENT=$1 valgrind --log-file="$logs/$1" "$binary" >/dev/null 2>&1 || true
    if ! grep -q 'ERROR SUMMARY: 0 errors' "$logs/$1"; then
        echo "memcheck: case $1"
        cat "$logs/$1"
        return 1
    fi
}
export -f one

# shellcheck disable=SC2016 # for the inner shell
seq 0 "$every" $((cases - 1)) | xargs -P "$(nproc)" -I{} bash -c 'one "$1" 2>/dev/null' _ {} || { echo "memcheck: an error was found" >&2; exit 1; }
echo "memcheck: $(((cases + every - 1) / every)) of $cases cases of misuse, no invalid access, no decision by what nobody wrote"
