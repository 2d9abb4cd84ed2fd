#!/usr/bin/env bash
# Runs the loom models of the core, one process each: ci/loom.sh [--mutants] [PART-OF-A-NAME]
#
# Every interleaving with at most LOOM_MAX_PREEMPTIONS preemptions (2) is tried, for at most LOOM_MAX_DURATION
# seconds a model (60). A model that this stops has not been exhausted, and its line says so.
#
# With --mutants all models run, then the code is broken in one place at a time, and some model must fail each time: ci/mutants.sh.
# PART-OF-A-NAME is that of a mutant then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mutants=
if [ "${1:-}" = --mutants ]; then mutants=1 && shift; fi
part=${1:-}

# Not `cfg(loom)`, which other crates have: whoever tests such a one may have this allocator in his program. The second is
# crossbeam-epoch's own.
export RUSTFLAGS="--cfg kmalloc_loom --cfg crossbeam_loom -C debug-assertions=on"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/loom
export LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-2}
export LOOM_MAX_DURATION=${LOOM_MAX_DURATION:-60}
export RUST_BACKTRACE=0

build=$(CARGO_TERM_COLOR=never cargo test -p allocator-core --release --lib --no-run 2>&1) || { echo "$build" >&2; exit 1; }
binary=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$build")
binary=$(realpath "$binary")
export binary

wanted=$part
if [ -n "$mutants" ]; then wanted=; fi
mapfile -t models < <("$binary" --list --format terse loom | sed -n 's/: test$//p' | grep -F -- "$wanted" || true)
if [ "${#models[@]}" = 0 ]; then
    echo "loom: no model to run" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/logs" "$work/sites" "$work/times"
export work

# A model notes which places of the code it reaches, and how long it takes, which tells mutants what to run.
model() {
    local name=$1 log="$work/logs/$1" begin took result
    begin=$(date +%s%N)
    touch "$work/sites/$name"
    local run=("$binary" --exact "$name" --nocapture --test-threads 1)
    if KMALLOC_SITES="$work/sites/$name" "${run[@]}" >"$log" 2>&1 && grep -q '^test result: ok. 1 passed' "$log"; then
        took=$(($(date +%s%N) - begin))
        printf '%015d\t%s\n' "$took" "$name" >"$work/times/$name"
        result="to the end"
        # A model says so itself: loom ends silently.
        if ! grep -q ' runs in .*, to the end$' "$log"; then
            result="stopped by the time limit, not exhausted"
            touch "$log.cut"
        fi
        printf 'ok     %4d s  %s  (%s)\n' $((took / 1000000000)) "$name" "$result"
    else
        printf 'FAILED %4d s  %s\n' $((($(date +%s%N) - begin) / 1000000000)) "$name"
        tail -n 60 "$log"
        return 1
    fi
}
export -f model

echo "loom: ${#models[@]} models, at most $LOOM_MAX_PREEMPTIONS preemptions, at most $LOOM_MAX_DURATION s each"
# shellcheck disable=SC2016 # for the inner shell
printf '%s\0' "${models[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'model "$1"' _ || {
    echo "loom: a model failed" >&2
    exit 1
}
cut=$(find "$work/logs" -name '*.cut' | wc -l)
echo "loom: ${#models[@]} models passed, $((${#models[@]} - cut)) of them to the end"
if [ -n "$mutants" ]; then ci/mutants.sh "$part"; fi
