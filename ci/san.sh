#!/usr/bin/env bash
# The shipped code under AddressSanitizer and ThreadSanitizer: ci/san.sh [address|thread]. Needs nightly.
#
# Under both: the unit tests of the core, and the stress program. Under AddressSanitizer also the programs that run under
# Kmalloc; there the feature `asan` tells the sanitizer of every byte that nobody has (allocator-core/src/poison.rs).
# First, faults that are there on purpose must be reported (allocator-global/examples/planted.rs).
#
# Not seen: std is not instrumented, so the thread sanitizer does not see what std's own locks and counters order, nor
# what fences do. Reports known to come of that are suppressed, each with its reason below, and unit tests run one after
# the other, so that none races with another through a lock of std. Left out are the longest tests of one thread, and
# what measures memory, address space or stack, of which sanitizers take a share; misuse is read on purpose.
# SAN_SECONDS (20) is how long the stress program runs under each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
triple=$(rustc -vV | sed -n 's/^host: //p')
base=${CARGO_TARGET_DIR:-target}
seconds=${SAN_SECONDS:-20}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

ci/tools.sh nightly c++ symbolizer

# Cargo with a sanitizer: $1 its name, $2 the command, the rest its arguments.
with() {
    local name=$1 command=$2
    shift 2
    RUSTFLAGS="-Zsanitizer=$name -Cunsafe-allow-abi-mismatch=sanitizer" \
        cargo +nightly "$command" --target "$triple" --target-dir "$base/san-$name" "$@"
}

# Tests under a sanitizer: $1 its name, the rest arguments of cargo test.
tests() {
    local name=$1
    shift
    echo "-- $name: cargo test $*"
    with "$name" test "$@" 2>&1 | tee "$scratch/tests"
    # In each of the programs.
    if ! grep -q '^test result: ok. [1-9]' "$scratch/tests" || grep -q '^test result: ok. 0 ' "$scratch/tests"; then
        echo "san: no test ran" >&2
        return 1
    fi
}

# A fault that must be reported: $1 the sanitizer, $2 what the report must say, the rest arguments of `planted`.
must_report() {
    local name=$1 report=$2
    shift 2
    "$base/san-$name/$triple/debug/examples/planted" "$@" >"$scratch/report" 2>&1 || true
    grep -q "$report" "$scratch/report"
}

address() {
    echo "-- address: are faults seen?"
    with address build --quiet -p allocator-core -p allocator-global --features allocator-global/asan --example planted
    local fault which
    for fault in use-after-free overflow use-after-shrinking; do
        for which in 0 1 2; do
            if [ "$fault $which" = "use-after-free 2" ]; then continue; fi # a fault of the system's
            if ! must_report address "AddressSanitizer: use-after-poison.*" "$fault" "$which"; then
                cat "$scratch/report"
                echo "san: the address sanitizer does not report: $fault $which" >&2
                return 1
            fi
        done
    done
    export ASAN_OPTIONS=detect_leaks=0 # the tests keep heaps for ever
    tests address -p allocator-core -p allocator-global --features allocator-global/asan --lib --test collections --test fork \
        --test handover --test sizes
    echo "-- address: stress, $seconds s"
    with address run --quiet -p stress --features allocator-global/asan -- run --seconds "$seconds"
}

thread() {
    echo "-- thread: is a race seen?"
    with thread build --quiet -p allocator-global --example planted
    export TSAN_OPTIONS="suppressions=$scratch/suppressions halt_on_error=0"
    : >"$scratch/suppressions"
    local try seen=
    for try in {1..20}; do # not every run catches it
        if must_report thread 'data race.* in planted::race' race; then seen=$try && break; fi
    done
    if [ -z "$seen" ]; then
        echo "san: the thread sanitizer does not report a race that is there" >&2
        return 1
    fi
    # The last owner of an Arc, the channels, and the events of the test harness are ordered by code of std.
    printf 'race:%s\n' 'alloc::sync::Arc*drop' 'std::sync::mpmc' 'test::event::CompletedTest' >"$scratch/suppressions"
    local name alone=(
        every_reachable_state every_call_of_a_workload a_system_that_refuses_loses_nothing no_kind_of_request_passes_the_limit
        a_block_grows_up_to_the_limit heap::tests::odd heap::tests::huge heap::tests::growth a_heap_whose_memory_may_not_change
        a_heap_that_was_used_and_emptied
    )
    local skips=()
    for name in "${alone[@]}"; do skips+=(--skip "$name"); done
    tests thread -p allocator-core --lib -- --test-threads 1 "${skips[@]}"
    echo "-- thread: stress, $seconds s"
    with thread run --quiet -p stress -- run --seconds "$seconds"
}

[ $# -gt 0 ] || set -- address thread
for sanitizer in "$@"; do
    case $sanitizer in
    address | thread) "$sanitizer" ;;
    *)
        echo "san: unknown sanitizer: $sanitizer" >&2
        exit 2
        ;;
    esac
done
