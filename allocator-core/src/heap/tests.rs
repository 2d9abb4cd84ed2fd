//! The heap as a whole, on a system that refuses what it is told to.

extern crate std;
mod areas;
mod huge;
mod limits;
mod pcp;
mod returns;
mod slabs;
mod untyped;

use super::*;
use crate::config::{
    ADDRESS_BITS, CHUNK_SIZE, FIRST_ARENA_CHUNKS, HUGE_FROM_CHUNK, MAX_OBJECT, ROOMY_PAGES, SMALL_CHUNKS,
    VMALLOC_THRESHOLD,
};
use crate::huge::HugePages;
use crate::page::{ChunkMap, Tag};
use crate::reclaim::Epoch;
use crate::sys::{Call, Discard, FaultyOs, Plan, Unix};
use crate::units::Order;
use std::boxed::Box;
use std::vec::Vec;
use std::{format, vec};

struct Setup {
    os: &'static FaultyOs<Unix>,
    heap: &'static Heap,
}

/// A heap of its own. Heaps live for ever, as their type demands.
fn setup(with_epoch: bool) -> Setup {
    let os = forever(FaultyOs::new(Unix));
    let scheme = with_epoch.then(|| forever(Epoch::beside()) as &dyn Reclaim);
    Setup { os, heap: heap_on(os, scheme) }
}

/// A heap of its own.
fn heap_on(os: &'static dyn Os, scheme: Option<&'static dyn Reclaim>) -> &'static Heap {
    // SAFETY: the parts are this heap's.
    forever(unsafe { Heap::new(os, scheme, forever(Parts::new())) })
}

/// A value that stays, and stays reachable: a leak checker can tell it from one that was lost.
fn forever<T: Sync>(value: T) -> &'static T {
    static STAYS: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    let value: &'static T = Box::leak(Box::new(value));
    STAYS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(core::ptr::from_ref(value) as usize);
    value
}

fn free_all(heap: &Heap, all: Vec<(NonNull<u8>, Layout)>) {
    for (ptr, layout) in all {
        // SAFETY: live, of this layout.
        unsafe { heap.free(None, ptr, layout) };
    }
}

/// The end of a heap, all blocks of which are free: it lives on, but not its memory, of which many such have too much.
fn end(heap: &Heap) {
    heap.validate(None).unwrap();
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
}

/// Whether the system says that it has huge pages of a chunk's length.
fn gets_huge_pages() -> bool {
    let Some(memory) = Unix.map(2 * CHUNK_SIZE) else { return false };
    // SAFETY: the whole mapping.
    let gets = unsafe { Unix.advise_huge(memory, 2 * CHUNK_SIZE, true) };
    // SAFETY: as above.
    assert!(unsafe { Unix.unmap(memory, 2 * CHUNK_SIZE) });
    assert!(
        gets || std::env::var_os("KMALLOC_TEST_HUGE").is_none(),
        "there are no huge pages, which is most of this test"
    );
    gets
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// One block of the shadow: its bytes are all `mark`.
struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
    mark: u8,
}

impl Block {
    fn new(heap: &'static Heap, thread: Option<&Thread>, layout: Layout, mark: u8) -> Option<Self> {
        // SAFETY: the block is the calling thread's.
        let ptr = unsafe { heap.alloc(thread, layout) }.ok()?;
        assert_eq!(ptr.as_ptr() as usize % layout.align(), 0);
        // SAFETY: just allocated.
        unsafe { ptr.as_ptr().write_bytes(mark, layout.size()) };
        Some(Self { ptr, layout, mark })
    }

    /// A block of zeros, as it was allocated.
    fn zeroed(heap: &'static Heap, thread: Option<&Thread>, layout: Layout) -> Self {
        // SAFETY: the block is the calling thread's.
        Self { ptr: unsafe { heap.alloc_zeroed(thread, layout) }.unwrap(), layout, mark: 0 }
    }

    fn check(&self, len: usize) {
        // SAFETY: live, and at least `len` bytes long.
        let bytes = unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), len) };
        // Each is like the one before it: a comparison of memory, which sanitizers see as one access.
        let same = len == 0 || bytes[0] == self.mark && bytes[1..] == bytes[..len - 1];
        assert!(same, "content changed at {:p}", self.ptr);
    }

    fn resize(&mut self, heap: &'static Heap, thread: Option<&Thread>, size: usize) -> bool {
        // SAFETY: live.
        let Ok(ptr) = (unsafe { heap.realloc(thread, self.ptr, self.layout, size) }) else {
            self.check(self.layout.size());
            return false;
        };
        let kept = self.layout.size().min(size);
        (self.ptr, self.layout) = (ptr, layout(size, self.layout.align()));
        self.check(kept);
        // SAFETY: live.
        unsafe { ptr.as_ptr().write_bytes(self.mark, size) };
        true
    }

    fn free(self, heap: &'static Heap, thread: Option<&Thread>) {
        self.check(self.layout.size());
        // SAFETY: live, and given up here.
        unsafe { heap.free(thread, self.ptr, self.layout) };
    }
}

const MIXTURE: [(usize, usize); 14] = [
    (1, 1),
    (48, 8),
    (100, 64),
    (1000, 8),
    (5000, 4096),
    (32 << 10, 1),
    (33 << 10, 8),
    (100 << 10, 64 << 10),
    (1 << 20, 8),
    (CHUNK_SIZE, CHUNK_SIZE),
    (3 << 20, 8),
    (VMALLOC_THRESHOLD, 8),
    (VMALLOC_THRESHOLD + 1, 8),
    (64, 16 << 20),
];

