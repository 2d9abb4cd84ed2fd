//! The run that a thread keeps when it frees it.

use super::*;
use crate::config::PCP_PAGES;
use crate::page_counter::Limits;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn pages(n: usize) -> Layout {
    layout(n * PAGE_SIZE, 8)
}

fn take(heap: &'static Heap, thread: Option<&Thread>, n: usize) -> Block {
    Block::new(heap, thread, pages(n), 7).unwrap()
}

#[test]
fn a_run_that_a_thread_frees_is_the_next_it_gets_and_goes_back_at_a_tick() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let run = take(heap, thread, 3);
    let (first, free) = (run.ptr, heap.stats(thread).free_pages);
    for _ in 0..3 {
        let run = take(heap, thread, 4);
        let ptr = run.ptr;
        run.free(heap, thread);
        let stats = heap.stats(thread);
        assert_eq!((stats.pcp_pages, stats.free_pages, stats.runs), (4, free - 4, 1));
        let again = Block::zeroed(heap, thread, pages(4));
        assert_eq!((again.ptr, heap.stats(thread).pcp_pages), (ptr, 0));
        again.check(4 * PAGE_SIZE);
        again.free(heap, thread);
        heap.validate(thread).unwrap();
    }
    // SAFETY: this thread has none of the blocks that are meant.
    unsafe { heap.tick(None) };
    assert_eq!((heap.stats(thread).pcp_pages, heap.stats(thread).free_pages), (0, free));
    assert_eq!(run.ptr, first);
    run.free(heap, thread);
    // SAFETY: our own block.
    unsafe { heap.reclaim(thread) };
    heap.audit(thread).unwrap();
}

#[test]
fn only_what_a_thread_asked_for_last_is_kept_and_one_of_it() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let most = PCP_PAGES as usize;
    let kept = || heap.stats(thread).pcp_pages;
    let [short, long, other, last] = [2, most + 1, most, most].map(|n| take(heap, thread, n));
    let free = heap.stats(thread).free_pages;
    short.free(heap, thread);
    assert_eq!(kept(), 0, "it asked for longer ones since");
    other.free(heap, thread);
    assert_eq!(kept(), most);
    last.free(heap, thread);
    assert_eq!((kept(), heap.stats(thread).free_pages), (most, free + 2 + most), "there was one");
    let another = take(heap, thread, most + 1);
    another.free(heap, thread);
    long.free(heap, thread);
    assert_eq!(kept(), most, "those are too long");
    let [a, b] = [2, 2].map(|n| take(heap, thread, n));
    let free = heap.stats(thread).free_pages;
    a.free(heap, None);
    assert_eq!(kept(), most, "who has no block keeps nothing");
    b.free(heap, thread);
    assert_eq!((kept(), heap.stats(thread).free_pages), (2, free + 2 + most), "the other one had to go for it");
    // SAFETY: the thread will not use it again.
    unsafe { heap.detach(thread.unwrap()) };
    heap.audit(None).unwrap();
}

/// Class of bug: memory that a thread holds for nothing is missing where others are refused.
#[test]
fn who_is_about_to_be_refused_gets_what_others_keep() {
    let Setup { heap, .. } = setup(false);
    let (keeper, other) = (heap.attach(), heap.attach());
    // SAFETY: no block is used.
    unsafe { heap.set_limits(None, Limits { max: 32 << 20, ..Limits::default() }) }.unwrap();
    let mut all: Vec<_> = core::iter::from_fn(|| Block::new(heap, keeper, pages(2), 1)).collect();
    all.pop().unwrap().free(heap, keeper);
    assert_eq!(heap.stats(keeper).pcp_pages, 2);
    assert!(Block::new(heap, other, pages(3), 1).is_none());
    let block = take(heap, other, 2);
    assert_eq!(heap.stats(keeper).pcp_pages, 0);
    block.free(heap, other);
    all.into_iter().for_each(|block| block.free(heap, other));
    end(heap);
}

