#!/bin/sh
# What share of the main job's instructions is spent in malloc, free, realloc, calloc and what they call, when the
# system's allocator serves it? Counted by callgrind, so the figure is nearly the same on every run and machine.
# Needs valgrind. Usage: ci/malloc-share.sh [MIB] [PATH]    (MIB of input, 1 if not said)
# Fails if the share is below 15 %.
set -eu
cd "$(dirname "$0")/.."
limit=${1:-1}
[ $# -eq 0 ] || shift

cargo build --quiet --release --package indexer
program=${CARGO_TARGET_DIR:-target}/release/indexer
profile=$(mktemp)
trap 'rm -f "$profile"' EXIT

INDEXER_ALLOCATOR=system valgrind --quiet --tool=callgrind --callgrind-out-file="$profile" --compress-pos=no \
    "$program" --child system --threads 2 --limit "$limit" "$@" >/dev/null

# In the profile, "calls=" lines carry the callee and, on the next line, the cost of the call and all below it. Only
# calls from the program itself count, so one that malloc's functions make among themselves is not counted twice.
awk '
    function name(field,    id) { # "(12) text" gives 12 its text, "(12)" means it
        id = field; sub(/\).*/, ")", id)
        if (field != id) names[kind, id] = substr(field, length(id) + 2)
        return names[kind, id]
    }
    { key = $0; sub(/=.*/, "=", key); value = substr($0, length(key) + 1) }
    key == "ob="  { kind = "object"; object = name(value); next }
    key == "cob=" { kind = "object"; name(value); next }
    key == "fn="  { kind = "function"; name(value); next }
    key == "cfn=" { kind = "function"; callee = name(value); next }
    key == "calls=" {
        split(value, count, " ")
        getline
        if (object ~ /\/indexer$/ && callee ~ /^(malloc|free|realloc|calloc|posix_memalign|aligned_alloc)$/) {
            cost[callee] += $2; calls[callee] += count[1]; inside += $2
        }
        next
    }
    $1 == "totals:" { total = $2 }
    END {
        for (callee in cost) printf "%-15s %11d calls %14.0f instructions\n", callee, calls[callee], cost[callee]
        printf "%-15s %11s       %14.0f instructions\n", "whole process", "", total
        if (total == 0) exit 1
        share = 100 * inside / total
        printf "share of malloc and free: %.1f %%\n", share
        exit share < 15
    }
' "$profile"
