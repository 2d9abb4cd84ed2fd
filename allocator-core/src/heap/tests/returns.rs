//! What goes back to the system by itself, tick by tick.

use super::odd::Odd;
use super::*;
use crate::kswapd::{Attend, Watermarks};
use std::time::{Duration, Instant};

pub(super) fn tick(heap: &'static Heap, thread: Option<&Thread>) -> bool {
    // SAFETY: the block is the calling thread's.
    unsafe { heap.tick(thread) }
}

fn dirty(heap: &'static Heap) -> usize {
    heap.stats(None).free_dirty_pages * PAGE_SIZE
}

/// Blocks of a chunk each.
pub(super) fn chunks(heap: &'static Heap, n: usize) -> Vec<Block> {
    (0..n).map(|i| Block::new(heap, None, layout(CHUNK_SIZE, 8), i as u8).unwrap()).collect()
}

/// Class of bug: memory of a burst that is never returned (glibc, jemalloc without its background threads).
#[test]
fn what_is_free_for_a_whole_tick_goes_back_down_to_the_low_watermark() {
    for with_epoch in [false, true] {
        let Setup { heap, .. } = setup(with_epoch);
        let thread = heap.attach();
        let kept = chunks(heap, 1);
        chunks(heap, 40).into_iter().for_each(|block| block.free(heap, None));
        assert_eq!(dirty(heap), 40 * CHUNK_SIZE);
        assert!(tick(heap, thread), "they have an age now");
        assert_eq!(dirty(heap), 40 * CHUNK_SIZE, "nobody knows yet how long they have been free");
        // In use between the ticks: three chunks.
        let used: Vec<_> = chunks(heap, 3).iter().map(|block| block.ptr).collect();
        for at in used {
            // SAFETY: just allocated.
            unsafe { heap.free(None, at, layout(CHUNK_SIZE, 8)) };
        }
        assert!(tick(heap, thread));
        assert!((3 * CHUNK_SIZE..4 * CHUNK_SIZE).contains(&dirty(heap)), "{} bytes", dirty(heap));
        tick(heap, thread);
        assert!(!tick(heap, thread) && !tick(heap, thread), "nothing is left to do");
        // A chunk goes as a whole, so less may be left than the low watermark.
        assert!(dirty(heap) <= Watermarks::of(CHUNK_SIZE).high, "{} bytes", dirty(heap));
        assert!(heap.kswapd().done().by_ticks >= 39 * CHUNK_SIZE as u64);
        heap.validate(thread).unwrap();
        kept.into_iter().for_each(|block| block.free(heap, None));
    }
}

#[test]
fn a_tick_that_the_system_refuses_loses_nothing() {
    let Setup { os, heap } = setup(true);
    let thread = heap.attach();
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    for plan in [Plan::Kind(Call::Discard), Plan::Each(2), Plan::From(1), Plan::OneIn(3, 1)] {
        os.plan(plan);
        tick(heap, thread);
        tick(heap, thread);
        os.plan(Plan::Never);
        heap.validate(thread).unwrap();
        let again = chunks(heap, 20);
        again.into_iter().for_each(|block| block.free(heap, None));
    }
    tick(heap, thread);
    tick(heap, thread);
    assert!(dirty(heap) <= Watermarks::of(0).high);
    // SAFETY: our own block.
    unsafe { heap.reclaim(thread) };
    heap.audit(thread).unwrap();
}

#[test]
fn an_arena_without_pages_in_use_is_unmapped() {
    let Setup { os, heap } = setup(true);
    let thread = heap.attach();
    let before = os.mapped();
    // All but one of the first arena: what stays by the low watermark is less than a chunk then.
    let (first, later) = (chunks(heap, FIRST_ARENA_CHUNKS as usize - 1), chunks(heap, 71));
    assert!(heap.stats(thread).arenas > 1);
    later.into_iter().for_each(|block| block.free(heap, None));
    for _ in 0..4 {
        tick(heap, thread);
    }
    assert_eq!(heap.stats(thread).arenas, 1);
    let first_arena = FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE;
    assert!(os.mapped() - before < 2 * first_arena, "{} bytes are mapped", os.mapped() - before);
    first.into_iter().for_each(|block| block.free(heap, None));
    heap.validate(thread).unwrap();
}

