#!/usr/bin/env bash
# Counts the instructions of every operation with callgrind and compares them with benches/instructions.csv: fails
# if a figure has grown by more than 2 %. `ci/count.sh --bless` writes the table anew instead.
#
# The counts depend on the compiler and the C library; the first line of the table says which it was made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
table=benches/instructions.csv

ci/tools.sh valgrind iai-callgrind-runner
note="$(rustc --version | cut -d ' ' -f 1-2), $(valgrind --version), $(getconf GNU_LIBC_VERSION)"
echo "Measured with: $note"
if [ -f "$table" ]; then sed -n '1s/^# /Committed with: /p' "$table"; fi
echo

# What users get: no LTO, and no flags of the caller's environment. The profile has no `lto` of its own.
unset RUSTFLAGS
export CARGO_PROFILE_BENCH_LTO=false
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
cargo bench --quiet -p benches --bench instructions -- --output-format=json >"$counts"
cargo run --quiet --release -p benches --bin count -- "$table" --note "$note" "$@" <"$counts"
