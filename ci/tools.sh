#!/usr/bin/env bash
# Installs what the other scripts need and the machine lacks: ci/tools.sh NAME...
# Names: valgrind, objdump, symbolizer, llvm (the version that rustc has), c++ (any), g++, cmake, aarch64 (a linker and an emulator),
# iai-callgrind-runner, cargo-fuzz; and nightly, which is only looked for. Quick when all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# $1: the program that shows that the package is there; the rest: packages.
debian() {
    local program=$1
    shift
    command -v "$program" >/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "tools: $program is missing; install: $*" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >/dev/null
    command -v "$program" >/dev/null
}

# Builds a program from crates.io. The flags of whoever calls are not meant for it.
cargo_install() {
    echo "tools: installing $*"
    env -u RUSTFLAGS -u CARGO_TARGET_DIR cargo install --quiet --locked "$@"
}

for name in "$@"; do
    case $name in
    valgrind) debian valgrind valgrind libc6-dbg ;;
    objdump) debian objdump binutils ;;
    symbolizer) command -v llvm-symbolizer >/dev/null || debian llvm-symbolizer llvm ;;
    llvm)
        major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
        debian "llvm-cov-$major" "llvm-$major"
        ;;
    c++) command -v clang++ >/dev/null || debian c++ g++ ;;
    g++) debian g++ g++ ;;
    cmake) debian cmake cmake make ;;
    aarch64)
        debian aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
        debian qemu-aarch64 qemu-user
        ;;
    nightly)
        if ! rustup run nightly rustc --version >/dev/null 2>&1; then
            echo "tools: a nightly toolchain is needed: rustup toolchain install nightly" >&2
            exit 1
        fi
        ;;
    iai-callgrind-runner)
        # The runner and the crate have to be of one version.
        version=$(awk '/^name = "iai-callgrind"$/ { getline; gsub(/[^0-9.]/, ""); print }' Cargo.lock)
        installed=$(cargo install --list)
        grep -qx "iai-callgrind-runner v$version:" <<<"$installed" ||
            cargo_install iai-callgrind-runner --version "=$version"
        ;;
    cargo-fuzz) command -v cargo-fuzz >/dev/null || cargo_install cargo-fuzz ;;
    *)
        echo "tools: unknown name: $name" >&2
        exit 2
        ;;
    esac
done
