#!/usr/bin/env bash
# Where else it compiles and runs: ci/targets.sh [oldest|musl|aarch64...]
#
# - oldest: both crates of the allocator compile without a warning with the Rust that they say they need.
# - musl: tests of both run, linked statically, with musl as the C library. Left out: what needs a dynamic linker, a sandbox that
#   knows the C library's calls, and a fork in a handler of a fork, for which musl waits for itself.
# - aarch64: tests of both run under an emulator of the processor, which passes system calls on to this one. How memory is ordered is
#   not emulated (ci/loom.sh is for that). Left out: what starts another process, what forks beside threads, what measures residence or
#   stacks, and what takes minutes.
#
# What rustup cannot get (toolchains and standard libraries, by name) is not tried, and the last line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/targets
export CARGO_TARGET_DIR=$target RUST_BACKTRACE=0
tried=() missing=()

tests() { cargo test --quiet --release --target "$@"; }

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' allocator-core/Cargo.toml)
get_oldest() { rustup toolchain install "$version" --profile minimal --no-self-update; }
run_oldest() {
    RUSTFLAGS="-D warnings" cargo "+$version" check --quiet -p allocator-global
    RUSTFLAGS="-D warnings" cargo "+$version" check --quiet -p allocator-global --features allocator-global/override
}

get_musl() { rustup target add x86_64-unknown-linux-musl; }
run_musl() {
    tests x86_64-unknown-linux-musl -p allocator-core --lib -- areas limits slabs sys:: zeros
    tests x86_64-unknown-linux-musl -p allocator-global --lib --test catalogue --test collections --test handover --test limits --test misuse \
        --test pressure --test reports --test signals --test sizes --test stacks --test starting --test threads
}

get_aarch64() { rustup target add aarch64-unknown-linux-gnu; }
run_aarch64() {
    ci/tools.sh aarch64
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
    tests aarch64-unknown-linux-gnu -p allocator-core --lib -- arena areas chunk:: page:: sheaf:: size_class:: slabs untyped zeros
    tests aarch64-unknown-linux-gnu -p allocator-global --test collections --test reports --test sizes
}

mkdir -p "$target"
[ $# -gt 0 ] || set -- oldest musl aarch64
for name in "$@"; do
    case $name in oldest | musl | aarch64) ;; *) echo "targets: unknown name: $name" >&2 && exit 2 ;; esac
    echo "-- $name"
    if "get_$name" >"$target/log" 2>&1; then
        "run_$name"
        tried+=("$name")
    else
        cat "$target/log"
        missing+=("$name")
    fi
done
echo "targets: tried: ${tried[*]:-none}; not to be had: ${missing[*]:-none}"
