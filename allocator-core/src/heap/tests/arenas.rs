//! Arenas that come and go.

use super::*;

#[test]
fn empty_arenas_are_unmapped_and_the_first_stays() {
    for with_epoch in [false, true] {
        let Setup { os, heap } = setup(with_epoch);
        let thread = heap.attach();
        let blocks: Vec<_> = (0..100).map(|i| Block::new(heap, thread, layout(CHUNK_SIZE, 8), i).unwrap()).collect();
        let full = heap.stats(thread);
        assert!(full.arenas > 1 && full.reserved >= 100 * CHUNK_SIZE);
        let mapped = os.mapped();
        blocks.into_iter().for_each(|b| b.free(heap, thread));
        for _ in 0..4 {
            // SAFETY: our own block.
            unsafe { heap.reclaim(thread) };
        }
        let after = heap.stats(thread);
        assert_eq!(after.arenas, 1);
        assert!(mapped - os.mapped() >= full.reserved - after.reserved);
        heap.audit(thread).unwrap();
        assert_eq!(workload(heap, thread), 0);
    }
}

/// Use after unmap: a thread that has freed the last page of an arena was still setting hints in it.
#[test]
fn an_arena_is_not_emptied_out_while_somebody_is_leaving_it() {
    let Setup { heap, .. } = setup(true);
    let thread = heap.attach();
    let blocks: Vec<_> = (0..100).map(|i| Block::new(heap, thread, layout(CHUNK_SIZE, 8), i).unwrap()).collect();
    blocks.into_iter().for_each(|b| b.free(heap, thread));
    let mut checked = 0;
    heap.parts.zone.each_arena(heap.caller(thread), &mut |arena| {
        let leaving = arena.leaving();
        assert!(!arena.empty_out(&heap.parts.zone.table));
        drop(leaving);
        arena.validate().unwrap();
        assert!(arena.empty_out(&heap.parts.zone.table));
        arena.refill(&heap.parts.zone.table);
        checked += 1;
        true
    });
    assert!(checked > 1);
    heap.validate(thread).unwrap();
}

#[test]
fn an_arena_that_the_system_does_not_take_back_is_used_again() {
    for with_epoch in [false, true] {
        let Setup { os, heap } = setup(with_epoch);
        let thread = heap.attach();
        let fill =
            || -> Vec<_> { (0..100).map(|i| Block::new(heap, thread, layout(CHUNK_SIZE, 8), i).unwrap()).collect() };
        fill().into_iter().for_each(|b| b.free(heap, thread));
        let arenas = heap.stats(thread).arenas;
        os.plan(Plan::Kind(Call::Unmap));
        for _ in 0..4 {
            // SAFETY: our own block.
            unsafe { heap.reclaim(thread) };
        }
        assert_eq!(heap.stats(thread).arenas, arenas);
        heap.audit(thread).unwrap();
        let reserves = os.calls_of(Call::Reserve);
        let blocks = fill();
        assert_eq!(os.calls_of(Call::Reserve), reserves, "no new arena was needed");
        blocks.into_iter().for_each(|b| b.free(heap, thread));
        os.plan(Plan::Never);
        end(heap);
    }
}

#[test]
fn arenas_are_walked_while_others_unmap_them() {
    for with_epoch in [false, true] {
        let Setup { heap, .. } = setup(with_epoch);
        std::thread::scope(|scope| {
            for t in 0..3u8 {
                scope.spawn(move || {
                    let thread = heap.attach();
                    for round in 0..if cfg!(feature = "small-arenas") { 300 } else { 60 } {
                        let mut blocks = Vec::new();
                        for i in 0..40 {
                            blocks.extend(Block::new(heap, thread, layout(CHUNK_SIZE / 2 + i * 1000, 8), t + 1));
                        }
                        blocks.drain(..).for_each(|b| {
                            // Only the edges: the point is the walking.
                            // SAFETY: live, and given up here.
                            unsafe { heap.free(thread, b.ptr, b.layout) };
                        });
                        if round % 3 == t as usize % 3 {
                            // SAFETY: our own block.
                            unsafe { heap.reclaim(thread) };
                        }
                        let _ = heap.stats(thread);
                    }
                    // SAFETY: our own block, not used again.
                    unsafe { heap.detach(thread.unwrap()) };
                });
            }
        });
        heap.validate(None).unwrap();
        // SAFETY: no block is claimed.
        unsafe { heap.reclaim(None) };
        heap.audit(None).unwrap();
    }
}

#[test]
fn address_space_that_was_not_taken_back_is_offered_again() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let aligned = layout(VMALLOC_THRESHOLD + 1, 32 << 20);
    Block::new(heap, thread, aligned, 1).unwrap().free(heap, thread);
    // Leaves of the address table stay, wherever the system puts the areas.
    let mapped = || os.mapped() - heap.stats(thread).own;
    let before = mapped();
    for (a, b) in (1..8).flat_map(|a| (a + 1..9).map(move |b| (a, b))) {
        os.plan(Plan::Pair(a, b));
        if let Some(block) = Block::new(heap, thread, aligned, 1) {
            block.free(heap, thread);
        }
        os.plan(Plan::Never);
        // SAFETY: our own block.
        unsafe { heap.reclaim(thread) };
        assert_eq!(mapped(), before, "calls {a} and {b} refused");
    }
    assert_eq!(heap.stats(thread).kept, 0);
}

#[test]
fn an_arena_is_not_unmapped_by_a_thread_that_cannot_wait_for_others() {
    let Setup { heap, .. } = setup(true);
    let blocks: Vec<_> = (0..100).map(|i| Block::new(heap, None, layout(CHUNK_SIZE, 8), i).unwrap()).collect();
    blocks.into_iter().for_each(|b| b.free(heap, None));
    let arenas = heap.stats(None).arenas;
    // SAFETY: no block is claimed.
    unsafe { heap.reclaim(None) };
    assert!(arenas > 1 && heap.stats(None).arenas == arenas);
    heap.audit(None).unwrap();
    let thread = heap.attach();
    // SAFETY: our own block.
    unsafe { heap.reclaim(thread) };
    assert_eq!(heap.stats(thread).arenas, 1);
}