/// Allocates every size of the mixture, resizes some, frees all. Returns how many requests were refused.
fn workload(heap: &'static Heap, thread: Option<&Thread>) -> usize {
    rounds(heap, thread, 3)
}

fn rounds(heap: &'static Heap, thread: Option<&Thread>, rounds: u8) -> usize {
    let mut blocks = Vec::new();
    let mut refused = 0;
    for round in 0..rounds {
        for (i, (size, align)) in MIXTURE.into_iter().enumerate() {
            match Block::new(heap, thread, layout(size, align), round * 16 + i as u8 + 1) {
                Some(block) => blocks.push(block),
                None => refused += 1,
            }
        }
    }
    for (i, block) in blocks.iter_mut().enumerate() {
        let size = block.layout.size();
        let to = [size * 2, size / 2 + 1, size + 1, size + size / 4][i % 4];
        refused += usize::from(!block.resize(heap, thread, to));
    }
    while let Some(block) = blocks.pop() {
        block.free(heap, thread);
        if blocks.len() > 2 {
            blocks.swap_remove(blocks.len() / 2).free(heap, thread);
        }
    }
    refused
}

#[test]
fn a_heap_that_was_used_and_emptied_is_whole() {
    for with_epoch in [false, true] {
        let Setup { os, heap } = setup(with_epoch);
        let thread = heap.attach().unwrap();
        assert_eq!(workload(heap, Some(thread)), 0);
        heap.validate(Some(thread)).unwrap();
        assert!(heap.audit(Some(thread)).is_err(), "sheaves and kept slabs are not whole");
        // SAFETY: our own block.
        assert!(unsafe { heap.reclaim(Some(thread)) } > 0);
        heap.audit(Some(thread)).unwrap();
        let stats = heap.stats(Some(thread));
        assert_eq!((stats.threads, stats.kept, stats.free_dirty_pages), (1, 0, 0));
        // SAFETY: our own block, not used again.
        unsafe { heap.detach(thread) };
        assert_eq!(heap.stats(None).threads, 0);
        assert!(os.calls() > 0);
    }
}

#[test]
fn a_thread_without_a_block_is_served() {
    let Setup { heap, .. } = setup(true);
    assert_eq!(workload(heap, None), 0);
    heap.validate(None).unwrap();
    // SAFETY: no block is claimed.
    unsafe { heap.reclaim(None) };
    heap.audit(None).unwrap();
}

/// Every byte that the system gave and did not get back is an arena's, an area's, kept, or the heap's own.
fn assert_accounted(Setup { os, heap }: &Setup, thread: Option<&Thread>, what: &str) {
    let stats = heap.stats(thread);
    assert_eq!(os.mapped(), stats.reserved + stats.area_bytes + stats.kept + stats.own, "{what}: {stats:?}");
}

#[test]
fn a_heap_whose_memory_may_not_change_its_access_serves_everything() {
    for with_epoch in [false, true] {
        let setup = setup(with_epoch);
        let Setup { os, heap } = setup;
        os.plan(Plan::Kind(Call::Commit));
        let thread = heap.attach();
        for _ in 0..3 {
            assert_eq!(workload(heap, thread), 0);
            heap.validate(thread).unwrap();
            // SAFETY: our own block.
            unsafe { heap.reclaim(thread) };
            heap.audit(thread).unwrap();
            assert_accounted(&setup, thread, "no commit");
        }
        assert!(os.refused() > 0);
    }
}

#[test]
fn every_call_of_a_workload_may_fail() {
    let calls = {
        let Setup { os, heap } = setup(true);
        let thread = heap.attach();
        rounds(heap, thread, 1);
        // SAFETY: our own block.
        unsafe { heap.reclaim(thread) };
        os.calls()
    };
    let plans = (1..=calls).map(Plan::Nth).chain((1..=calls).step_by(3).map(Plan::From)).chain((1..=5).map(Plan::Each));
    for plan in plans.chain(Call::ALL.map(Plan::Kind)) {
        let setup = setup(true);
        let Setup { os, heap } = setup;
        os.plan(plan);
        let thread = heap.attach();
        rounds(heap, thread, 1);
        heap.validate(thread).unwrap_or_else(|e| panic!("{plan:?}: {e}"));
        os.plan(Plan::Never);
        // SAFETY: our own block, if any.
        unsafe { heap.reclaim(thread) };
        heap.audit(thread).unwrap_or_else(|e| panic!("{plan:?}: {e}"));
        let thread = thread.or_else(|| heap.attach());
        assert!(thread.is_some(), "{plan:?}");
        assert_eq!(rounds(heap, thread, 1), 0, "{plan:?}: full service afterwards");
        // SAFETY: our own block, if any.
        unsafe { heap.reclaim(thread) };
        assert_accounted(&setup, thread, &format!("{plan:?}"));
    }
}

