#!/usr/bin/env bash
# Fuzzes every target for a while: ci/fuzz.sh [SECONDS [TARGET...]]; 60 seconds each without an argument.
# Chooses the seeds anew from all that was found: ci/fuzz.sh --minimise [TARGET...].
#
# Starts from fuzz/seeds, which is committed and which `cargo test` replays; what is found on the way goes to
# fuzz/corpus, which is not. Needs nightly. FUZZ_SANITIZER names a sanitizer: none, or address, which halves the speed and
# sees little, since the memory that is fuzzed comes from mmap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true
sanitizer=${FUZZ_SANITIZER:-none}

ci/tools.sh nightly c++ symbolizer cargo-fuzz
target_directory=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$target_directory"
target_directory=$(realpath "$target_directory")

mapfile -t targets < <(cargo +nightly fuzz list)
for target in "$@"; do
    if [[ " ${targets[*]} " != *" $target "* ]]; then
        echo "fuzz: no target $target; there are: ${targets[*]}" >&2
        exit 2
    fi
done
if [ $# != 0 ]; then targets=("$@"); fi
if [ "${#targets[@]}" = 0 ]; then
    echo "fuzz: no target" >&2
    exit 1
fi

# An operation is eight bytes, so this is about a hundred of them.
length=(-max_len=1024)

fuzz() {
    local target=$1
    shift
    cargo +nightly fuzz run --sanitizer "$sanitizer" --target-dir "$target_directory" "$target" "$@"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
    seeds=fuzz/seeds/$target corpus=fuzz/corpus/$target
    mkdir -p "$seeds" "$corpus"
    if [ "$seconds" = --minimise ]; then
        # The fewest inputs that reach every edge that all of them reach together.
        chosen=$target_directory/seeds
        rm -rf "$chosen" && mkdir "$chosen"
        fuzz "$target" "$chosen" "$seeds" "$corpus" -- -set_cover_merge=1 -use_counters=0 "${length[@]}" 2>&1 | tail -n 1
        rm -rf "$seeds" && mv "$chosen" "$seeds"
        continue
    fi
    echo "-- fuzz $target, $seconds s, sanitizer $sanitizer"
    known=$(find "$seeds" "$corpus" -type f | wc -l)
    fuzz "$target" "$corpus" "$seeds" -- -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 -print_final_stats=1 \
        -len_control=20 "${length[@]}" 2>&1 | tee "$log" |
        { grep -Ev '	(NEW|REDUCE|RELOAD|pulse) ' || true; } # the news of every input; the rest is shown
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    # It begins with an empty input and all that are known.
    if [ "${executed:-0}" -le $((known + 1)) ]; then
        echo "fuzz: $target ran ${executed:-no} inputs, $known of which are known" >&2
        exit 1
    fi
done
