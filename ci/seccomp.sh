#!/usr/bin/env bash
# The tests of the two allocator crates on a kernel that refuses madvise, mincore, mremap, membarrier, prctl, sched_getaffinity,
# sched_yield, and mprotect but for what loading a program and starting a thread need (`minimal-kernel` has the filter).
#
# Left out, by name, are the tests of just these calls: that a purge gives memory back, that areas move without copying,
# and that a thread's processors are counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
excepted=(
    heap::tests::a_heap_that_was_used_and_emptied_is_whole # counts what a purge gave back
    heap::tests::zeros::pages_that_were_purged_need_no_zeroing    # asserts that a purge succeeds
    heap::tests::odd::a_system_that_discards_some_ranges_only_is_found_out # asserts that it discards others
    heap::tests::zeros::a_long_run_of_zeros_is_cleared_where_it_is_dirty_and_nowhere_else # asks what is resident
    heap::tests::zeros::zeros_of_which_little_was_written_are_cleared_there_and_stay_without_memory # so does this
    sys::pagemap::tests::pages_that_were_written_are_told_and_no_others # asserts that it discards, and advises
    heap::tests::growth::areas_grow_by_moving_pages_not_bytes      # counts areas moved by mremap
    heap::tests::pcp::an_area_grows_into_what_threads_keep # and this, near a limit, cannot be copied
    heap::tests::growth::a_vector_that_grows_for_ever_copies_a_bounded_number_of_bytes_and_leaves_no_memory_behind # so does this
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
    heap::tests::returns::a_thread_gives_all_back_and_ends_when_no_thread_of_the_program_has_a_block
    heap::tests::huge::a_chunk_is_made_huge_when_it_is_full_of_what_lives_long_and_not_before
    heap::tests::huge::new_chunks_of_a_sparse_heap_have_small_pages_until_one_of_them_is_dense
    heap::tests::huge::a_tick_tells_that_a_heap_is_sparse_before_it_has_huge_pages
    heap::tests::huge::a_long_run_that_is_not_written_yet_does_not_make_a_heap_sparse
    heap::tests::huge::a_heap_that_becomes_sparse_has_small_pages_from_the_next_look_on
    heap::tests::huge::a_heap_whose_slabs_have_holes_is_sparse
    heap::tests::huge::half_of_a_slab_is_not_worth_a_huge_page
    heap::tests::huge::the_rest_of_a_slab_behind_its_last_object_is_not_touched_and_not_missed
    heap::tests::huge::a_run_that_is_discarded_takes_the_huge_pages_of_both_chunks_that_it_has_a_part_of
    heap::tests::areas::an_area_of_the_same_length_is_the_same_pages_again # shorter, as the rest goes back
    # So do these, of limits: free memory makes room by going back.
    heap::tests::limits::a_block_grows_up_to_the_limit_and_stays_as_it_is_beyond
    heap::tests::limits::a_block_grows_in_place_once_what_is_free_has_gone_back
    heap::tests::limits::what_is_cut_off_an_area_is_gone_or_counted # by mremap, too
    heap::tests::limits::a_soft_limit_below_what_is_resident_gives_back_what_is_free_at_once
    heap::tests::limits::a_system_that_takes_nothing_back_keeps_the_limit
    heap::tests::limits::an_extension_beyond_the_limit_is_no_more_for_what_is_free_elsewhere
    heap::tests::limits::an_extension_beyond_the_limit_leaves_nothing_that_counts
    heap::tests::limits::an_area_grows_in_place_by_less_than_a_page
    heap::tests::limits::an_area_grows_in_place_once_what_has_used_the_reserve_has_gone_back
    heap::tests::limits::what_a_limit_gives_back_is_in_the_figures
    heap::tests::limits::what_nothing_makes_room_for_is_refused_at_once # counts what went back for one that might fit
    heap::tests::limits::beyond_the_soft_limit_free_memory_goes_first_and_a_tick_says_what_is_left
    heap::tests::limits::free_memory_in_pieces_makes_room_for_something_large_even_where_the_reserve_is_used
    heap::tests::huge::huge_pages_are_asked_for_as_the_policy_says
    heap::tests::limits::limits_that_make_no_sense_are_errors_and_change_nothing
    heap::tests::limits::no_kind_of_request_passes_the_limit_and_all_goes_on_once_memory_is_back
    heap::tests::limits::the_program_is_told_once_for_each_tick_that_memory_is_short
    heap::tests::growth::a_block_that_doubles_up_to_a_gibibyte_is_copied_little
    greedy_threads_stay_within_the_limit_and_go_on
    shrinkers_give_memory_back_before_anybody_is_refused
    a_block_that_grows_is_not_refused_for_what_is_free
    the_program_is_told_of_the_soft_limit
    a_callback_may_allocate_and_must_not_panic
    a_vector_that_grows_to_a_gibibyte_needs_no_more # copied, where mremap is refused
    memory_of_a_burst_goes_back_while_its_threads_are_parked
    a_child_of_a_fork_has_a_thread_when_it_needs_one
    without_a_thread_the_work_is_done_by_those_who_free
    a_program_may_do_without_the_thread_and_have_it_back
    what_a_vector_gives_up_goes_back
    watermarks_that_are_set_wake_the_thread
    # These have a filter of their own, which needs prctl.
    no_call_is_made_that_is_not_documented
    without_a_thread_fewer_calls_do
    no_call_is_documented_that_is_not_made
)

# No package is named, so that what `cargo test` has built serves here: those of the allocator are run, no others.
cargo build --example minimal-kernel
cargo build --example plugin # what a test loads
runner=$(mktemp)
trap 'rm -f "$runner"' EXIT
cat >"$runner" <<END
#!/bin/sh
case \$CARGO_PKG_NAME in
allocator-core | allocator-global) exec "$(realpath "$target")/debug/examples/minimal-kernel" "\$@" ;;
esac
END
chmod +x "$runner"
triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${triple}_RUNNER=$runner"
tests=(cargo test --lib --tests)
there=$("${tests[@]}" -- --list 2>&1) || { echo "$there" >&2; exit 1; }
skips=()
for name in "${excepted[@]}"; do
    # A name is a part of one: it must be a part of one test's alone.
    if [ "$(grep -c -- "$name.*: test$" <<<"$there")" != 1 ]; then
        echo "seccomp: $name is not the name of one test" >&2
        exit 1
    fi
    skips+=(--skip "$name")
done
"${tests[@]}" -- "${skips[@]}"
