#!/usr/bin/env bash
# The tests of the two allocator crates on a kernel that refuses madvise, mremap, membarrier, prctl, sched_getaffinity,
# sched_yield, and mprotect but for what loading a program and starting a thread need (`minimal-kernel` has the filter).
#
# Left out, by name, are the tests of just these calls: that a purge gives memory back, that areas move without copying,
# and that a thread's processors are counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
excepted=(
    heap::tests::a_heap_that_was_used_and_emptied_is_whole # counts what a purge gave back
    heap::tests::pages_that_were_purged_need_no_zeroing    # asserts that a purge succeeds
    heap::tests::areas_grow_by_moving_pages_not_bytes      # counts areas moved by mremap
    heap::tests::a_vector_that_grows_for_ever_copies_a_bounded_number_of_bytes_and_leaves_no_memory_behind # so does this
    heap::tests::the_first_allocation_makes_at_most_six_system_calls # counts calls, and a refused one leads to others
    sys::unix::tests::a_thread_bound_to_one_processor_has_one # asks for what is refused
    reclaim_gives_back_what_nobody_uses                    # measures resident memory after a purge
    zoneinfo_and_vmstat_have_the_fields_of_the_kernel      # counts what a purge gave back
    # All of these wait for memory to go back, or count that it did.
    heap::tests::returns::what_is_free_for_a_whole_tick_goes_back_down_to_the_low_watermark
    heap::tests::returns::a_tick_that_the_system_refuses_loses_nothing
    heap::tests::returns::an_arena_without_pages_in_use_is_unmapped
    heap::tests::returns::a_slab_at_rest_loses_the_memory_behind_its_holes_and_no_object
    heap::tests::returns::every_sparse_slab_rests_at_the_next_look
    heap::tests::returns::a_thread_ticks_sleeps_and_wakes_until_it_is_not_wanted
    memory_of_a_burst_goes_back_while_its_threads_are_parked
    a_child_of_a_fork_has_a_thread_when_it_needs_one
    without_a_thread_the_work_is_done_by_those_who_free
)

cargo build -p stress --example minimal-kernel
cargo build -p allocator-global --example plugin # what a test loads
launcher=$(realpath "$target")/debug/examples/minimal-kernel
triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${triple}_RUNNER=$launcher"
skips=()
for name in "${excepted[@]}"; do skips+=(--skip "$name"); done
cargo test -p allocator-core -p allocator-global --lib --tests -- "${skips[@]}"
