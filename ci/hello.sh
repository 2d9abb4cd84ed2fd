#!/usr/bin/env bash
# Peak resident memory of a program that says hello: under Kmalloc and under the system allocator. The smallest of
# twenty runs each. Fails if Kmalloc's is larger by more than 512 KiB. And how long the first allocation of a process
# takes, for which 50 us are promised; no time fails the script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
limit=512

cargo build --quiet --profile unwind -p benches --bin hello-kmalloc --bin hello-system --bin first
smallest() { for _ in {1..20}; do "${CARGO_TARGET_DIR:-target}/unwind/$1" || exit; done | grep -x '[0-9]*' | sort -n | sed -n 1p; }
kmalloc=$(smallest hello-kmalloc)
system=$(smallest hello-system)
echo "hello: peak RSS $kmalloc KiB under Kmalloc, $system KiB under the system allocator: $((kmalloc - system)) KiB more"
first=$(smallest first)
echo "first allocation: $first ns"
[[ $first =~ ^[0-9]+$ && $kmalloc =~ ^[0-9]+$ && $system =~ ^[0-9]+$ ]]
[ $((kmalloc - system)) -le "$limit" ]
