//! What is asked for as zeros, and what is cleared for it.

use super::odd::Odd;
use super::*;

#[test]
fn pages_that_were_purged_need_no_zeroing() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let big = layout(CHUNK_SIZE, 8);
    let zero_known = || {
        let run = heap.parts.zone.alloc_pages(heap.caller(thread), PageCount::new(64), Order::ZERO, true).unwrap();
        let Owner::Chunk(map) = heap.parts.zone.table.owner(run.ptr.as_ptr() as usize) else { panic!() };
        poison::unpoison(run.ptr, CHUNK_SIZE);
        // SAFETY: ours.
        let zero = unsafe { core::slice::from_raw_parts(run.ptr.as_ptr(), CHUNK_SIZE) }.iter().all(|b| *b == 0);
        assert!(!run.content.is_zeros() || zero, "known to be zero, but is not");
        heap.parts.zone.free_pages(map, run.ptr.as_ptr() as usize, PageCount::new(64)).unwrap();
        run.content.is_zeros()
    };
    assert!(zero_known(), "fresh");
    Block::new(heap, thread, big, 9).unwrap().free(heap, thread);
    assert!(!zero_known(), "used");
    os.plan(Plan::Kind(Call::Discard));
    // SAFETY: our own block.
    assert_eq!(unsafe { heap.reclaim(thread) }, 0);
    assert!(!zero_known(), "the purge was refused");
    os.plan(Plan::Never);
    // SAFETY: our own block.
    assert_eq!(unsafe { heap.reclaim(thread) }, CHUNK_SIZE);
    assert!(zero_known(), "purged");
}