#[test]
fn a_leaf_of_the_table_that_is_refused_costs_a_request_and_nothing_else() {
    for size in [48, VMALLOC_THRESHOLD + 1] {
        for nth in 1.. {
            let setup = setup(false);
            let Setup { os, heap } = setup;
            // The one that is no mapping is for somewhere else.
            let far = NonNull::new((1usize << (ADDRESS_BITS - 1)) as *mut u8).unwrap();
            assert!(heap.parts.zone.table.prepare(os, &heap.parts.zone.kept, far, 1));
            os.plan(Plan::Nth(nth));
            let served = Block::new(heap, None, layout(size, 8), 1).map(|block| block.free(heap, None)).is_some();
            let refused = os.refused() > 0;
            assert!(served || refused);
            os.plan(Plan::Never);
            // SAFETY: no block of a thread is meant.
            unsafe { heap.reclaim(None) };
            heap.audit(None).unwrap_or_else(|e| panic!("{size}, {nth}: {e}"));
            assert_accounted(&setup, None, &format!("{size}, {nth}"));
            if !refused {
                break;
            }
        }
    }
}

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
fn a_run_grows_into_its_neighbour_and_gives_its_tail_back() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let mut run = Block::new(heap, thread, layout(2 * PAGE_SIZE, 8), 7).unwrap();
    let at = run.ptr;
    for pages in [3, 10, 30, 64, 40, 5, 2, 60] {
        assert!(run.resize(heap, thread, pages * PAGE_SIZE - 1));
        assert_eq!(run.ptr, at, "{pages} pages");
        heap.validate(thread).unwrap();
    }
    let next = Block::new(heap, thread, layout(4 * PAGE_SIZE, 8), 8).unwrap();
    assert_eq!(next.ptr.as_ptr() as usize, at.as_ptr() as usize + 60 * PAGE_SIZE);
    assert!(run.resize(heap, thread, 61 * PAGE_SIZE));
    assert_ne!(run.ptr, at, "the pages behind it are taken");
    run.free(heap, thread);
    next.free(heap, thread);
}

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

#[test]
fn pages_of_the_third_slab_of_a_class_are_faulted_in_together() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let objects = PAGE_SIZE / 1024;
    let mut blocks = Vec::new();
    for slabs in 1..6 {
        blocks.extend((0..objects).map(|_| Block::new(heap, thread, layout(1024, 8), 1).unwrap()));
        let populated = os.calls_of(Call::Populate);
        assert!(populated <= slabs, "{populated} times for {slabs} slabs");
        assert_eq!(populated > 0, slabs > 2, "{slabs} slabs");
    }
    // Of an object that is longer than a page of the system little may be written.
    let populated = os.calls_of(Call::Populate);
    let long = 2 * os.page_size();
    if long <= MAX_OBJECT {
        blocks.extend((0..8 * PAGE_SIZE / long).map(|_| Block::new(heap, thread, layout(long, 8), 1).unwrap()));
    }
    assert_eq!(os.calls_of(Call::Populate), populated);
    // Refusals cost time and nothing else.
    os.plan(Plan::Kind(Call::Populate));
    blocks.extend((0..4 * objects).map(|_| Block::new(heap, thread, layout(1024, 8), 1).unwrap()));
    assert!(os.refused() > 0);
    blocks.into_iter().for_each(|block| block.free(heap, thread));
}

/// Makes a block longer. How many bytes were copied for it.
fn grow(os: &FaultyOs<Unix>, heap: &'static Heap, thread: Option<&Thread>, block: &mut Block, size: usize) -> usize {
    let (was, had, moved) = (block.ptr, block.layout.size(), os.calls_of(Call::Relocate));
    assert!(block.resize(heap, thread, size));
    if block.ptr != was && os.calls_of(Call::Relocate) == moved {
        had
    } else {
        0
    }
}

#[test]
fn a_vector_that_grows_for_ever_copies_a_bounded_number_of_bytes_and_leaves_no_memory_behind() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let mut vector = Block::new(heap, thread, layout(8, 8), 3).unwrap();
    let (mut size, mut copied) = (8, 0);
    while size < 8 * VMALLOC_THRESHOLD {
        copied += grow(os, heap, thread, &mut vector, 2 * size);
        size *= 2;
    }
    assert!((MAX_OBJECT..=3 * VMALLOC_THRESHOLD).contains(&copied), "{copied} bytes copied");
    let stats = heap.stats(thread);
    assert!(stats.free_dirty_pages * PAGE_SIZE < VMALLOC_THRESHOLD, "{stats:?}");
    vector.free(heap, thread);
}

/// Class of bug: buffers that grow by little, side by side, are copied each time.
#[test]
fn buffers_that_grow_by_a_page_in_turn_are_copied_a_few_times() {
    let Setup { os, heap } = setup(false);
    let (begin, long) = (2 * PAGE_SIZE, 3 * CHUNK_SIZE / 2);
    let mut buffers: Vec<_> = (0..8).map(|mark| Block::new(heap, None, layout(begin, 8), mark).unwrap()).collect();
    let mut copied = 0;
    for size in (begin..long).step_by(PAGE_SIZE) {
        for buffer in &mut buffers {
            copied += grow(os, heap, None, buffer, size + PAGE_SIZE);
        }
    }
    assert!((1..=5 * 8 * long).contains(&copied), "{copied} bytes copied");
    assert!(heap.stats(None).free_dirty_pages * PAGE_SIZE <= 8 * long);
    buffers.into_iter().for_each(|buffer| buffer.free(heap, None));
    end(heap);
}

/// Class of bug: room for what may grow again, where nothing does.
#[test]
fn buffers_that_grow_once_leave_a_quarter_free_between_them_at_most() {
    if FIRST_ARENA_CHUNKS < 12 {
        return; // nothing lies beside a long one
    }
    for pages in [8, 32, 64] {
        let Setup { heap, .. } = setup(false);
        let size = pages * PAGE_SIZE;
        let mut buffers: Vec<_> = (0..32).map(|mark| Block::new(heap, None, layout(size, 8), mark).unwrap()).collect();
        buffers.iter_mut().for_each(|buffer| assert!(buffer.resize(heap, None, size + 1)));
        let places = buffers.iter().map(|buffer| buffer.ptr.as_ptr() as usize);
        let span = places.clone().max().unwrap() - places.min().unwrap();
        let each = (pages + 1) + (pages + 1usize).div_ceil(4);
        assert!(span <= 32 * each * PAGE_SIZE + size, "{span} bytes for buffers of {pages} pages");
        buffers.into_iter().for_each(|buffer| buffer.free(heap, None));
        end(heap);
    }
}