/// Class of bug: memory that is locked, which the system frees with its mapping alone, is kept for good.
#[test]
fn an_empty_arena_is_unmapped_where_nothing_else_can_be_freed() {
    let Setup { os, heap } = setup(true);
    let thread = heap.attach();
    let (first, later) = (chunks(heap, FIRST_ARENA_CHUNKS as usize), chunks(heap, 70));
    assert!(heap.stats(thread).arenas > 1);
    os.plan(Plan::Kind(Call::Discard));
    later.into_iter().for_each(|block| block.free(heap, None));
    while tick(heap, thread) {}
    assert_eq!(heap.stats(thread).arenas, 1);
    os.plan(Plan::Never);
    first.into_iter().for_each(|block| block.free(heap, None));
    heap.validate(thread).unwrap();
}

/// Class of bug: one survivor in many keeps the memory of all (every allocator with links in free objects).
#[test]
fn a_slab_at_rest_loses_the_memory_behind_its_holes_and_no_object() {
    let page_size = Unix.page_size();
    for size in [8, 48, 200, 1000, 3000, 5000, 12_000, 14_000, 16 << 10, 20 << 10, 24 << 10, 32 << 10] {
        let Setup { os, heap } = setup(false);
        let n = 2 * CHUNK_SIZE / size;
        let all: Vec<_> = (0..n).map(|i| Block::new(heap, None, layout(size, 8), i as u8).unwrap()).collect();
        let mut alive = Vec::new();
        // Groups, so that there are holes between objects of any size; one of each slab that has two, so that none is empty.
        let two = SizeClass::of(layout(size, 8)).unwrap().slab_objects() == 2;
        let stays = |i: usize| if two { i % 2 == 0 } else { i * size / (4 * page_size) % 5 == 0 };
        for (i, block) in all.into_iter().enumerate() {
            if stays(i) {
                alive.push(block);
            } else {
                block.free(heap, None);
            }
        }
        heap.validate(None).unwrap();
        tick(heap, None);
        let before = heap.kswapd().done().by_ticks;
        let calls = os.calls_of(Call::Discard);
        assert!(tick(heap, None), "they rest since the tick before");
        let bytes = (heap.kswapd().done().by_ticks - before) as usize;
        let freed = if two { n * size / 2 } else { n * size / 5 * 4 };
        assert!(bytes > freed / 4, "{size}: {bytes} bytes of {freed}");
        assert!(os.calls_of(Call::Discard) > calls);
        heap.validate(None).unwrap();
        assert!(!tick(heap, None), "{size}: once is enough");
        // Every object can be had again, and none of those that are out has changed.
        alive.iter().for_each(|block| block.check(size));
        let again: Vec<_> = (0..n).map(|i| Block::new(heap, None, layout(size, 8), i as u8).unwrap()).collect();
        alive.extend(again);
        heap.validate(None).unwrap();
        alive.into_iter().for_each(|block| block.free(heap, None));
        // SAFETY: no block of a thread is meant.
        unsafe { heap.reclaim(None) };
        heap.audit(None).unwrap();
    }
}

/// Many slabs of one class take more than one step of a look.
#[test]
fn every_sparse_slab_rests_at_the_next_look() {
    let Setup { heap, .. } = setup(false);
    let (size, slabs) = (1024, 150);
    let all: Vec<_> =
        (0..slabs * PAGE_SIZE / size).map(|i| Block::new(heap, None, layout(size, 8), i as u8).unwrap()).collect();
    let mut alive = Vec::new();
    for (i, block) in all.into_iter().enumerate() {
        if i % 32 == 0 {
            alive.push(block);
        } else {
            block.free(heap, None);
        }
    }
    tick(heap, None);
    tick(heap, None);
    let bytes = heap.kswapd().done().by_ticks as usize;
    // Beside them, free pages may have gone.
    let holes = alive.len() * (PAGE_SIZE - Unix.page_size());
    assert!(bytes >= holes, "each slab has a page in use, and the others are holes: {bytes} bytes of {holes}");
    alive.into_iter().for_each(|block| block.free(heap, None));
    heap.validate(None).unwrap();
}

