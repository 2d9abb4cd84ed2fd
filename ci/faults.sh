#!/usr/bin/env bash
# Fault injection: every system call of every workload fails in turn, with arenas of the usual size and with arenas of
# one chunk, which make more calls: ci/faults.sh [--pairs SECONDS].
#
# Fails unless 10 000 injections differ. Every call fails alone, and one in sixteen also together with all that follow,
# which takes about six minutes on two cores; with --pairs two calls near each other fail as well, for so many seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
large=
trap '[ -z "$large" ] || kill "$large" || true; rm -rf "$scratch"' EXIT

arguments=(--thin 16)
if [ "${1:-}" = --pairs ]; then
    arguments+=(--pairs --seconds "${2:?seconds}")
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

# Both at once: a sweep uses one core.
"$scratch/large" --least 4000 "${arguments[@]}" >"$scratch/large.log" 2>&1 &
large=$!
failed=0
echo "-- arenas of one chunk"
"$scratch/small" --least 6000 "${arguments[@]}" || failed=1
wait "$large" || failed=1
large=
echo "-- arenas of the usual size"
cat "$scratch/large.log"
exit "$failed"