#[test]
fn areas_grow_by_moving_pages_not_bytes() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let mut area = Block::new(heap, thread, layout(2 * VMALLOC_THRESHOLD, 8), 3).unwrap();
    // Something behind it, so that it must move at times.
    let _wall = os.map(PAGE_SIZE);
    for factor in 3..9 {
        assert!(area.resize(heap, thread, factor * VMALLOC_THRESHOLD + factor));
    }
    let calls = os.calls_of(Call::Resize) + os.calls_of(Call::Relocate);
    assert!(calls > 0 && os.calls_of(Call::Map) < 10, "no second area was mapped to copy into");
    assert!(area.resize(heap, thread, VMALLOC_THRESHOLD + 1));
    let stats = heap.stats(thread);
    assert!(stats.area_bytes < VMALLOC_THRESHOLD * 5 / 4, "{stats:?}");
    area.free(heap, thread);
    assert_eq!(heap.stats(thread).areas, 0);
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
fn what_nobody_can_hold_is_refused() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    for (size, align) in [(isize::MAX as usize, 1), (1 << 60, 8), (1, 1 << 62), (1 << 46, 1 << 46)] {
        let Ok(layout) = Layout::from_size_align(size, align) else { continue };
        // SAFETY: our own block.
        assert!(unsafe { heap.alloc(thread, layout) }.is_err());
        // SAFETY: our own block.
        assert!(unsafe { heap.alloc_zeroed(thread, layout) }.is_err());
    }
    assert_eq!(workload(heap, thread), 0);
}

/// True if nothing has the page: a run can be claimed there.
fn is_free(heap: &'static Heap, map: &ChunkMap, page: usize) -> bool {
    let address = map.base() as usize + page * PAGE_SIZE;
    let (before, one) = (address - PAGE_SIZE, PageCount::new(1));
    let free = heap.parts.zone.extend_pages(heap.caller(None), map, before, one, one);
    if free {
        heap.parts.zone.free_pages(map, address, one).unwrap();
    }
    free
}

#[test]
fn validate_finds_what_is_wrong() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let run = Block::new(heap, thread, layout(4 * PAGE_SIZE, 8), 1).unwrap();
    let object = Block::new(heap, thread, layout(64, 8), 1).unwrap();
    heap.validate(thread).unwrap();
    let Owner::Chunk(map) = heap.parts.zone.table.owner(run.ptr.as_ptr() as usize) else { panic!() };
    let page = map.page_of(run.ptr.as_ptr() as usize);
    for (at, wrong) in [(page, Tag::NONE), (page, Tag::run(PageCount::new(5))), (page + 1, Tag::run(PageCount::new(1)))]
    {
        let right = map.tag(at);
        map.set_tag(at, wrong);
        assert!(heap.validate(thread).is_err(), "{wrong:?}");
        map.set_tag(at, right);
    }
    let Owner::Chunk(map) = heap.parts.zone.table.owner(object.ptr.as_ptr() as usize) else { panic!() };
    let free = (0..64).rev().find(|p| map.tag(*p) == Tag::NONE && is_free(heap, map, *p)).unwrap();
    map.set_tag(free, Tag::slab(0, 0, 0));
    assert!(heap.validate(thread).is_err(), "a free page with a tag");
    map.set_tag(free, Tag::NONE);
    // An object in a sheaf that is free in its slab as well.
    let (class, shard) = (SizeClass::of(object.layout).unwrap(), thread.unwrap().shard());
    heap.parts.caches.flush(&heap.parts.zone, heap.caller(thread), class, &mut [object.ptr.as_ptr()]).unwrap();
    // SAFETY: our own block; the object is put where it must not be, and nobody uses it.
    assert!(unsafe { thread.unwrap().sheaves().of(class).push(object.ptr) });
    assert!(heap.validate(thread).is_err(), "free twice, shard {shard}");
}

