#!/usr/bin/env bash
# Builds one program for each allocator, as their users do: ci/rivals.sh [--lean] [ALLOCATOR...]; all of them without a name.
# For `compare`: prints NAME=VERSION=PATH,PATH... for each, a line each, and what they run on as the last line. The programs of one
# allocator differ in where in a cache line their code lies. --lean: one each, without the rows of real crates, so that little is
# resident of the program itself.
#
# The allocators that are no crates of Rust need a C++ compiler and cmake; installs them where it can.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
ci/tools.sh c++ cmake >&2
unset RUSTFLAGS
programs=$target/compare/programs lean=() shifts=(0 1 2 3)
if [ "${1:-}" = --lean ]; then
    shift
    programs=$target/compare/lean lean=(--no-default-features) shifts=(0)
fi
mkdir -p "$programs"

# name, then the crate whose version is told; the system's is the C library.
allocators=(
    kmalloc:allocator-global
    system:
    mimalloc-v3:mimalloc
    mimalloc-v2:mimalloc
    jemalloc:tikv-jemallocator
    snmalloc:snmalloc-rs
    rpmalloc:rpmalloc
    tcmalloc:tcmalloc-better
    rusty:rusty_alloc-api
)
for allocator in "${allocators[@]}"; do
    name=${allocator%%:*} crate=${allocator#*:} features=()
    if [ "$name" != system ]; then features=(--features "allocators/$name"); fi
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    echo "-- $name" >&2
    paths=
    for shift in "${shifts[@]}"; do
        path=$programs/$name
        if [ "$shift" != 0 ]; then path+=.$shift; fi
        RIVALS_SHIFT=$shift cargo build --quiet --profile compare -p rivals "${lean[@]}" "${features[@]}"
        cp "$target/compare/rivals" "$path"
        # It comes from the disk, as a user's does: of a file that was just written 0.3 MiB more are resident.
        dd of="$path" oflag=nocache conv=notrunc,fdatasync count=0 status=none || echo "   stays in the cache" >&2
        paths+=${paths:+,}$path
    done
    version=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown)
    if [ -n "$crate" ]; then
        version="$crate $(awk -v crate="name = \"$crate\"" '$0 == crate { getline; gsub(/"/, ""); print $3 }' Cargo.lock)"
    fi
    if [ "$name" = kmalloc ]; then version+=", revision $(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"; fi
    if [ "$name" = rpmalloc ]; then version+=" (rpmalloc 1.4)"; fi
    echo "$name=$version=$paths"
done

echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors, Linux $(uname -r), \
$(rustc --version | cut -d ' ' -f 1-2), huge pages: $(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled)"
