#!/usr/bin/env bash
# Compares Kmalloc with other allocators: ci/bench.sh [--quick] [ARGUMENT...]; the arguments are `compare`'s.
#
# Builds one program for each allocator, as their users do, and runs them in turn: every row in a process of its own,
# many rounds. Then counts the instructions of the operations of each with callgrind. Writes CSV, tables and plots into
# benches/results. Takes about half an hour on two cores, which should have nothing else to do. --quick: two rounds of a
# tenth of the work, no counts, and nothing is written; it shows that all of it runs, not how fast.
#
# Needs valgrind, and a C++ compiler and cmake for the others; installs them where it can.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
results=benches/results
arguments=(--results "$results")
if [ "${1:-}" = --quick ]; then
    shift
    results=
    arguments=(--rounds 2 --latency-rounds 2 --part 0.1)
fi

ci/tools.sh c++ cmake valgrind iai-callgrind-runner
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
    if [ "$name" != system ]; then features=(--features "allocators/$name"); fi
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

if [ -z "$results" ]; then exit; fi
echo "-- instructions per operation"
counts=()
for allocator in "${allocators[@]}"; do
    name=${allocator%%:*} features=()
    if [ "$name" != system ]; then features=(--features "$name"); fi
    if cargo bench --quiet --profile compare -p allocators "${features[@]}" --bench instructions -- \
        --output-format=json >"$programs/$name.json" 2>"$programs/$name.log"; then
        counts+=("$name=$programs/$name.json")
    else
        echo "$name does not run under callgrind:"
        tail -n 3 "$programs/$name.log"
        [ "$name" != kmalloc ] || exit 1
    fi
done
{
    echo '# Instructions per operation'
    echo
    echo 'By callgrind, of a program that calls `std::alloc` with a layout that the compiler cannot see: what'
    echo '`benches/allocators/benches/instructions.rs` does, worked out as for `benches/instructions.csv`. A dash: it does not'
    echo 'run under callgrind, or what it takes differs from round to round.'
    echo
    cargo run --quiet --release -p benches --bin count -- compare "${counts[@]}"
} >"$programs/instructions.md"
cp "$programs/instructions.md" "$results/instructions.md"
