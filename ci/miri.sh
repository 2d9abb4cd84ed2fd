#!/usr/bin/env bash
# The allocator under Miri, which interprets it by Rust's own rules: ci/miri.sh [SEED...], 1 if none is named.
#
# Every access has to be one that the pointer allows, by two drafts of the rules (Stacked Borrows and Tree Borrows), of memory that is
# there, initialised and ordered with what other threads do; and no pointer is made from a number. On the machine none of it can be seen.
# What Miri has no system calls for is `allocator-core/src/sys/interpreted.rs`. A seed chooses which thread goes on when, and which of the
# values that a load may see it sees.
#
# Where rustup cannot get Miri for the nightly toolchain nothing is tried, and the last line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/miri
export CARGO_TARGET_DIR=$target RUST_BACKTRACE=0 PROPTEST_CASES=2 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true
[ $# -gt 0 ] || set -- 1

mkdir -p "$target"
if ! rustup component add --toolchain nightly miri rust-src >"$target/log" 2>&1; then
    cat "$target/log"
    echo "miri: not to be had"
    exit
fi
cargo +nightly miri setup 2>/dev/null

# $1: flags; $2: a name for them; the rest: what to run.
interpret() {
    local flags=$1 rules=$2
    shift 2
    echo "-- $rules: $*"
    MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks $flags" \
        RUSTFLAGS="-D warnings" cargo +nightly miri test --quiet "$@"
}
# Heaps of tests live for ever. By the second draft cells are told from what lies beside them where that does not take an hour.
stacked=
trees=-Zmiri-tree-borrows
coarse="$trees -Zmiri-tree-borrows-no-precise-interior-mut"

for rules in stacked trees; do
    interpret "${!rules}" "$rules" -p allocator-core --lib -- chunk:: page::tests::tags sheaf:: units::
done
for seed in "$@"; do
    interpret "$coarse -Zmiri-seed=$seed" "trees, seed $seed" -p allocator-core --lib -- interpreted
    interpret "$coarse -Zmiri-seed=$seed" "trees, seed $seed" -p allocator-global --test interpreted
done
interpret "$stacked" stacked -p allocator-global --test interpreted
if interpret "$coarse" "a race that was planted" -p allocator-global --test interpreted -- planted-race >"$target/log" 2>&1 ||
    ! grep "Data race detected" "$target/log"; then
    echo "miri: a race that was planted is not reported" >&2
    exit 1
fi
echo "miri: nothing found"