/// Class of bug: an object that is looked for only where the one before it was.
#[test]
fn a_batch_goes_home_in_any_order_and_what_is_no_object_is_found_anywhere_in_it() {
    let Setup { heap, .. } = setup(false);
    let class = SizeClass::of(layout(12_000, 1)).unwrap();
    let caller = heap.caller(None);
    let flush = |batch: &[*mut u8]| heap.parts.caches.flush(&heap.parts.zone, caller, class, &mut batch.to_vec());
    let is_out = |object: &*mut u8| heap.parts.caches.check_out(&heap.parts.zone, caller, class, *object).is_ok();
    let refill = |shard: usize| {
        let mut out = vec![null_mut(); class.slab_objects()];
        assert_eq!(heap.parts.caches.refill(&heap.parts.zone, caller, class, shard, &mut out).unwrap(), out.len());
        out.reverse(); // now the lowest one is the first
        out
    };
    let all = || [refill(0), refill(3), refill(3), refill(0)];
    let out = || heap.parts.caches.usage(caller, class).out;
    let other = Block::new(heap, None, layout(48, 8), 1).unwrap();
    // A batch with something else in one place, of which slabs and pointer are told.
    let with = |place: usize, at: &dyn Fn(&[Vec<*mut u8>; 4]) -> *mut u8, misuse: Misuse| {
        let slabs = all();
        let objects = slabs.concat();
        let mut batch = objects.clone();
        batch[place] = at(&slabs);
        let found = flush(&batch).unwrap_err();
        assert_eq!((found.at, found.misuse), (batch[place], misuse), "at {place}");
        // Some of the others were taken.
        assert!(is_out(&objects[place]));
        flush(&objects.into_iter().filter(is_out).collect::<Vec<_>>()).unwrap();
        assert_eq!(out(), 0);
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
        heap.validate(None).unwrap();
    };
    let objects = all().concat();
    assert!(class.slab_pages() > 1 && objects.len() % 7 != 0);
    let shuffled: Vec<_> = (0..objects.len()).map(|i| objects[i * 7 % objects.len()]).collect();
    flush(&[]).unwrap();
    flush(&shuffled).unwrap();
    assert_eq!(out(), 0);

    let left_over = class.slab_objects() * class.size(); // what is left of a slab
    for place in 0..objects.len() {
        with(place, &|_| 8 as *mut u8, Misuse::Foreign);
        with(place, &|_| usize::MAX as *mut u8, Misuse::Foreign);
        with(place, &|_| other.ptr.as_ptr(), Misuse::WrongLayout);
        // Where an object would be in its chunk.
        with(place, &|slabs| slabs[0][0].wrapping_byte_add(1 << 40), Misuse::Foreign);
        for (slab, offset) in [(0, 3 * class.size() + 8), (2, PAGE_SIZE - 1), (1, left_over)] {
            with(place, &|slabs| slabs[slab][0].wrapping_add(offset), Misuse::NotAStart);
        }
    }
    other.free(heap, None);
    heap.validate(None).unwrap();

    let slab = refill(0);
    let found = flush(&[slab[0], slab[2], slab[1], slab[2]]).unwrap_err();
    assert_eq!((found.at, found.misuse), (slab[2], Misuse::DoubleFree));
}

/// Class of bug: orders that are longer than the words they are counted in.
#[test]
fn blocks_are_counted_up_to_the_longest_order_that_is_asked_for() {
    let Setup { heap, .. } = setup(false);
    Block::new(heap, None, layout(100 * PAGE_SIZE, 8), 1).unwrap().free(heap, None);
    let free = heap.stats(None).free_pages;
    for orders in [1, 6, 7, 13, 14, 20] {
        let mut blocks = vec![0; orders];
        heap.count_blocks(None, &mut blocks);
        let pages: usize = blocks.iter().enumerate().map(|(order, n)| n << order).sum();
        // Of the last order they are as long or longer.
        assert!(pages <= free && (orders < 13 || pages == free), "{blocks:?}, of {free}");
    }
}

#[test]
fn what_the_caches_can_spare_is_used_before_a_refusal() {
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    // Every page is in a slab, and then every object is free.
    let mut blocks: Vec<_> = (0..10).map_while(|_| Block::new(heap, thread, layout(3000, 8), 1)).collect();
    os.plan(Plan::From(1));
    blocks.extend(core::iter::from_fn(|| Block::new(heap, thread, layout(3000, 8), 1)));
    assert_eq!(heap.stats(thread).free_pages, 0);
    let run = layout(2 * PAGE_SIZE, 8);
    assert!(Block::new(heap, thread, run, 2).is_none());
    blocks.drain(..30).for_each(|b| b.free(heap, thread));
    let one = Block::new(heap, thread, layout(PAGE_SIZE + 1, 1), 2).expect("slabs of freed objects");
    one.free(heap, thread);
    blocks.into_iter().for_each(|b| b.free(heap, thread));
}

/// Null while memory was free: objects go home to the shard that they came from, and only the own one was asked.
#[test]
fn objects_that_lie_in_another_shard_are_used_before_a_refusal() {
    // Of the longer ones, zeros are taken one by one.
    for object in [layout(64, 8), layout(MAX_OBJECT / 2, 8)] {
        let Setup { os, heap } = setup(false);
        let (first, second) = (heap.attach(), heap.attach());
        let mut blocks = Vec::from([Block::new(heap, first, object, 1).unwrap()]);
        os.plan(Plan::From(1));
        blocks.extend(core::iter::from_fn(|| Block::new(heap, first, object, 1)));
        assert!(Block::new(heap, second, object, 2).is_none(), "everything is out");
        // No slab is empty then.
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for (i, block) in blocks.into_iter().enumerate() {
            [&mut stay, &mut go][i % 2].push(block);
        }
        let freed = go.len();
        go.into_iter().for_each(|block| block.free(heap, first));
        // SAFETY: our own block: what lies in its sheaf goes home.
        unsafe { heap.reclaim(first) };
        for thread in [second, None] {
            let zeros: Vec<_> = (0..freed / 8).map(|_| Block::zeroed(heap, thread, object)).collect();
            let served: Vec<_> =
                (0..freed / 8).map(|_| Block::new(heap, thread, object, 2).expect("free in another shard")).collect();
            served.into_iter().chain(zeros).for_each(|block| block.free(heap, thread));
        }
        stay.into_iter().for_each(|block| block.free(heap, first));
    }
}

