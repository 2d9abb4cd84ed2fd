#!/usr/bin/env bash
# Memory that comes back: what is resident after a burst, of which little is alive, with the threads that allocated
# parked and nobody calling the allocator; and while the load of a service comes and goes: ci/returns.sh [--quick] [ARGUMENT...]
#
# Each scenario (benches/workloads/src/returns.rs) three times in turn under each allocator, in a process of its own; each day
# (benches/workloads/src/days.rs) once, two minutes long, three allocators at a time. Writes benches/results/returns.md and a
# plot of each day; takes half an hour. --quick: Kmalloc and the system's allocator alone, a quarter of the work, once,
# and nothing is written. Fails if Kmalloc keeps more than it promises.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
allocators=() arguments=(--rounds 3 --results benches/results)
if [ "${1:-}" = --quick ]; then
    shift
    allocators=(kmalloc system) arguments=(--rounds 1 --part 0.25)
fi
built=$(ci/rivals.sh --lean "${allocators[@]}")
mapfile -t specifications <<<"$built"
machine=${specifications[-1]}
unset 'specifications[-1]' RUSTFLAGS
cargo run --quiet --profile compare -p compare -- --returns "${specifications[@]}" --machine "$machine" "${arguments[@]}" "$@"
