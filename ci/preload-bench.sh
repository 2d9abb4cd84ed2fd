#!/usr/bin/env bash
# Time and peak memory of real programs under libkmalloc.so, against other allocators that are loaded before them:
# ci/preload-bench.sh [--rounds N] [NAME...]
#
# Each round runs each script of allocator-preload/tests/programs that is named (without a name those that work with their heap
# for half a second or so, and run under each of the others, which PHP with its extensions does not) under each allocator, one
# right after the other: the C library's own, and jemalloc, mimalloc and tcmalloc as Debian packages them. What is short runs
# again, until it has taken ten seconds of the round, and each time another allocator is the first; before each run, memory is
# warmed (benches/compare/src/warm.rs). Writes all runs into benches/results/preload.csv, and into benches/results/preload.md the
# least time of all runs, their median, and the least peak of the largest process, each by the best of the others; and geometric
# means. Not a part of CI: it measures, and takes twenty minutes a round.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts=$PWD/allocator-preload/tests/programs
rounds=3
if [ "${1:-}" = --rounds ]; then rounds=$2 && shift 2; fi
names=("$@")
[ $# != 0 ] || names=(python perl git sqlite3 cc redis node ruby lua jq xml imagemagick clang r octave mariadb)

cargo build --quiet --release -p allocator-preload
cargo build --quiet --profile compare -p compare
ci/programs.sh --install "${names[@]}"
packages=(libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 time)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq "${packages[@]}" >/dev/null
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
target=$(realpath "${CARGO_TARGET_DIR:-target}")
cp "$target/release/libkmalloc.so" "$scratch/"
found() { find /usr/lib -name "$1" | sort | head -n 1; }
version() { dpkg-query -W -f='${Version}' "$1"; }
allocators=(
    "kmalloc=revision $(git describe --always --abbrev=12 --dirty=+)=$scratch/libkmalloc.so"
    "glibc=$(version libc6)="
    "jemalloc=$(version libjemalloc2)=$(found 'libjemalloc.so.2')"
    "mimalloc=$(version libmimalloc2.0)=$(found 'libmimalloc.so.2*')"
    "tcmalloc=$(version libtcmalloc-minimal4)=$(found 'libtcmalloc_minimal.so.4')"
)

# Else the dynamic linker only warns, and it would be the C library's that is measured.
for allocator in "${allocators[@]}"; do
    library=${allocator##*=}
    if [[ $allocator != glibc=* ]] && ! { [ -f "$library" ] && LD_PRELOAD=$library grep -q -F "$(realpath "$library")" /proc/self/maps; }; then
        echo "preload-bench: ${allocator%%=*} cannot be loaded" >&2
        exit 1
    fi
done

# once NAME LIBRARY: seconds, and KiB of the largest process.
once() {
    # Nothing ends a function by itself whose answer is looked at.
    { rm -rf "$scratch/run" && mkdir -p "$scratch/run/tmp" && "$target/compare/compare" --warm; } || return 1
    (
        cd "$scratch/run"
        # Python's tests want to be ended by signals that `nohup`, or a shell for what runs in the background, has switched off.
        env --default-signal -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC HOME="$scratch/run" TMPDIR="$scratch/run/tmp" \
            timeout -k 5 300 time -q -f '%e %M' -o "$scratch/figures" env ${2:+LD_PRELOAD="$2"} bash "$scripts/$1.sh" </dev/null >/dev/null 2>&1
    ) || { echo "preload-bench: $1 failed under ${2:-the C library}" >&2; return 1; }
    tail -n 1 "$scratch/figures"
}

: >"$scratch/runs"
turn=0
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    for name in "${names[@]}"; do
        begin=$SECONDS
        while
            for ((i = 0; i < ${#allocators[@]}; i++)); do
                allocator=${allocators[(turn + i) % ${#allocators[@]}]}
                figures=$(once "$name" "${allocator##*=}") || exit 1
                echo "$name ${allocator%%=*} $figures" >>"$scratch/runs"
            done
            turn=$((turn + 1))
            [ $((SECONDS - begin)) -lt $((10 * ${#allocators[@]})) ]
        do :; done
    done
done

{
    echo "# Real programs under a heap that is loaded before them"
    echo
    echo "Written by \`ci/preload-bench.sh\`, rounds: $rounds; in each a program runs for ten seconds at least under each, on memory that was in use a moment ago. $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
        "$(nproc) processors, Linux $(uname -r)."
    echo
    printf -- '- %s\n' "${allocators[@]}" | sed 's/=[^=]*$//; s/=/: /'
    echo
    awk -v order="$(printf '%s ' "${allocators[@]%%=*}")" '
        { key = $1 " " $2
          if (!(key in time) || $3 < time[key]) time[key] = $3
          if (!(key in peak) || $4 < peak[key]) peak[key] = $4
          runs[key, ++ran[key]] = $3
          if (!($1 in seen)) { seen[$1] = 1; rows[++n] = $1 } }
        # Sorts the runs of a key as they are found.
        function median(key,   i, k, m) {
            for (i = 2; i <= ran[key]; i++) {
                m = runs[key, i]
                for (k = i - 1; k >= 1 && runs[key, k] > m; k--) runs[key, k + 1] = runs[key, k]
                runs[key, k + 1] = m
            }
            i = ran[key]
            return (runs[key, int((i + 1) / 2)] + runs[key, int(i / 2) + 1]) / 2
        }
        # A table of what is by program and allocator; a ratio is to the best of all but the first.
        function table(what, values, unit,   i, k, m, best, line, all) {
            line = "| " what " |"
            for (k = 1; k <= count; k++) line = line " " names[k] " |"
            print line; line = "|---|"
            for (k = 1; k <= count; k++) line = line "---:|"
            print line
            for (i = 1; i <= n; i++) {
                best = 0
                for (k = 2; k <= count; k++) { m = values[rows[i] " " names[k]]; if (!best || m < best) best = m }
                line = "| " rows[i] " |"
                for (k = 1; k <= count; k++) {
                    m = values[rows[i] " " names[k]]
                    all[k] += log(m / best)
                    line = line sprintf(unit, m, m / best) " |"
                }
                print line
            }
            line = "| geometric mean |"
            for (k = 1; k <= count; k++) line = line sprintf(" %.3f |", exp(all[k] / n))
            print line
        }
        END {
            count = split(order, names, " ")
            print "Seconds, the least of all runs, and by the best other allocator of the row:\n"
            table("time", time, " %.2f (%.2f)")
            for (key in ran) { middle[key] = median(key); peak[key] /= 1024 }
            print "\nSeconds, the median of all runs:\n"
            table("time", middle, " %.2f (%.2f)")
            print "\nMiB of the largest process at its peak, the least of all runs:\n"
            table("memory", peak, " %.1f (%.2f)")
        }' "$scratch/runs"
} | tee benches/results/preload.md
{ echo program,allocator,seconds,kib && tr ' ' , <"$scratch/runs"; } >benches/results/preload.csv
