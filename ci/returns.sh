#!/usr/bin/env bash
# Memory that comes back: what is resident after a burst, of which little is alive, with the threads that allocated
# parked and nobody calling the allocator: ci/returns.sh [--quick]
#
# One program for each allocator, built as their users do; each scenario (benches/workloads/src/returns.rs) three times in
# turn, in a process of its own; medians. Writes benches/results/returns.md. --quick: Kmalloc and the system's
# allocator alone, a quarter of the work, once, and nothing is written.
# Fails if Kmalloc keeps more than it promises: after two seconds, or after five where the machine is busy.
#
# The allocators that are no crates of Rust need a C++ compiler and cmake; installs them where it can.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
unset RUSTFLAGS
programs=$target/compare/programs
mkdir -p "$programs"
runs=$(mktemp)
trap 'rm -f "$runs"' EXIT

allocators=(kmalloc system) rounds=1 part=0.25
if [ "${1:-}" != --quick ]; then
    ci/tools.sh c++ cmake
    allocators+=(mimalloc-v3 mimalloc-v2 jemalloc snmalloc rpmalloc tcmalloc rusty)
    rounds=3 part=1
fi
scenarios=(idle-neighbours idle-scattered drained tokio-parked fragments)

for name in "${allocators[@]}"; do
    features=()
    if [ "$name" != system ]; then features=(--features "allocators/$name"); fi
    echo "-- $name"
    cargo build --quiet --profile compare -p rivals "${features[@]}"
    cp "$target/compare/rivals" "$programs/$name"
done
for round in $(seq "$rounds"); do
    for scenario in "${scenarios[@]}"; do
        for name in "${allocators[@]}"; do
            # Some of them crash now and then: a row without figures.
            printf '%s %s %s\n' "$scenario" "$name" "$("$programs/$name" returns "$scenario" "$part" || true)" >>"$runs"
        done
    done
    echo "-- round $round of $rounds"
done

# MiB, of KiB: alive, peak, and resident at once, after 1, 2 and 5 s.
table=$(awk -v names="${allocators[*]}" -v rows="${scenarios[*]}" '
    function median(scenario, name, column,    n, i, j, list, swap) {
        n = count[scenario, name]
        for (i = 1; i <= n; i++) list[i] = run[scenario, name, i, column]
        for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++)
            if (list[j] < list[i]) { swap = list[i]; list[i] = list[j]; list[j] = swap }
        return n ? list[int((n + 1) / 2)] / 1024 : -1
    }
    NF == 8 { n = ++count[$1, $2]; for (c = 3; c <= 8; c++) run[$1, $2, n, c] = $c }
    END {
        n = split(names, name, " "); m = split(rows, row, " ")
        printf "| scenario | alive |"; for (i = 1; i <= n; i++) printf " %s |", name[i]
        printf "\n|---|---:|"; for (i = 1; i <= n; i++) printf "---:|"
        print ""
        for (r = 1; r <= m; r++) {
            printf "| %s | %.1f |", row[r], median(row[r], name[1], 3)
            for (i = 1; i <= n; i++) printf " %.0f of %.0f |", median(row[r], name[i], 7), median(row[r], name[i], 4)
            print ""
        }
    }' "$runs")
echo "$table"

# What may be resident, in KiB.
kept=$(awk '
    $2 == "kmalloc" && NF == 8 {
        bound["idle-neighbours"] = 1.1 * $3 + 24 * 1024
        bound["idle-scattered"] = 12 * $3
        bound["drained"] = 64 * 1024
        bound["tokio-parked"] = 64 * 1024
        bound["fragments"] = 7.5 * $3
        least = $8 < $7 ? $8 : $7
        if (least > bound[$1]) print $1 ": " least " KiB are resident, of which " $3 " are alive"
        seen++
    }
    END { if (seen == 0) print "no run of Kmalloc" }' "$runs")
if [ -n "$kept" ]; then
    printf 'returns: Kmalloc keeps more than it promises\n%s\n' "$kept" >&2
    exit 1
fi
if [ "${1:-}" = --quick ]; then exit; fi
{
    cat <<'END'
# Memory that comes back

Written by `ci/returns.sh`: what is resident two seconds after a burst, of the peak, in MiB, with the threads that allocated
parked and no call of the allocator in between; medians of three runs in turn. *alive* is what was asked for and not
freed. Every allocator as its users get it.

END
    echo "$table"
    cat <<'END'

| scenario | what happens |
|---|---|
END
    sed -n 's/^ *name: "\([^"]*\)",$/\1/p; s/^ *what: "\([^"]*\)",$/\1/p; s/^ *Scenario { name: "\([^"]*\)", what: "\([^"]*\)",.*/\1\n\2/p' \
        benches/workloads/src/returns.rs | paste -d '|' - - | sed 's/^\([^|]*\)|\(.*\)$/| \1 | \2 |/'
} >benches/results/returns.md
