#!/usr/bin/env bash
# The newcomer's command, then everything again with arenas of one chunk, the allocator with every object checked at
# the call, and as the heap of the program's C, too, then what measures. No package is named where none has to be: so the
# crates below are the same in all of them, and are built once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where the system has no huge pages, tests of who gets some have little to look at.
if grep -qs -F -e '[madvise]' -e '[always]' /sys/kernel/mm/transparent_hugepage/enabled; then
    export KMALLOC_TEST_HUGE=1
else
    echo "-- no huge pages here: tests of them are skipped"
fi
echo "-- cargo test"
cargo test
echo "-- cargo test, small arenas"
cargo test --features allocator-core/small-arenas
echo "-- cargo test of the allocator, checked"
cargo test --features allocator-global/checked --test catalogue --test fork --test misuse \
    --test sizes
echo "-- cargo test of the allocator, under C as well"
cargo build --example plugin # what a test loads, and has no heap for C
cargo test --features allocator-global/override --test fork --test handover --test idle --test limits --test memory \
    --test plugin --test pressure --test signals --test starting --test stacks --test threads
echo "-- cargo test of what measures"
cargo test -p benches -p compare -p workloads --lib --bins