/// A sheaf is as long as its class says, but where very many objects are alive; and then no longer than a share of them.
#[test]
fn sheaves_grow_with_what_is_alive() {
    let Setup { os, heap } = setup(false);
    let (thread, peer) = (heap.attach().unwrap(), heap.attach().unwrap());
    let block = |size, thread| Block::new(heap, Some(thread), layout(size, 8), 1).unwrap();
    // The second one's longest sheaves lie in an array of their own.
    for size in [1024, 48] {
        let class = SizeClass::of(layout(size, 8)).unwrap();
        let sheaf = thread.sheaves().of(class);
        let mut blocks = Vec::new();
        for (alive, longest) in [(100, class.sheaf_capacity()), (20_000, class.sheaf_limit())] {
            while blocks.len() < alive {
                blocks.push(block(size, thread));
            }
            assert_eq!(sheaf.capacity(), longest, "{alive} objects of {size} bytes alive");
        }
        // With few alive it is as long as others again; of small ones, it may hold a half of what the slabs that are left have.
        blocks.drain(10..).for_each(|block| block.free(heap, Some(thread)));
        let objects = heap.parts.caches.slabs(class, thread.shard()) * class.slab_objects();
        let most = class.sheaf_capacity().max(if size < 512 { objects / 2 } else { 0 });
        assert!(sheaf.capacity() <= most, "{} of {size} bytes, of {objects}", sheaf.capacity());
        heap.validate(Some(thread)).unwrap();
        // And so it is after all has gone home.
        blocks.extend((0..20_000).map(|_| block(size, thread)));
        assert_eq!(sheaf.capacity(), class.sheaf_limit());
        // SAFETY: our own block.
        unsafe { heap.reclaim(Some(thread)) };
        assert_eq!((sheaf.len(), sheaf.capacity()), (0, class.sheaf_capacity()));
        blocks.into_iter().for_each(|block| block.free(heap, Some(thread)));
        heap.validate(Some(thread)).unwrap();
    }
    // The next thread that has the block begins anew, without the memory of its arrays.
    // SAFETY: our own block, not used again.
    unsafe { heap.detach(thread) };
    heap.parts.registry.shrink(os);
    let thread = heap.attach().unwrap();
    let blocks: Vec<_> = (0..20_000).map(|_| block(48, thread)).collect();
    heap.validate(Some(thread)).unwrap();
    blocks.into_iter().for_each(|block| block.free(heap, Some(thread)));
    heap.validate(Some(thread)).unwrap();
    for thread in [thread, peer] {
        // SAFETY: our own blocks, not used again.
        unsafe { heap.detach(thread) };
    }
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    heap.audit(None).unwrap();
}

/// A thread's block, an arena and its descriptors, a chunk: nothing else is asked for.
#[test]
fn the_first_allocation_makes_at_most_six_system_calls() {
    for with_epoch in [false, true] {
        let Setup { os, heap } = setup(with_epoch);
        os.plan(Plan::Never);
        let thread = heap.attach();
        let block = Block::new(heap, thread, layout(48, 8), 1).unwrap();
        assert!((1..=6).contains(&os.calls()), "{} calls", os.calls());
        block.free(heap, thread);
    }
}

/// What a refusal costs the system does not grow with what was asked for before.
#[test]
fn a_refusal_costs_few_system_calls() {
    for with_epoch in [false, true] {
        let Setup { os, heap } = setup(with_epoch);
        let thread = heap.attach();
        let fill = |size| {
            core::iter::from_fn(move || {
                let layout = layout(size, 8);
                // SAFETY: the block is this thread's.
                unsafe { heap.alloc(thread, layout) }.ok().map(|ptr| (ptr, layout))
            })
        };
        // Many arenas, so that the next one is due to be long. Nothing is written: that would be two gigabytes.
        let mut blocks: Vec<_> = fill(CHUNK_SIZE).take(200).collect();
        os.limit(os.mapped());
        blocks.extend(fill(CHUNK_SIZE));
        blocks.extend(fill(30_000));
        for (size, most) in
            [(30_000, 4), (2 * PAGE_SIZE, 4), (CHUNK_SIZE, 4), (VMALLOC_THRESHOLD, 8), (VMALLOC_THRESHOLD + 1, 8)]
        {
            for _ in 0..100 {
                os.plan(Plan::Never);
                assert!(fill(size).next().is_none());
                assert!(os.calls() <= most, "{} calls to refuse {size} bytes", os.calls());
            }
        }
        os.limit(usize::MAX);
        blocks.extend(fill(CHUNK_SIZE).take(200));
        free_all(heap, blocks);
        end(heap);
    }
}

/// Real memory under a system that differs in one thing.
struct Odd {
    /// Bytes in its page.
    page: usize,
    /// Its `discard` says that it has done it, and does nothing, with ranges that are no multiples of this.
    lies_below: usize,
    /// Every other mapping lies at a low address.
    low: bool,
    /// A wait with a limit ends at once.
    sleepless: bool,
    /// It has a control group with a limit far away.
    grouped: bool,
    mapped: core::sync::atomic::AtomicUsize,
}

