#!/usr/bin/env bash
# The whole allocator under a scheduler that chooses at random, at every race window, which thread goes on
# (stress/src/schedules.rs): ci/schedules.sh [SECONDS [SEED]]; a minute without an argument, half of it with arenas of
# one chunk. A failure names the seed of its schedule; ci/schedules.sh 1 SEED replays it (with addresses that are the same
# each time, where setarch may ask for that).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
seed=()
if [ $# -gt 1 ]; then seed=(--seed "$2"); fi
target=${CARGO_TARGET_DIR:-target}/schedules
fixed=()
if setarch --addr-no-randomize true 2>/dev/null; then fixed=(setarch --addr-no-randomize); fi

for features in schedules schedules,allocator-core/small-arenas; do
    echo "-- $features"
    cargo build --quiet --profile unwind -p stress --features "$features" --target-dir "$target"
    "${fixed[@]}" "$target/unwind/stress" schedules --seconds $(((seconds + 1) / 2)) "${seed[@]}"
done
