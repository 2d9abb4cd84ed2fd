#!/usr/bin/env bash
# Fault injection: every system call of every workload fails in turn, with arenas of the usual size and with arenas of
# one chunk, which make more calls: ci/faults.sh [--whole] [--pairs SECONDS [FROM]].
#
# Every call fails alone, the odd ones where long mappings are aligned by chance and the even ones where none is, and one in
# sixteen also together with all that follow, which takes three to seven minutes on two cores; fails unless 4 000 of those
# injections differ with the usual arenas, and 6 000 with small ones. With --whole every call fails in both placings. With
# --pairs two calls near each other fail as well, for so many seconds, most of them with small arenas; with FROM only such
# pairs, and only those that are so many calls apart at least, which goes on where a run was cut off.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
lanes=
trap '[ -z "$lanes" ] || kill -- "-$lanes" 2>/dev/null || true; rm -rf "$scratch"' EXIT
trap 'exit 143' TERM INT

seconds= from=1 in_turn=--in-turn
if [ "${1:-}" = --whole ]; then
    in_turn=
    shift
fi
if [ "${1:-}" = --pairs ] && [[ ${2:-} =~ ^[0-9]+$ && ${3:-1} =~ ^[0-9]+$ ]]; then
    seconds=$2 from=${3:-1}
elif [ $# -gt 0 ]; then
    echo "usage: ci/faults.sh [--whole] [--pairs SECONDS [FROM]]" >&2
    exit 2
fi

for size in large small; do
    features=()
    if [ "$size" = small ]; then features=(--features allocator-core/small-arenas); fi
    cargo build --profile unwind -p stress --example faults "${features[@]}"
    cp "$target/unwind/examples/faults" "$scratch/$size"
done

# share ARENAS I/N EIGHTHS: every N-th workload from the I-th on; pairs for so many eighths of the time.
share() {
    local log=$scratch/$1-${2%/*} status=0 pairs=()
    if [ -n "$seconds" ]; then pairs=(--pairs --seconds $((seconds * $3 / 8)) --from "$from"); fi
    "$scratch/$1" $in_turn --thin 16 --share "$2" "${pairs[@]}" >"$log" 2>&1 || status=1
    if [ "$status" != 0 ]; then cp "$log" "$log.failed"; fi
    flock "$scratch" sh -c "echo '-- $1 arenas, workloads $2'; cat '$log'"
    return "$status"
}
export -f share
export scratch seconds from in_turn

# A sweep uses one core. The longest begin, so that both lanes are done at about the same time.
cat >"$scratch/shares" <<'END'
large 1/2 2
large 0/2 2
small 0/4 3
small 1/4 3
small 3/4 3
small 2/4 3
END
failed=0
set -m # a group of their own, which ends with this script
xargs -P 2 -L 1 bash -c 'share "$@"' share <"$scratch/shares" &
lanes=$!
set +m
wait "$lanes" || failed=1
lanes=
for log in "$scratch"/*.failed; do
    if [ -f "$log" ]; then echo "faults: $(basename "$log" .failed) ended so:" >&2 && tail -n 5 "$log" >&2; fi
done

# The sums of what the sweeps of some size count.
count() {
    sed -n 's/^\([0-9]*\) distinct (workload, call site, n), \([0-9]*\) distinct pairs.*/\1 \2/p' "$scratch"/$1-[0-9] |
        awk '{ singles += $1; pairs += $2 } END { print singles + 0, pairs + 0 }'
}
read -r large large_pairs <<<"$(count large)"
read -r small small_pairs <<<"$(count small)"
echo "faults: $((large + small)) single refusals that differ, $large of them with the usual arenas," \
    "and $((large_pairs + small_pairs)) pairs of refusals"
[ "$failed" = 0 ]
[ "$from" -gt 1 ] || { [ "$large" -ge 4000 ] && [ "$small" -ge 6000 ]; }