impl Odd {
    fn plain() -> Self {
        Self {
            page: 4096,
            lies_below: 1,
            low: false,
            sleepless: false,
            grouped: false,
            mapped: core::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn place(&self, len: usize, access: libc::c_int) -> Option<NonNull<u8>> {
        assert_eq!(len % self.page, 0, "whole pages");
        let n = self.mapped.fetch_add(len, core::sync::atomic::Ordering::Relaxed);
        let long = len.checked_add(self.page)?;
        let hint = if self.low && n / len % 2 == 0 { (1usize << 33) + n.next_multiple_of(self.page) } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, near the hint if there is room.
        let start = unsafe { libc::mmap(hint as *mut _, long, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            self.mapped.fetch_sub(len, core::sync::atomic::Ordering::Relaxed);
            return None;
        }
        let start = start.cast::<u8>();
        let head = start.align_offset(self.page);
        // What is too much stays mapped, and is nobody's.
        NonNull::new(start.wrapping_add(head))
    }

    fn whole(&self, ptr: NonNull<u8>, len: usize) {
        assert_eq!((ptr.as_ptr() as usize % self.page, len % self.page), (0, 0), "whole pages");
        assert_ne!(len, 0);
    }
}

impl crate::sync::Park for Odd {
    fn wait(&self, word: &crate::sync::Word, expected: u32) {
        Unix.wait(word, expected);
    }
    fn wait_for(&self, word: &crate::sync::Word, expected: u32, millis: u32) {
        if !self.sleepless {
            Unix.wait_for(word, expected, millis);
        }
    }
    fn wake_one(&self, word: &crate::sync::Word) {
        Unix.wake_one(word);
    }
    fn wake_all(&self, word: &crate::sync::Word) {
        Unix.wake_all(word);
    }
    fn nap(&self) {
        Unix.nap();
    }
    fn current(&self) -> usize {
        Unix.current()
    }
}

// SAFETY: every answer is the real system's, or a part of one.
unsafe impl Os for Odd {
    fn page_size(&self) -> usize {
        self.page
    }
    fn cpus(&self) -> usize {
        3
    }
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, libc::PROT_READ | libc::PROT_WRITE)
    }
    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, libc::PROT_NONE)
    }
    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        unsafe { Unix.commit(ptr, len) }
    }
    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        let done = unsafe { Unix.unmap(ptr, len) };
        self.mapped.fetch_sub(if done { len } else { 0 }, core::sync::atomic::Ordering::Relaxed);
        done
    }
    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        unsafe { Unix.advise_huge(ptr, len, huge) }
    }

    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        unsafe { Unix.populate(ptr, len) }
    }

    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.whole(ptr, len);
        // SAFETY: by contract.
        (ptr.as_ptr() as usize | len) % self.lies_below != 0 || unsafe { Unix.discard(ptr, len) }
    }
    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        self.whole(ptr, len);
        self.whole(ptr, new_len);
        // To grow, it would have to know that what lies behind is nobody's.
        // SAFETY: by contract.
        let done = new_len < len && unsafe { Unix.resize(ptr, len, new_len) };
        self.mapped.fetch_sub(if done { len - new_len } else { 0 }, core::sync::atomic::Ordering::Relaxed);
        done
    }
    unsafe fn relocate(&self, _: NonNull<u8>, _: usize, _: usize) -> Option<NonNull<u8>> {
        None // to a multiple of its page, which the real system does not know
    }
    unsafe fn guard(&self, _: NonNull<u8>, _: usize, _: bool) -> bool {
        false
    }
    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &core::ffi::CStr) -> bool {
        false
    }
    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize> {
        Unix.resident(ptr, len)
    }
    fn written(&self, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        assert_eq!((ptr.as_ptr() as usize % self.page, len % self.page), (0, 0), "whole pages");
        Unix.written(ptr, len, show)
    }
    fn read(&self, path: &core::ffi::CStr, into: &mut [u8]) -> Option<usize> {
        let text = match path.to_bytes() {
            _ if !self.grouped => return None,
            b"/proc/self/cgroup" => "0::/\n",
            b"/sys/fs/cgroup/memory.max" => "1000000000000\n",
            b"/sys/fs/cgroup/memory.current" => "0\n",
            _ => return None,
        };
        into[..text.len()].copy_from_slice(text.as_bytes());
        Some(text.len())
    }
    fn yield_now(&self) {
        Unix.yield_now();
    }
    fn now(&self) -> u64 {
        Unix.now()
    }
}

/// A heap on this system is used, emptied, used again, and knows every byte that is mapped.
fn lives_on(os: Odd) {
    let os = forever(os);
    for with_epoch in [false, true] {
        let before = os.mapped.load(Relaxed);
        let scheme = with_epoch.then(|| forever(Epoch::beside()) as &dyn Reclaim);
        let heap = heap_on(os, scheme);
        let thread = heap.attach();
        let zeros = || {
            for size in [100, 5000, 3 * PAGE_SIZE, CHUNK_SIZE, VMALLOC_THRESHOLD + 1] {
                Block::zeroed(heap, thread, layout(size, 8)).free(heap, thread);
            }
        };
        for _ in 0..2 {
            assert_eq!(workload(heap, thread), 0);
            heap.validate(thread).unwrap();
            zeros();
            for _ in 0..2 {
                // SAFETY: the block is this thread's.
                unsafe { heap.tick(thread) };
            }
            // SAFETY: the block is this thread's.
            unsafe { heap.reclaim(thread) };
            // Now what the system says that it has discarded.
            zeros();
            // SAFETY: the block is this thread's.
            unsafe { heap.reclaim(thread) };
            heap.audit(thread).unwrap();
            let stats = heap.stats(thread);
            let known = stats.reserved + stats.area_bytes + stats.kept + stats.own;
            assert_eq!(os.mapped.load(Relaxed) - before, known, "{stats:?}");
        }
    }
}

#[test]
fn pages_of_the_system_may_be_longer_than_ours() {
    for page in [16 << 10, 64 << 10] {
        lives_on(Odd { page, ..Odd::plain() });
    }
}

#[test]
fn a_system_that_does_not_discard_what_it_says_is_found_out() {
    for lies_below in [usize::MAX, CHUNK_SIZE, 64 << 10] {
        lives_on(Odd { lies_below, ..Odd::plain() });
    }
}

