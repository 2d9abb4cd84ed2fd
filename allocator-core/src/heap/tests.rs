//! The heap as a whole, on a system that refuses what it is told to.

extern crate std;

mod areas;
mod arenas;
mod growth;
mod huge;
mod interpreted;
mod limits;
mod odd;
mod pcp;
mod returns;
mod slabs;
mod untyped;
mod zeros;

use super::*;
use crate::config::{
    ADDRESS_BITS, CHUNK_SIZE, FIRST_ARENA_CHUNKS, HUGE_FROM_CHUNK, MAX_OBJECT, ROOMY_PAGES, SMALL_CHUNKS,
    VMALLOC_THRESHOLD,
};
use crate::huge::HugePages;
use crate::page::{ChunkMap, Tag};
use crate::reclaim::Epoch;
use crate::sys::{Call, Discard, FaultyOs, Guarded, Plan, Unix};
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

/// What a fork does to the heap in the child, without one: no other thread goes on with the heap.
fn become_a_child(heap: &Heap, own: Option<&Thread>) {
    heap.before_fork(own, false);
    // SAFETY: called before, by this thread, and there are no others.
    unsafe { heap.after_fork_in_child(own, false) };
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

#[cfg(feature = "checked")]
#[test]
fn validate_compares_the_live_objects_with_those_that_are_out() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach().unwrap();
    let class = SizeClass::of(layout(640, 8)).unwrap();
    // SAFETY: the block is this thread's.
    let object = unsafe { heap.alloc(Some(thread), layout(640, 8)) }.unwrap();
    // SAFETY: an object that this thread has; so it is below, but for what the heap thinks.
    unsafe { heap.check(object, class, 640) };
    assert_eq!(heap.validate(Some(thread)), Ok(()));
    // SAFETY: as above.
    unsafe { heap.take_back(object, class) };
    assert_eq!(heap.validate(Some(thread)), Err("heap: objects that are out are not the live ones (Lv2)"));
    // SAFETY: as above.
    unsafe { heap.hand_out(object, class, 640) };
    assert_eq!(heap.validate(Some(thread)), Ok(()));
    // SAFETY: the block is this thread's; the object is of the class, and not used any more.
    assert!(unsafe { thread.sheaves().of(class).push(object) });
    assert_eq!(heap.validate(Some(thread)), Err("live: an object is in a sheaf (Lv1)"));
    // SAFETY: as above.
    unsafe { heap.take_back(object, class) };
    assert_eq!(heap.validate(Some(thread)), Ok(()));
    // SAFETY: the block is this thread's, and not used any more.
    unsafe { heap.detach(thread) };
}
