//! A whole heap.

use super::*;
use crate::heap::{Heap, Parts};
use crate::kswapd::Attend;
use crate::page_counter::Limits;
use crate::thread::Thread;

struct Whole {
    world: &'static World,
    heap: Heap,
}

// SAFETY: both are made for sharing.
unsafe impl Sync for Whole {}

impl Whole {
    fn alloc(&'static self, thread: Option<&Thread>, size: usize) -> usize {
        let layout = Layout::from_size_align(size, 1).unwrap();
        // SAFETY: the calling thread has the block.
        let ptr = unsafe { self.heap.alloc(thread, layout) }.unwrap();
        self.world.touch(ptr.as_ptr() as usize);
        ptr.as_ptr() as usize
    }

    fn free(&self, thread: Option<&Thread>, address: usize, size: usize) {
        self.world.touch(address);
        let (ptr, layout) = (NonNull::new(address as *mut u8).unwrap(), Layout::from_size_align(size, 1).unwrap());
        // SAFETY: the calling thread has the block, and the memory.
        unsafe { self.heap.free(thread, ptr, layout) };
    }
}

/// As `model` in the module above, over a heap that must pass its audit when all is free.
fn model<const THREADS: usize>(
    prepare: fn(&'static Whole) -> Vec<usize>,
    threads: [fn(&'static Whole, &[usize]); THREADS],
) {
    check(move || {
        let world = for_this_run(World::new());
        let parts = for_this_run(Parts::new());
        // SAFETY: the parts are this heap's.
        let heap = unsafe { Heap::new(&world.memory, Some(&world.reclaim), parts) };
        let whole = for_this_run(Whole { world, heap });
        let prepared: &'static Vec<usize> = for_this_run(prepare(whole));
        let threads = threads.map(|run| loom::thread::spawn(move || run(whole, prepared)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let thread = whole.heap.attach();
        // SAFETY: the calling thread has the block.
        unsafe { whole.heap.reclaim(thread) };
        whole.heap.audit(thread).unwrap();
        // SAFETY: all threads have ended.
        unsafe { end_of_run(prepared) };
        // SAFETY: as above.
        unsafe { end_of_run(whole) };
        // SAFETY: as above.
        unsafe { end_of_run(parts) };
        // SAFETY: as above.
        unsafe { end_of_run(world) };
    });
}

#[test]
fn an_object_is_handed_over_and_freed_by_a_thread_that_ends() {
    model(
        |h| vec![h.alloc(None, 8), h.alloc(None, 8)],
        [
            |h, objects| {
                let thread = h.heap.attach();
                h.free(thread, objects[0], 8);
                // SAFETY: this thread's, and its last use.
                unsafe { h.heap.detach(thread.unwrap()) };
            },
            |h, objects| h.free(None, objects[1], 8),
        ],
    );
}

#[test]
fn the_last_object_comes_back_while_its_thread_ends_and_another_gives_back_what_is_free() {
    model(
        |h| {
            // Both objects are of one slab, which is of this block's shard.
            let block = h.heap.attach();
            let objects = [h.alloc(block, 8), h.alloc(block, 8)];
            vec![core::ptr::from_ref(block.unwrap()) as usize, objects[0], objects[1]]
        },
        [
            |h, p| {
                // SAFETY: the block that `prepare` attached; this thread has it now.
                let thread = unsafe { &*(p[0] as *const Thread) };
                h.free(Some(thread), p[1], 8);
                // SAFETY: this thread's, and its last use.
                unsafe { h.heap.detach(thread) };
            },
            |h, p| h.free(None, p[2], 8),
            // SAFETY: no block is named.
            |h, _| _ = unsafe { h.heap.reclaim(None) },
        ],
    );
}

#[test]
fn a_run_is_freed_while_another_reclaims() {
    model(
        |h| vec![h.alloc(None, 2 * 64), h.alloc(None, 4 * 64)],
        [
            |h, runs| h.free(None, runs[1], 4 * 64),
            |h, runs| {
                let thread = h.heap.attach();
                h.free(thread, runs[0], 2 * 64);
                // SAFETY: this thread's.
                unsafe { h.heap.reclaim(thread) };
                // SAFETY: as above, and its last use.
                unsafe { h.heap.detach(thread.unwrap()) };
            },
        ],
    );
}

#[test]
fn memory_that_must_be_zero_is_so_whoever_had_it() {
    model(
        |h| {
            let run = h.alloc(None, 2 * 64);
            // SAFETY: two pages of ours.
            unsafe { (run as *mut u8).write_bytes(0xa5, 2 * 64) };
            vec![run]
        },
        [
            |h, runs| {
                h.free(None, runs[0], 2 * 64);
                // SAFETY: no block is named.
                unsafe { h.heap.reclaim(None) };
            },
            |h, _| {
                let layout = Layout::from_size_align(2 * 64, 1).unwrap();
                // SAFETY: no block is named.
                let ptr = unsafe { h.heap.alloc_zeroed(None, layout) }.unwrap();
                h.world.touch(ptr.as_ptr() as usize);
                // SAFETY: two pages of ours.
                let bytes = unsafe { core::slice::from_raw_parts(ptr.as_ptr(), 2 * 64) };
                assert!(bytes.iter().all(|b| *b == 0));
                h.free(None, ptr.as_ptr() as usize, 2 * 64);
            },
        ],
    );
}

/// Frees a run of two pages, which the thread keeps, takes it so many times again, and ends.
fn keep_a_run(h: &'static Whole, thread: &'static Thread, mut run: usize, times: usize) {
    for _ in 0..times {
        h.free(Some(thread), run, 2 * 64);
        run = h.alloc(Some(thread), 2 * 64);
    }
    h.free(Some(thread), run, 2 * 64);
    // SAFETY: this thread's, and its last use.
    unsafe { h.heap.detach(thread) };
}

/// A block, and a run that its thread has asked for.
fn block_and_run(h: &'static Whole) -> Vec<usize> {
    let block = h.heap.attach();
    vec![core::ptr::from_ref(block.unwrap()) as usize, h.alloc(block, 2 * 64)]
}

#[test]
fn a_run_that_a_thread_keeps_goes_to_whoever_reclaims() {
    model(
        block_and_run,
        [
            // SAFETY: the block that `prepare` attached; this thread has it now.
            |h, p| keep_a_run(h, unsafe { &*(p[0] as *const Thread) }, p[1], 1),
            // SAFETY: no block is named.
            |h, _| _ = unsafe { h.heap.reclaim(None) },
        ],
    );
}

#[test]
fn a_thread_that_keeps_a_run_ends_and_another_gets_its_block() {
    model(
        block_and_run,
        [
            // SAFETY: the block that `prepare` attached; this thread has it now.
            |h, p| keep_a_run(h, unsafe { &*(p[0] as *const Thread) }, p[1], 0),
            |h, _| {
                let thread = h.heap.attach();
                let run = h.alloc(thread, 2 * 64);
                keep_a_run(h, thread.unwrap(), run, 0);
            },
        ],
    );
}

#[test]
fn the_last_thread_that_leaves_ends_the_sleep_of_kswapd_or_is_seen_to_have_left() {
    model(
        |h| {
            let (kswapd, memory) = (h.heap.kswapd(), &h.world.memory);
            kswapd.grown(memory, usize::MAX, Limits::default());
            assert_eq!(kswapd.attend(memory), Attend::Start(0));
            vec![core::ptr::from_ref(h.heap.attach().unwrap()) as usize]
        },
        [
            |h, p| {
                // SAFETY: the block that `prepare` attached; this thread has it now.
                let thread = unsafe { &*(p[0] as *const Thread) };
                // SAFETY: this thread's, and its last use.
                unsafe { h.heap.detach(thread) };
                assert_eq!(h.heap.kswapd().attend(&h.world.memory), Attend::Nothing);
            },
            |h, _| {
                let is_deserted = || {
                    let (asleep, is_deserted) = (h.heap.kswapd().is_asleep(), h.heap.is_deserted(None));
                    // If it sleeps, then until somebody ends that.
                    while !is_deserted && h.heap.kswapd().is_asleep() {
                        loom::thread::yield_now();
                    }
                    if is_deserted || asleep {
                        h.heap.set_purge_after(None, None); // for it would look again, and end
                    }
                    is_deserted
                };
                assert!(!h.heap.kswapd().wait(&h.world.memory, 0, u32::MAX, &|| false, &is_deserted));
                assert!(h.heap.kswapd().is_off());
            },
        ],
    );
}
