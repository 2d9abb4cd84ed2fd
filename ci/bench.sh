#!/usr/bin/env bash
# Compares Kmalloc with other allocators: ci/bench.sh [--quick] [ARGUMENT...]; the arguments are `compare`'s.
#
# Builds one program for each allocator, as their users do, and runs them in turn: every row in a process of its own,
# many rounds. Writes CSV, tables and plots into benches/results. Takes about half an hour on two cores, which should
# have nothing else to do. --quick: two rounds of a tenth of the work, and nothing is written; it shows that all of it
# runs, not how fast.
#
# Needs a C++ compiler and cmake for the others; installs them where it can.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
arguments=(--results benches/results)
if [ "${1:-}" = --quick ]; then
    shift
    arguments=(--rounds 2 --latency-rounds 2 --part 0.1)
fi

ci/tools.sh c++ cmake
unset RUSTFLAGS
programs=$target/compare/programs
mkdir -p "$programs"

# name, then the crate whose version is told; the system's is the C library.
allocators=(
    kmalloc:allocator-global
    system:
    mimalloc-v3:mimalloc
    mimalloc-v2:mimalloc
    jemalloc:tikv-jemallocator
    snmalloc:snmalloc-rs
    rpmalloc:rpmalloc
    tcmalloc:tcmalloc-better
    rusty:rusty_alloc-api
)
specifications=()
for allocator in "${allocators[@]}"; do
    name=${allocator%%:*} crate=${allocator#*:} features=()
    if [ "$name" != system ]; then features=(--features "$name"); fi
    echo "-- $name"
    cargo build --quiet --profile compare -p rivals "${features[@]}"
    cp "$target/compare/rivals" "$programs/$name"
    version=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown)
    if [ -n "$crate" ]; then
        version="$crate $(awk -v crate="name = \"$crate\"" '$0 == crate { getline; gsub(/"/, ""); print $3 }' Cargo.lock)"
    fi
    if [ "$name" = kmalloc ]; then version+=", revision $(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"; fi
    if [ "$name" = rpmalloc ]; then version+=" (rpmalloc 1.4)"; fi
    specifications+=("$name=$version=$programs/$name")
done

machine="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors, Linux $(uname -r), \
$(rustc --version | cut -d ' ' -f 1-2), huge pages: $(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled)"
cargo run --quiet --profile compare -p compare -- "${specifications[@]}" --machine "$machine" "${arguments[@]}" "$@"
