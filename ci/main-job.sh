#!/usr/bin/env bash
# The newcomer's program, once over a small tree, and its answer to a path that does not exist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "-- one round over allocator-core"
cargo run --release -- --rounds 1 allocator-core

echo "-- a path that does not exist: one line, exit code 2"
code=0
message=$(cargo run --quiet --release -- /nonexistent/path 2>&1) || code=$?
printf '%s\n' "$message"
if [ "$code" != 2 ] || [ "$(wc -l <<<"$message")" != 1 ]; then
    echo "main-job: exit code $code" >&2
    exit 1
fi
