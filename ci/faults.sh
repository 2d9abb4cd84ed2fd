#!/usr/bin/env bash
# Fault injection: every system call of every workload fails in turn, with arenas of the usual size and with arenas of
# one chunk, which make more calls: ci/faults.sh [--pairs SECONDS].
#
# Every call fails alone, and one in sixteen also together with all that follow, which takes about six minutes on two
# cores; fails unless 10 000 injections differ. With --pairs two calls near each other fail as well, for so many seconds,
# most of them with small arenas, and they count, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
lane=
trap '[ -z "$lane" ] || kill -- "-$lane" || true; rm -rf "$scratch"' EXIT

seconds=
if [ "${1:-}" = --pairs ]; then
    seconds=${2:?seconds}
elif [ $# -gt 0 ]; then
    echo "usage: ci/faults.sh [--pairs SECONDS]" >&2
    exit 2
fi

for size in large small; do
    features=()
    if [ "$size" = small ]; then features=(--features allocator-core/small-arenas); fi
    cargo build --release -p stress --example faults "${features[@]}"
    cp "$target/release/examples/faults" "$scratch/$size"
done

# sweep ARENAS SHARE LEAST SECONDS: every SHARE of the workloads, at least LEAST injections, pairs for SECONDS.
sweep() {
    local pairs=()
    if [ -n "$seconds" ]; then pairs=(--pairs --seconds "$4"); fi
    echo "-- $1 arenas, workloads $2"
    "$scratch/$1" --thin 16 --share "$2" --least "$3" "${pairs[@]}"
}

# A sweep uses one core, so there are two lanes of them.
set -m
{
    sweep large 0/1 4000 $((seconds / 4)) || exit 1
    if [ -n "$seconds" ]; then sweep small 1/2 2000 $((seconds * 3 / 4)); fi
} >"$scratch/log" 2>&1 &
lane=$!
set +m # the other lane ends with this script
failed=0
if [ -n "$seconds" ]; then
    sweep small 0/2 2000 "$seconds" || failed=1
else
    sweep small 0/1 6000 0 || failed=1
fi
wait "$lane" || failed=1
lane=
cat "$scratch/log"
exit "$failed"
