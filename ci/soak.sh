#!/usr/bin/env bash
# Long runs: ci/soak.sh [SECONDS [PART...]]; an hour of `stress` and an hour of `yields` without an argument.
#
# | part      | what it does                                                                            |
# |-----------|-----------------------------------------------------------------------------------------|
# | stress    | every shape of load, with and without refusals, each block verified                     |
# | yields    | the same, with threads that yield in the race windows of the allocator                  |
# | schedules | the whole allocator under a scheduler that chooses at random: ci/schedules.sh           |
# | faults    | every system call fails alone, some with all that follow, then two of them: ci/faults.sh |
# | loom      | the models with 3 preemptions, each for at most SECONDS: ci/loom.sh                     |
# | forks     | at least SOAK_FORKS (100000) forks of a process whose threads allocate, half of them where |
# |           | one system call in ten is refused                                                       |
#
# How far `stress` and `yields` have come is kept under target/soak, by revision: when the script is called again with
# the same tree, they go on from there. A line of progress each SOAK_EVERY seconds (60). The line `evidence` at the end
# of a part is for docs/evidence.md.
#
# SOAK_VERIFIED: `stress` does not end before so many operations were verified, by all its runs together. SOAK_FRESH=1:
# from the beginning, and nothing is kept. SOAK_SEED: the seed of a soak that begins; otherwise from the clock.
# SOAK_THREADS: threads that allocate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-3600}
shift || true

# What is tried is named by the commit, and by the difference from it if there is one.
sources=(allocator-core allocator-global stress Cargo.lock)
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
if [ "$revision" != unknown ] && ! git diff --quiet HEAD -- "${sources[@]}" 2>/dev/null; then
    revision+=-$(git diff HEAD -- "${sources[@]}" 2>/dev/null | sha256sum | cut -c 1-8)
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
states=${CARGO_TARGET_DIR:-target}/soak/$revision
if [ "${SOAK_FRESH:-0}" = 1 ]; then states=$scratch; fi
mkdir -p "$states"
common=()
if [ -n "${SOAK_SEED:-}" ]; then common+=(--seed "$SOAK_SEED"); fi
if [ -n "${SOAK_THREADS:-}" ]; then common+=(--threads "$SOAK_THREADS"); fi

# Runs the stress program: $1 the line of its output that is evidence; then arguments of cargo, `--`, and its own.
run() {
    local line=$1 status=0
    shift
    cargo run --profile unwind -p stress "$@" "${common[@]}" 2>&1 | tee "$scratch/log" || status=$?
    if [ "$status" != 0 ] || ! grep -q "$line" "$scratch/log"; then
        echo "soak: the stress program failed" >&2
        return 1
    fi
    printf 'evidence: %s, revision %s\n' "$(grep "$line" "$scratch/log")" "$revision"
}

stress() {
    run '^soak: ' -- soak --seconds "$seconds" --verified "${SOAK_VERIFIED:-0}" --every "${SOAK_EVERY:-60}" \
        --state "$states/stress"
}
yields() {
    run '^soak: ' --features yields -- soak --seconds "$seconds" --every "${SOAK_EVERY:-60}" --state "$states/yields"
}
schedules() { ci/schedules.sh "$seconds"; }
faults() { ci/faults.sh --pairs "$seconds"; }
loom() { LOOM_MAX_PREEMPTIONS=3 LOOM_MAX_DURATION=$seconds ci/loom.sh; }
# One operation in eight of the thread that forks is a fork, on average; a tenth more, to be sure.
forks() {
    local system done sum=0 forks=${SOAK_FORKS:-100000}
    for system in real storm; do
        run '^ForkStorm .* forks' -- run --shape fork-storm --profile small --system "$system" --ops $((forks * 4 * 11 / 10))
        done=$(sed -n 's/^ForkStorm .* \([0-9]*\) forks.*/\1/p' "$scratch/log")
        sum=$((sum + done))
    done
    if [ "$sum" -lt "$forks" ]; then
        echo "soak: only $sum forks" >&2
        return 1
    fi
}

[ $# -gt 0 ] || set -- stress yields
for part in "$@"; do
    case $part in
    stress | yields | schedules | faults | loom | forks)
        echo "-- soak: $part, revision $revision"
        "$part"
        ;;
    *)
        echo "soak: unknown part: $part" >&2
        exit 2
        ;;
    esac
done
