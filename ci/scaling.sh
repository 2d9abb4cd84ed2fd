#!/usr/bin/env bash
# Counts what Kmalloc's threads do to each other, a row of the table in docs/scaling.md for each workload and number of
# threads: ci/scaling.sh [PART-OF-THE-WORK]. The counts are exact but for what the scheduler does; times mean nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
part=${1:-0.2}

cargo build --quiet --profile compare -p rivals --features counts
echo '| workload | threads | read-modify-writes | fences | locks | waits |'
echo '|---|---:|---:|---:|---:|---:|'
line() {
    "$target/compare/rivals" count "$1" "$part" ${2:+"$2"} | awk -v name="$1" -v threads="${2:--}" '{
        printf "| %s | %s |", name, threads
        for (i = 2; i <= NF; i++) printf " %.2f |", 1000 * $i / $1
        print ""
    }'
}
for row in live-2 smartheap-2 larson-8 pass-the-block cache-scratch cache-thrash thread-churn short-threads; do
    for threads in 1 2 4 16 64; do line "$row" "$threads"; done
done
while read -r row _; do
    case $row in
    live-2 | smartheap-2 | larson-8 | pass-the-block | cache-* | thread-churn | short-threads) ;;
    *) line "$row" ;;
    esac
done < <("$target/compare/rivals" rows)
