#!/usr/bin/env bash
# Counts the instructions of every operation with callgrind and compares them with the tables benches/instructions*.csv,
# one for arenas of the usual size and one for arenas of one chunk: fails if a figure has grown by more than 2 %.
# `ci/count.sh --bless` writes the tables anew instead.
#
# The counts depend on the compiler and the C library; the first line of a table says which it was made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ci/tools.sh valgrind iai-callgrind-runner
note="$(rustc --version | cut -d ' ' -f 1-2), $(valgrind --version), $(getconf GNU_LIBC_VERSION)"
echo "Measured with: $note"

# What users get: no LTO, and no flags of the caller's environment. The profile has no `lto` of its own.
unset RUSTFLAGS
export CARGO_PROFILE_BENCH_LTO=false
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
failed=0
for arenas in "" -small-arenas; do
    table=benches/instructions$arenas.csv
    echo
    if [ -f "$table" ]; then sed -n "1s|^# |$table, committed with: |p" "$table"; fi
    cargo bench --quiet -p allocators --features "kmalloc$arenas" --bench instructions -- --output-format=json >"$counts"
    cargo run --quiet --release -p benches --bin count -- check "$table" --note "$note" "$@" <"$counts" || failed=1
done
# What README says of them.
for size in 48 40000; do
    is=$(awk -F, -v size="$size" '$1 == "pair" && $2 == size { printf "%d", $3 }' benches/instructions.csv)
    written=$(sed 's/\(..\)\(...\)$/\1 \2/' <<<"$size")
    if ! grep -q "^| allocate and free $written bytes | $is |$" README.md; then
        echo "README.md should say that it takes $is instructions to allocate and free $written bytes" >&2
        failed=1
    fi
done
exit "$failed"
