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
programs=$target/compare/programs
results=benches/results
arguments=(--results "$results")
if [ "${1:-}" = --quick ]; then
    shift
    results=
    arguments=(--rounds 2 --latency-rounds 2 --part 0.1)
fi

ci/tools.sh c++ cmake valgrind iai-callgrind-runner
built=$(ci/rivals.sh)
mapfile -t specifications <<<"$built"
machine=${specifications[-1]}
unset 'specifications[-1]' RUSTFLAGS
cargo run --quiet --profile compare -p compare -- "${specifications[@]}" --machine "$machine" "${arguments[@]}" "$@"

if [ -z "$results" ]; then exit; fi
echo "-- instructions per operation"
counts=()
for specification in "${specifications[@]}"; do
    name=${specification%%=*} features=()
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