/// Class of bug: an object that is freed twice while its memory is on its way to the system.
#[test]
fn an_object_in_a_hole_that_is_freed_once_more_is_told() {
    let Setup { heap, .. } = setup(false);
    let class = SizeClass::of(layout(1000, 8)).unwrap();
    let run =
        heap.parts.zone.alloc_pages(heap.caller(None), PageCount::new(class.slab_pages()), Order::ZERO, true).unwrap();
    let map = heap.parts.zone.map_of(run.ptr.as_ptr());
    let page = map.page_of(run.ptr.as_ptr() as usize);
    // SAFETY: the pages were just taken.
    let mut slab = unsafe { crate::slab::Slab::create(map, page, class, false) };
    // SAFETY: nobody else knows it.
    let slab = unsafe { slab.as_mut() };
    let mut out = [null_mut(); 9];
    assert_eq!(slab.take(&mut out), 9);
    let holes = slab.take_holes(4096);
    assert_eq!(slab.free(), 3, "those beside the ninth in its page");
    let inside = slab.base().wrapping_add(20 * class.size());
    // SAFETY: the number of an object.
    assert!(unsafe { slab.put(20) }, "nobody can tell yet");
    assert_eq!(slab.fill_holes(holes, 4096), Some(inside));
    assert_eq!(slab.free(), class.slab_objects() - 9);
    slab.validate().unwrap();
    heap.parts.zone.free_pages(map, run.ptr.as_ptr() as usize, PageCount::new(class.slab_pages())).unwrap();
}

/// An object that comes or goes is a sign of life.
#[test]
fn a_slab_that_is_used_does_not_rest() {
    let Setup { os, heap } = setup(false);
    let size = 1000;
    let mut all: Vec<_> =
        (0..PAGE_SIZE / size).map(|i| Block::new(heap, None, layout(size, 8), i as u8).unwrap()).collect();
    all.drain(4..).for_each(|block| block.free(heap, None));
    for _ in 0..4 {
        Block::new(heap, None, layout(size, 8), 9).unwrap().free(heap, None);
        tick(heap, None);
        assert_eq!(os.calls_of(Call::Discard), 0);
    }
    tick(heap, None);
    assert_eq!(os.calls_of(Call::Discard), 1);
    all.into_iter().for_each(|block| block.free(heap, None));
}

#[test]
fn ticks_beside_threads_at_work_lose_no_page_and_no_object() {
    let Setup { heap, .. } = setup(true);
    let (stop, begin) = (core::sync::atomic::AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        let ticking = scope.spawn(|| {
            let thread = heap.attach().unwrap();
            while !stop.load(core::sync::atomic::Ordering::Relaxed) {
                tick(heap, Some(thread));
            }
            // SAFETY: this thread's block.
            unsafe { heap.detach(thread) };
        });
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let thread = heap.attach().unwrap();
                    let rounds = if cfg!(debug_assertions) { 10 } else { 40 };
                    // Under a sanitizer one may take ten seconds.
                    let more = |round: &usize| *round < 2 || begin.elapsed() < Duration::from_secs(30);
                    (0..rounds).take_while(more).for_each(|_| _ = workload(heap, Some(thread)));
                    // SAFETY: this thread's block.
                    unsafe { heap.detach(thread) };
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        stop.store(true, core::sync::atomic::Ordering::Relaxed);
        ticking.join().unwrap();
    });
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    heap.audit(None).unwrap();
}

#[test]
fn a_heap_wants_its_thread_when_it_has_grown() {
    let Setup { heap, .. } = setup(false);
    let attend = || if heap.kswapd().needs_attention() { heap.kswapd().attend(heap.os()) } else { Attend::Nothing };
    let small = chunks(heap, 4);
    small.into_iter().for_each(|block| block.free(heap, None));
    assert_eq!(attend(), Attend::Nothing, "a small one does not");
    let large = chunks(heap, 20);
    large.into_iter().for_each(|block| block.free(heap, None));
    assert_eq!(attend(), Attend::Start(0));
    assert_eq!(attend(), Attend::Nothing, "one is enough");
    heap.set_purge_after(None, None);
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    assert_eq!(attend(), Attend::Nothing, "it is switched off");
    heap.set_purge_after(None, Some(10));
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    assert_eq!(attend(), Attend::Start(2));
    become_a_child(heap, None);
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    assert_eq!(attend(), Attend::Start(3), "the child has none");
    heap.dismiss_kswapd(None);
    assert_eq!(attend(), Attend::Start(4), "it is large still");
}

#[test]
fn a_small_heap_that_had_no_thread_has_none_when_it_may_have_one_again() {
    let Setup { heap, .. } = setup(false);
    // As where those who free do the work.
    heap.kswapd().grown(heap.os(), usize::MAX, heap.counter().limits());
    assert!(heap.kswapd().needs_attention());
    heap.dismiss_kswapd(None);
    chunks(heap, 4).into_iter().for_each(|block| block.free(heap, None));
    assert!(!heap.kswapd().needs_attention());
}