/// Class of bug: memory that waits for a tick which does not come any more, or that nobody would ever ask for.
#[test]
fn where_nobody_ticks_nothing_is_kept() {
    let ends: [fn(&Heap); 3] = [
        |heap| heap.set_purge_after(None, None),
        |heap| heap.dismiss_kswapd(None),
        |heap| heap.without_kswapd(None, 0),
    ];
    for (i, end) in ends.into_iter().enumerate() {
        let Setup { heap, .. } = setup(false);
        let thread = heap.attach();
        take(heap, thread, 2).free(heap, thread);
        assert_eq!(heap.stats(None).pcp_pages, 2);
        end(heap);
        assert_eq!(heap.stats(None).pcp_pages, 0);
        take(heap, thread, 2).free(heap, thread);
        assert_eq!(heap.stats(None).pcp_pages, if i == 0 { 0 } else { 2 });
    }
}

/// Class of bug: the thread sleeps while memory waits for its tick.
#[test]
fn kswapd_does_not_sleep_on_what_was_kept_during_its_tick() {
    let Setup { heap, .. } = setup(false);
    heap.set_purge_after(None, Some(2));
    let (keeper, number) = (heap.attach(), super::limits::awaken(heap));
    take(heap, keeper, 2).free(heap, keeper);
    let (ticks, [slept, stop]) = (core::cell::Cell::new(0), [0; 2].map(|_| AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let watch = || {
            while !stop.load(Relaxed) {
                slept.fetch_or(!heap.kswapd().is_awake(), Relaxed);
                std::thread::yield_now();
            }
        };
        let watcher = core::cell::Cell::new(Some(scope.spawn(watch)));
        // What another thread does while a tick ends; a block is not for another thread to see, so it is done here.
        let after = || {
            ticks.set(ticks.get() + 1);
            if ticks.get() < 10 {
                return take(heap, keeper, 2).free(heap, keeper);
            }
            stop.store(true, Relaxed);
            watcher.take().into_iter().for_each(|watcher| watcher.join().unwrap());
            heap.set_purge_after(None, None);
        };
        // SAFETY: no block of a thread is meant.
        unsafe { heap.run_kswapd(None, number, &after) };
    });
    assert_eq!((ticks.get(), slept.into_inner()), (10, false));
}

/// Class of bug: what could be had is refused, since it waits with a thread that does nothing.
#[test]
fn an_area_grows_into_what_threads_keep() {
    const MIB: usize = 1 << 20;
    let Setup { heap, .. } = setup(false);
    // SAFETY: no block is used.
    unsafe { heap.set_limits(None, Limits { max: 50 * MIB, ..Limits::default() }) }.unwrap();
    let threads: Vec<_> = (0..40).map(|_| heap.attach()).collect();
    let mut area = Block::new(heap, None, layout(36 * MIB, 8), 1).unwrap();
    let runs: Vec<_> = threads.iter().map(|thread| take(heap, *thread, 8)).collect();
    runs.into_iter().zip(&threads).for_each(|(run, thread)| run.free(heap, *thread));
    assert_eq!(heap.stats(None).pcp_pages, 8 * threads.len());
    assert!(area.resize(heap, None, 45 * MIB));
    area.free(heap, None);
    end(heap);
}

/// Class of bug: a child copies what it never needs; or what threads kept that it does not have is lost to it.
#[test]
fn what_threads_keep_stays_in_a_child_until_somebody_wants_memory() {
    let Setup { heap, .. } = setup(false);
    let (own, other) = (heap.attach(), heap.attach());
    [own, other].into_iter().for_each(|thread| take(heap, thread, 2).free(heap, thread));
    become_a_child(heap, own);
    assert_eq!(heap.stats(own).pcp_pages, 4);
    let another = heap.attach();
    assert_eq!(heap.stats(own).pcp_pages, 2, "who wants a block adopts those of others");
    // SAFETY: this thread's blocks.
    [own, another].into_iter().for_each(|thread| unsafe { heap.detach(thread.unwrap()) });
    heap.audit(None).unwrap();
}

#[test]
fn beyond_the_soft_limit_nothing_is_kept() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    let [first, second] = [0; 2].map(|_| take(heap, thread, 2));
    // SAFETY: no block is used.
    unsafe { heap.set_limits(None, Limits { high: PAGE_SIZE, ..Limits::default() }) }.unwrap();
    first.free(heap, thread);
    assert_eq!(heap.stats(thread).pcp_pages, 0);
    // SAFETY: as above.
    unsafe { heap.set_limits(None, Limits::default()) }.unwrap();
    second.free(heap, thread);
    assert_eq!(heap.stats(thread).pcp_pages, 2);
}
