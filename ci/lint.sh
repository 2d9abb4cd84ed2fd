#!/usr/bin/env bash
# Formatting, clippy, documentation, and the build without std. Warnings of clippy and rustdoc are errors.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
step() { printf -- '-- %s\n' "$*"; }

step "cargo fmt"
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check

step "clippy, the workspace"
cargo clippy --workspace --exclude allocator-preload --all-targets -- -D warnings
step "clippy, the heap of C"
cargo clippy -p allocator-preload -p allocator-global --features allocator-global/override --lib -- -D warnings
step "clippy, small arenas"
cargo clippy -p allocator-core -p allocator-global --all-targets --features allocator-core/small-arenas -- -D warnings
step "clippy, hooks in race windows"
cargo clippy -p stress --all-targets --features yields -- -D warnings
step "clippy, under a scheduler"
cargo clippy -p stress --all-targets --features schedules -- -D warnings
step "clippy, checked"
cargo clippy -p allocator-core -p allocator-global --all-targets --features allocator-global/checked -- -D warnings
step "clippy, the core without std"
cargo clippy -p allocator-core --no-default-features -- -D warnings
step "clippy, the global allocator without std"
cargo clippy -p allocator-global --no-default-features -- -D warnings
step "clippy, the core under loom"
RUSTFLAGS="--cfg kmalloc_loom --cfg crossbeam_loom" cargo clippy -p allocator-core --lib --tests --target-dir "$target/loom" -- -D warnings
step "clippy, fuzz targets"
cargo clippy --manifest-path fuzz/Cargo.toml --target-dir "$target/fuzz" -- -D warnings

step "the core builds without std"
cargo build -p allocator-core --no-default-features
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# Targets other than the host's are checked where they happen to be installed.
for triple in $(rustup target list --installed 2>/dev/null); do
    step "check for $triple"
    cargo check -p allocator-core -p allocator-global --target "$triple"
done