/// Class of bug: memory that waits for a tick which does not come any more.
#[test]
fn what_is_aside_goes_back_when_the_thread_is_not_wanted_any_more() {
    let dismissals: [fn(&Heap); 3] = [
        |heap| heap.set_purge_after(None, Some(10)),
        |heap| heap.set_purge_after(None, None),
        |heap| heap.dismiss_kswapd(None),
    ];
    for dismiss in dismissals {
        let Setup { heap, .. } = setup(false);
        let area = || Block::new(heap, None, layout(40 << 20, 8), 1).unwrap();
        area().free(heap, None);
        assert!(matches!(heap.kswapd().attend(heap.os()), Attend::Start(_)));
        area().free(heap, None);
        assert!(heap.stats(None).aside_bytes >= 40 << 20);
        dismiss(heap);
        assert_eq!(heap.stats(None).aside_bytes, 0);
        assert_eq!(heap.counter().usage(), 0);
    }
}

#[test]
fn what_is_aside_goes_back_in_a_child_and_where_there_is_no_thread() {
    let ends: [fn(&Heap, u32); 2] =
        [|heap, _| become_a_child(heap, None), |heap, number| heap.without_kswapd(None, number)];
    for end in ends {
        let Setup { heap, .. } = setup(false);
        let area = || Block::new(heap, None, layout(40 << 20, 8), 1).unwrap();
        area().free(heap, None);
        let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it has grown") };
        area().free(heap, None);
        assert!(heap.stats(None).aside_bytes >= 40 << 20);
        end(heap, number);
        assert_eq!((heap.stats(None).aside_bytes, heap.counter().usage()), (0, 0));
    }
}

#[test]
fn a_thread_that_two_forks_have_left_behind_is_lost_once() {
    let Setup { heap, .. } = setup(false);
    let [own, _] = [0; 2].map(|_| heap.attach());
    for _ in 0..2 {
        become_a_child(heap, own);
    }
    assert_eq!(heap.parts.registry.lost(heap.os()), 1);
}

#[test]
fn what_is_refused_is_no_growth() {
    let Setup { heap, .. } = setup(false);
    assert!(Block::new(heap, None, layout(1 << 60, 8), 1).is_none());
    assert!(!heap.kswapd().needs_attention());
}

/// Class of bug: a group that gets short of memory while the thread sleeps.
#[test]
fn in_a_group_growth_ends_the_sleep_of_the_thread() {
    for grouped in [false, true] {
        let os = forever(Odd { grouped, ..Odd::plain() });
        let heap = heap_on(os, None);
        heap.set_purge_after(None, Some(600_000));
        chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
        let Attend::Start(number) = heap.kswapd().attend(os) else { panic!("it is wanted") };
        heap.kswapd().look_at_group(os, &mut heap.kswapd().hold_still(os));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| heap.kswapd().wait(os, number, u32::MAX, &|| false, &|| false));
            while heap.kswapd().is_awake() {
                std::thread::yield_now();
            }
            chunks(heap, 40).into_iter().for_each(|block| block.free(heap, None));
            let woken = heap.kswapd().is_awake();
            heap.set_purge_after(None, None);
            assert!(!sleeper.join().unwrap(), "nobody wants it any more");
            assert_eq!(woken, grouped);
        });
    }
}

/// The life of the heap's thread of this number.
fn live_as_kswapd(heap: &Heap, number: u32) {
    let thread = heap.attach_service();
    // SAFETY: this thread's block.
    unsafe { heap.run_kswapd(thread, number, &|| ()) };
    // SAFETY: as above.
    thread.into_iter().for_each(|thread| unsafe { heap.detach(thread) });
}