/// Class of bug: what is true of some ranges is taken to be true of all.
#[test]
fn a_system_that_discards_some_ranges_only_is_found_out() {
    let (discard, os) = (Discard::new(), Odd { lies_below: 64 << 10, ..Odd::plain() });
    let memory = Unix.map(CHUNK_SIZE).unwrap();
    let ptr = memory.as_ptr().wrapping_add(memory.as_ptr().align_offset(128 << 10));
    let at = |offset: usize, len: usize| {
        let ptr = NonNull::new(ptr.wrapping_add(offset)).unwrap();
        // SAFETY: part of the mapping.
        unsafe { ptr.as_ptr().write_bytes(7, len) };
        // SAFETY: as above; nobody needs what is in it.
        let zero = unsafe { discard.discard(&os, ptr, len) };
        // SAFETY: as above.
        let first = unsafe { ptr.as_ptr().read() };
        assert!(!zero || first == 0);
        zero
    };
    assert!(at(0, 128 << 10) && at(0, 64 << 10) && at(64 << 10, 256 << 10));
    assert!(!at(32 << 10, 32 << 10), "it says so, and has done nothing");
    assert!(!at(0, 128 << 10), "it is not believed again");
    // SAFETY: the whole mapping; nobody uses it.
    assert!(unsafe { Unix.unmap(memory, CHUNK_SIZE) });
}

#[test]
fn mappings_may_lie_far_from_each_other() {
    lives_on(Odd { low: true, ..Odd::plain() });
}

#[test]
fn a_block_of_another_heap_is_as_good_as_none_for_a_look() {
    let (Setup { heap, .. }, Setup { heap: other, .. }) = (setup(true), setup(true));
    let (own, foreign) = (heap.attach(), other.attach());
    let block = Block::new(heap, own, layout(100, 8), 1).unwrap();
    assert_eq!(heap.stats(foreign), heap.stats(own));
    assert_eq!(heap.validate(foreign), Ok(()));
    assert_eq!(other.stats(own).slab_objects, 0);
    block.free(heap, own);
}

#[test]
fn ten_thousand_threads_use_one_block() {
    let Setup { heap, .. } = setup(false);
    for i in 0..10_000 {
        let thread = heap.attach().unwrap();
        Block::new(heap, Some(thread), layout(i % 3000 + 1, 8), 1).unwrap().free(heap, Some(thread));
        // SAFETY: our own block, not used again.
        unsafe { heap.detach(thread) };
    }
    let stats = heap.stats(None);
    assert_eq!((stats.threads, stats.cached_objects, stats.slab_objects), (0, 0, 0));
    assert_eq!(stats.arenas, 1);
}

#[test]
fn audit_says_what_is_left() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    for (size, what) in [
        (64, "audit: objects are out"),
        (2 * PAGE_SIZE, "audit: page runs are out"),
        (VMALLOC_THRESHOLD + 1, "audit: areas are out"),
    ] {
        let block = Block::new(heap, thread, layout(size, 8), 1).unwrap();
        // SAFETY: our own block.
        unsafe { heap.reclaim(thread) };
        assert_eq!(heap.audit(thread), Err(what));
        block.free(heap, thread);
    }
    Block::new(heap, thread, layout(64, 8), 1).unwrap().free(heap, thread);
    assert_eq!(heap.audit(thread), Err("audit: objects are in sheaves"));
    // SAFETY: our own block, not used again.
    unsafe { heap.detach(thread.unwrap()) };
    assert_eq!(heap.audit(None), Err("audit: slabs are left"), "a shard keeps an empty one");
    // SAFETY: no block is claimed.
    unsafe { heap.reclaim(None) };
    assert_eq!(heap.audit(None), Ok(()));
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

#[cfg(feature = "checked")]
#[test]
fn validate_compares_the_live_objects_with_those_that_are_out() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach().unwrap();
    let class = SizeClass::of(layout(640, 8)).unwrap();
    // SAFETY: the block is this thread's.
    let object = unsafe { heap.alloc(Some(thread), layout(640, 8)) }.unwrap();
    heap.check(object, class, 640);
    assert_eq!(heap.validate(Some(thread)), Ok(()));
    heap.take_back(object, class);
    assert_eq!(heap.validate(Some(thread)), Err("heap: objects that are out are not the live ones (Lv2)"));
    heap.hand_out(object, class, 640);
    assert_eq!(heap.validate(Some(thread)), Ok(()));
    // SAFETY: the block is this thread's; the object is of the class, and not used any more.
    assert!(unsafe { thread.sheaves().of(class).push(object) });
    assert_eq!(heap.validate(Some(thread)), Err("live: an object is in a sheaf (Lv1)"));
    heap.take_back(object, class);
    assert_eq!(heap.validate(Some(thread)), Ok(()));
    // SAFETY: the block is this thread's, and not used any more.
    unsafe { heap.detach(thread) };
}

/// Class of bug: a vector that is copied each time it doubles (half of all bytes ever written).
#[test]
fn a_block_that_doubles_up_to_a_gibibyte_is_copied_little() {
    let Setup { os, heap } = setup(false);
    let (mut ptr, mut size, mut copied) = (NonNull::<u8>::dangling(), 0, 0);
    for to in (3..=30).map(|shift| 1usize << shift) {
        let moves = || os.calls_of(Call::Relocate) + os.calls_of(Call::Resize);
        let (before, calls) = (ptr, moves());
        ptr = if size == 0 {
            // SAFETY: no block is used.
            unsafe { heap.alloc(None, layout(to, 8)) }.unwrap()
        } else {
            // SAFETY: live, of this size.
            unsafe { heap.realloc(None, ptr, layout(size, 8), to) }.unwrap()
        };
        if size > 0 && ptr != before && moves() == calls {
            copied += size;
        }
        size = to;
    }
    assert!(copied <= 3 * VMALLOC_THRESHOLD, "{copied} bytes were copied");
    assert!(heap.counter().usage() <= (1 << 30) + (1 << 30) / 20, "{} bytes count", heap.counter().usage());
    // SAFETY: live, of this size.
    unsafe { heap.free(None, ptr, layout(size, 8)) };
    heap.validate(None).unwrap();
}
