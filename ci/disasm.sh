#!/usr/bin/env bash
# Prints the disassembly of what a user's binary, built without LTO, executes to allocate and to free: the symbols
# that rustc calls, and what they call directly inside Kmalloc. For reading; ci/fastpath.sh checks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ci/tools.sh objdump
unset RUSTFLAGS
export CARGO_PROFILE_UNWIND_LTO=false
cargo build --quiet --profile unwind -p benches --bin pair
binary=${CARGO_TARGET_DIR:-target}/unwind/pair
objdump --disassemble --demangle --no-show-raw-insn "$binary" | awk '
    /^[0-9a-f]+ <.*>:$/ { show = /__rust_(alloc|dealloc|realloc|alloc_zeroed)>:|__rg_|allocator_global::.*GlobalAlloc/ }
    /^$/ { if (show) print ""; show = 0 }
    show'