#[test]
fn a_thread_ticks_sleeps_and_wakes_until_it_is_not_wanted() {
    let Setup { heap, .. } = setup(true);
    heap.set_purge_after(None, Some(2));
    let programs = heap.attach();
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it is wanted") };
    std::thread::scope(|scope| {
        scope.spawn(|| live_as_kswapd(heap, number));
        let comes_true = |what: &str, holds: &dyn Fn() -> bool| {
            for _ in 0..10_000 {
                if holds() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("{what}: {:?}", heap.kswapd().done());
        };
        comes_true("what is free goes back", &|| dirty(heap) <= Watermarks::of(0).high);
        // Asleep by then, or soon: pages that come back wake it.
        comes_true("it sleeps, and is woken", &|| {
            chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
            std::thread::sleep(Duration::from_millis(20));
            heap.kswapd().attend(heap.os());
            heap.kswapd().done().wakeups > 0
        });
        comes_true("what is free goes back again", &|| dirty(heap) <= Watermarks::of(0).high);
        assert_eq!(heap.stats(None).threads, 1, "it is none of the program's");
        heap.set_purge_after(None, None);
    });
    // SAFETY: this thread's block.
    programs.into_iter().for_each(|thread| unsafe { heap.detach(thread) });
    heap.validate(None).unwrap();
}

/// Class of bug: a process of which only the heap's thread is left does not end; or what is free stays where nobody is left to free more.
#[test]
fn a_thread_gives_all_back_and_ends_when_no_thread_of_the_program_has_a_block() {
    let Setup { heap, .. } = setup(true);
    heap.set_purge_after(None, Some(600_000));
    let programs = heap.attach();
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it is wanted") };
    std::thread::scope(|scope| {
        scope.spawn(|| live_as_kswapd(heap, number));
        std::thread::sleep(Duration::from_millis(50));
        assert!(heap.kswapd().is_awake() && dirty(heap) >= 40 << 20);
        // SAFETY: this thread's block.
        programs.into_iter().for_each(|thread| unsafe { heap.detach(thread) });
    });
    assert!(dirty(heap) <= Watermarks::of(0).high, "{} bytes", dirty(heap));
    assert!(matches!(heap.kswapd().attend(heap.os()), Attend::Start(next) if next != number));
    heap.validate(None).unwrap();
}

/// Class of bug: a process of which only the heap's thread is left does not end.
#[test]
fn a_thread_that_retires_ends_and_the_next_one_is_another() {
    let Setup { heap, .. } = setup(true);
    heap.set_purge_after(None, Some(600_000));
    let thread = heap.attach();
    assert!(!heap.is_deserted(None));
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it is wanted") };
    std::thread::scope(|scope| {
        scope.spawn(|| live_as_kswapd(heap, number));
        std::thread::sleep(Duration::from_millis(50));
        // SAFETY: this thread's block.
        thread.into_iter().for_each(|thread| unsafe { heap.detach(thread) });
        assert!(heap.is_deserted(None) && heap.kswapd().is_awake());
    });
    assert!(!heap.kswapd().is_awake());
    assert!(
        matches!(heap.kswapd().attend(heap.os()), Attend::Start(next) if next != number),
        "should it be wanted again"
    );
    heap.kswapd().retire(number);
    assert!(heap.kswapd().is_awake(), "that one has retired");
    heap.kswapd().alone(heap.os(), number + 1);
    heap.kswapd().retire(number + 1);
    assert_eq!(heap.kswapd().attend(heap.os()), Attend::Nothing, "who has no thread has none to lose");
}

/// Class of bug: the last thread ends between the look of the heap's for who is left, and its sleep, so that nobody ends that.
#[test]
fn a_thread_asks_who_is_left_when_others_see_it_asleep_and_does_not_sleep_alone() {
    let Setup { heap, .. } = setup(false);
    heap.set_purge_after(None, Some(600_000));
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it is wanted") };
    let asked_asleep = std::cell::Cell::new(false);
    let is_deserted = || {
        asked_asleep.set(asked_asleep.get() || heap.kswapd().is_asleep());
        true
    };
    let begin = heap.os().now();
    assert!(heap.kswapd().wait(heap.os(), number, u32::MAX, &|| false, &is_deserted));
    assert!(asked_asleep.get() && heap.kswapd().is_awake());
    assert!(heap.os().now() - begin < 60_000, "neither for a sleep, nor until the next tick");
    heap.kswapd().retire(number);
}

/// Class of bug: a thread that the system does not let sleep burns a processor.
#[test]
fn a_thread_that_cannot_wait_ends_and_leaves_the_work_to_others() {
    let os = forever(Odd { sleepless: true, ..Odd::plain() });
    let heap = heap_on(os, None);
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    let Attend::Start(number) = heap.kswapd().attend(os) else { panic!("it is wanted") };
    // SAFETY: no block of a thread is meant.
    unsafe { heap.run_kswapd(None, number, &|| ()) };
    assert_eq!(heap.kswapd().done().ticks, 0);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(heap.kswapd().attend(os), Attend::Tick(number));
}

#[test]
fn without_a_thread_whoever_gives_pages_back_is_told_to_tick() {
    let Setup { os, heap } = setup(false);
    heap.set_purge_after(None, Some(1));
    chunks(heap, 20).into_iter().for_each(|block| block.free(heap, None));
    let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it is wanted") };
    heap.kswapd().alone(os, number);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(heap.kswapd().attend(os), Attend::Tick(number));
    assert_eq!(heap.kswapd().attend(os), Attend::Nothing, "one does it");
    heap.kswapd().alone(os, number);
}