#[test]
fn zeros_of_which_little_was_written_are_cleared_there_and_stay_without_memory() {
    for refused in [false, true] {
        let Setup { os, heap } = setup(false);
        let thread = heap.attach();
        let zeros = layout(CHUNK_SIZE / 2 - 100, 8);
        let pages = zeros.size().div_ceil(4096);
        let resident = |ptr| Unix.resident(ptr, pages * 4096).unwrap() / 4096;
        // SAFETY: the block is this thread's, if it has one.
        let first = unsafe { heap.alloc_zeroed(thread, zeros) }.unwrap();
        for page in (0..pages).step_by(8) {
            // SAFETY: in the block.
            unsafe { first.as_ptr().wrapping_add(page * 4096 + 77).write(1) };
        }
        let written = resident(first);
        let tells = Unix.written(first, pages * 4096, &mut |_, _| ()) > 0;
        // SAFETY: allocated above, with this layout.
        unsafe { heap.free(thread, first, zeros) };
        os.plan(if refused { Plan::Kind(Call::Written) } else { Plan::Never });
        // SAFETY: as above.
        let again = unsafe { heap.alloc_zeroed(thread, zeros) }.unwrap();
        assert_eq!((again, os.calls_of(Call::Written)), (first, 1));
        if tells && os.page_size() == 4096 {
            assert_eq!(resident(again), if refused { pages } else { written });
        }
        // SAFETY: so many bytes were allocated.
        let bytes = unsafe { core::slice::from_raw_parts(again.as_ptr(), zeros.size()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        // SAFETY: allocated above, with this layout.
        unsafe { heap.free(thread, again, zeros) };
        heap.audit(thread).unwrap();
    }
}

#[test]
fn a_long_run_of_zeros_is_so_wherever_it_lies() {
    let Setup { os, heap } = setup(false);
    if FIRST_ARENA_CHUNKS < 4 {
        return; // no run is so long
    }
    let half: Vec<_> =
        (0..2 * FIRST_ARENA_CHUNKS).map(|_| Block::new(heap, None, layout(CHUNK_SIZE / 2, 8), 1).unwrap()).collect();
    os.plan(Plan::From(0));
    // Three halves from the middle of a chunk on.
    let (gone, kept): (Vec<_>, Vec<_>) = half.into_iter().enumerate().partition(|(i, _)| (1..4).contains(i));
    gone.into_iter().for_each(|(_, block)| block.free(heap, None));
    let zeros = layout(CHUNK_SIZE / 2 * 3, 8);
    Block::zeroed(heap, None, zeros).free(heap, None);
    os.plan(Plan::Never);
    kept.into_iter().for_each(|(_, block)| block.free(heap, None));
    // Forty pages that went back to the system, ten that did not, and what was never used.
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    let [first, second] = [40, 10].map(|pages| Block::new(heap, None, layout(pages * PAGE_SIZE, 8), 1).unwrap());
    first.free(heap, None);
    // SAFETY: as above.
    unsafe { heap.reclaim(None) };
    second.free(heap, None);
    for zeros in [zeros, layout(45 * PAGE_SIZE, 8)] {
        Block::zeroed(heap, None, zeros).free(heap, None);
        // What the next ones find.
        Block::new(heap, None, zeros, 1).unwrap().free(heap, None);
    }
}

/// Class of bug: the word by which a system's honesty is told stays in a page that is known to be zero.
#[test]
fn what_is_known_to_be_zero_is_so_after_a_purge_that_was_refused() {
    let Setup { os, heap } = setup(false);
    let liar = heap_on(forever(Odd { lies_below: usize::MAX, ..Odd::plain() }), None);
    os.plan(Plan::Kind(Call::Discard));
    for heap in [heap, liar] {
        let run = Block::zeroed(heap, None, layout(2 * PAGE_SIZE, 8));
        // SAFETY: ours, and nobody needs what is in it.
        assert!(!unsafe { heap.parts.zone.kept.discard(heap.os(), run.ptr, run.layout.size()) });
        run.free(heap, None);
    }
}

/// Class of bug: a table of zeros, most of which is never touched, is cleared and so resident as a whole.
#[test]
fn a_long_run_of_zeros_is_cleared_where_it_is_dirty_and_nowhere_else() {
    let Setup { heap, .. } = setup(false);
    if FIRST_ARENA_CHUNKS < 4 {
        return; // no run is so long
    }
    heap.set_huge_pages(HugePages::Never);
    Block::new(heap, None, layout(40 * PAGE_SIZE, 8), 1).unwrap().free(heap, None);
    let kept = Block::new(heap, None, layout(10 * PAGE_SIZE, 8), 1).unwrap();
    let zeros = layout(2 * CHUNK_SIZE, 8);
    let run = Block::zeroed(heap, None, zeros);
    assert_eq!(run.ptr.as_ptr() as usize, kept.ptr.as_ptr() as usize + 10 * PAGE_SIZE, "behind it");
    // SAFETY: inside the run.
    let halves = [0, CHUNK_SIZE].map(|at| Unix.resident(unsafe { run.ptr.add(at) }, CHUNK_SIZE));
    assert_eq!(halves, [Some(30 * PAGE_SIZE), Some(0)], "what was so before");
    run.free(heap, None);
    let written = Block::new(heap, None, zeros, 1).unwrap();
    assert_eq!(written.ptr.as_ptr() as usize % CHUNK_SIZE, 10 * PAGE_SIZE, "what will be written begins where it can");
    written.free(heap, None);
    kept.free(heap, None);
}

/// Class of bug: a buffer of zeros, little of which is ever written, is cleared and so resident as a whole.
#[test]
fn an_object_of_zeros_that_nobody_has_had_is_not_touched() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let long = layout(MAX_OBJECT, 8);
    let is_untouched = |block: &Block| Unix.resident(block.ptr, MAX_OBJECT).map_or(true, |bytes| bytes == 0);
    let are_zeros = |block: &Block| block.check(MAX_OBJECT);
    if MAX_OBJECT <= heap.os().page_size() {
        return;
    }
    let clean: Vec<_> = (0..8).map(|_| Block::zeroed(heap, thread, long)).collect();
    assert!(clean.iter().all(is_untouched));
    clean.iter().for_each(are_zeros);
    // Freed, and had by others; then one of a slab of which one was had.
    clean.into_iter().for_each(|block| block.free(heap, thread));
    let dirty: Vec<_> = (0..9).map(|_| Block::new(heap, thread, long, 1).unwrap()).collect();
    dirty.into_iter().for_each(|block| block.free(heap, thread));
    // SAFETY: our own block.
    unsafe { heap.reclaim(thread) };
    let one = Block::new(heap, thread, long, 1).unwrap();
    let mixed: Vec<_> = (0..8).map(|_| Block::zeroed(heap, thread, long)).collect();
    mixed.iter().for_each(are_zeros);
    mixed.into_iter().for_each(|block| block.free(heap, thread));
    one.free(heap, thread);
    // By threads without a block, too, and of objects of which a slab has many.
    for size in [100, 8, MAX_OBJECT / 3] {
        let dirty: Vec<_> = (0..600).map(|_| Block::new(heap, None, layout(size, 8), 1).unwrap()).collect();
        dirty.into_iter().for_each(|block| block.free(heap, None));
        let clean: Vec<_> = (0..600).map(|_| Block::zeroed(heap, None, layout(size, 8))).collect();
        clean.iter().for_each(|block| block.check(size));
        heap.validate(thread).unwrap();
        clean.into_iter().for_each(|block| block.free(heap, None));
    }
    heap.validate(thread).unwrap();
}
