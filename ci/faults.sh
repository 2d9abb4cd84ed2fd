#!/usr/bin/env bash
# Fault injection: every system call of every workload fails in turn, with arenas of the usual size and with arenas of
# one chunk, which make more calls: ci/faults.sh [--pairs SECONDS].
#
# Every call fails alone, and one in sixteen also together with all that follow, which takes about five minutes on two
# cores; fails unless 10 000 injections differ. With --pairs two calls near each other fail as well, for so many seconds,
# most of them with small arenas, and they count, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

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

# share ARENAS I/N EIGHTHS: every N-th workload from the I-th on; pairs for so many eighths of the time.
share() {
    local log=$scratch/$1-${2%/*} status=0 pairs=()
    if [ -n "$seconds" ]; then pairs=(--pairs --seconds $((seconds * $3 / 8))); fi
    "$scratch/$1" --thin 16 --share "$2" "${pairs[@]}" >"$log" 2>&1 || status=1
    flock "$scratch" sh -c "echo '-- $1 arenas, workloads $2'; cat '$log'"
    return "$status"
}
export -f share
export scratch seconds

# A sweep uses one core. Both lanes are done at about the same time.
xargs -P 2 -L 1 bash -c 'share "$@"' share <<'END'
small 0/4 3
small 1/4 3
small 2/4 3
small 3/4 3
large 0/2 2
large 1/2 2
END
sed -n 's/^\([0-9]*\) distinct (workload, call site, n), \([0-9]*\) distinct pairs.*/\1 \2/p' "$scratch"/*-[0-9] |
    awk '{ singles += $1; pairs += $2 }
         END { print "faults: " singles " single refusals and " pairs " pairs of them that differ"
               exit !(singles + pairs >= 10000) }'
