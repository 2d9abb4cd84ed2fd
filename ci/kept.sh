#!/usr/bin/env bash
# What it costs in time and memory that memory goes back: ci/kept.sh [ROUNDS]; five rounds without a number.
#
# Every row of `ci/bench.sh` under Kmalloc as it is and with `purge_after:never`, in turn, each run a process of its own.
# Prints, for each row and as geometric means, what is needed as it is by what is needed without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
built=$(ci/rivals.sh kmalloc)
built=${built%%$'\n'*}
programs=${built##*=}
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# The same programs, each behind a line that sets the variable.
never=
for program in ${programs//,/ }; do
    script=$results/never-$(basename "$program")
    printf '#!/bin/sh\nKMALLOC_CONF=purge_after:never exec %q "$@"\n' "$(realpath "$program")" >"$script"
    chmod +x "$script"
    never+=${never:+,}$script
done
cargo run --quiet --profile compare -p compare -- "kmalloc=as it is=$programs" "never=purge_after:never=$never" \
    --rounds "${1:-5}" --latency-rounds 1 --results "$results" >/dev/null

awk -F , '
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    {
        row = $column["row"]
        if (!(row in seen)) { seen[row] = 1; rows[++n] = row }
        least[row, $column["allocator"]] = $column["time_min_ns"]
        median[row, $column["allocator"]] = $column["time_median_ns"]
        peak[row, $column["allocator"]] = $column["peak_median_kib"]
    }
    function ratio(of, row) { return of[row, "kmalloc"] / of[row, "never"] }
    END {
        printf "%-20s %6s %7s %6s\n", "row", "least", "median", "memory"
        for (i = 1; i <= n; i++) {
            row = rows[i]
            printf "%-20s %6.2f %7.2f %6.2f\n", row, ratio(least, row), ratio(median, row), ratio(peak, row)
            a += log(ratio(least, row)); b += log(ratio(median, row)); c += log(ratio(peak, row))
        }
        printf "%-20s %6.3f %7.3f %6.3f\n", n " rows", exp(a / n), exp(b / n), exp(c / n)
    }' "$results/rows.csv"
