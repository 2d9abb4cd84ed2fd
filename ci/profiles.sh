#!/usr/bin/env bash
# The allocator as other builds make it: ci/profiles.sh [PROFILE...]; all of them without an argument.
#
# | profile     | what differs                                                                     |
# |-------------|----------------------------------------------------------------------------------|
# | unoptimised | opt-level 0, where nothing is inlined and every frame is large                    |
# | small       | opt-level s, one codegen unit                                                     |
# | whole       | fat LTO over all crates, for this processor                                       |
# | abort       | the same with panic=abort, which leaves no landing pads: the stress program       |
# | static      | the C library linked in (static-pie): no loader, thread-local storage found late  |
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
triple=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/profiles

tests() { cargo test --quiet -p allocator-global --target-dir "$target" --test "$@"; }
programs=(threads --test fork --test sizes --test misuse --test stacks --test first)

unoptimised() {
    KMALLOC_TEST_UNOPTIMISED=1 CARGO_PROFILE_TEST_OPT_LEVEL=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 tests "${programs[@]}"
}
small() {
    CARGO_PROFILE_TEST_OPT_LEVEL=s CARGO_PROFILE_TEST_CODEGEN_UNITS=1 tests "${programs[@]}"
}
whole() {
    RUSTFLAGS="-C target-cpu=native" CARGO_PROFILE_TEST_OPT_LEVEL=3 CARGO_PROFILE_TEST_LTO=fat \
        CARGO_PROFILE_TEST_CODEGEN_UNITS=1 tests "${programs[@]}"
}
abort() {
    RUSTFLAGS="-C target-cpu=native" CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
        cargo run --quiet --release -p stress --target-dir "$target" -- run --seconds 5
}
# `first` puts itself before the C library, which only a loader can do.
static() {
    RUSTFLAGS="-C target-feature=+crt-static" tests threads --test sizes --test misuse --test collections \
        --target "$triple"
}

[ $# -gt 0 ] || set -- unoptimised small whole abort static
for profile in "$@"; do
    case $profile in
    unoptimised | small | whole | abort | static)
        echo "-- $profile"
        "$profile"
        ;;
    *)
        echo "profiles: unknown profile: $profile" >&2
        exit 2
        ;;
    esac
done
