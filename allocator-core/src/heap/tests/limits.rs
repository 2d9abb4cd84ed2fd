//! What a limit refuses, and what is given back before.

use super::returns::chunks;
use super::*;
use crate::error::ConfigError;
use crate::huge::HugePages;
use crate::kswapd::{Attend, GROWN};
use crate::page_counter::Limits;
use crate::tunables::Tunables;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const MIB: usize = 1 << 20;

fn limit(heap: &'static Heap, limits: Limits) -> Result<(), ConfigError> {
    // SAFETY: no block is used.
    unsafe { heap.set_limits(None, limits) }
}

/// From now on the heap is taken to have a thread, of this number.
pub(super) fn awaken(heap: &'static Heap) -> u32 {
    heap.kswapd().grown(heap.os(), GROWN, Limits::default());
    let Attend::Start(number) = heap.kswapd().attend(heap.os()) else { panic!("it has grown") };
    number
}

fn alloc_all(heap: &'static Heap, thread: Option<&Thread>, layout: Layout) -> Vec<Block> {
    core::iter::from_fn(|| Block::new(heap, thread, layout, 7)).collect()
}

/// Class of bug: a limit that is passed by what is freed and still resident, or by many small requests.
#[test]
fn no_kind_of_request_passes_the_limit_and_all_goes_on_once_memory_is_back() {
    for size in [48, 4000, 32 << 10, 60 << 10, MIB, 3 * MIB, 33 * MIB] {
        let Setup { heap, .. } = setup(true);
        let thread = heap.attach();
        limit(heap, Limits::of(128 * MIB)).unwrap();
        for round in 0..3 {
            let blocks = alloc_all(heap, thread, layout(size, 8));
            let stats = heap.stats(thread);
            assert!(stats.charged <= 128 * MIB, "{size}: {stats:?}");
            assert!(stats.allocated() >= blocks.len() * size, "{size}: {stats:?}");
            let most = if size > 32 << 10 { 126 } else { 128 } * MIB;
            // But for what is left over where a slab or a block does not fit, and class rounding.
            assert!(blocks.len() * size >= most - most / 8 - size, "{size}, round {round}: {} blocks", blocks.len());
            heap.validate(thread).unwrap();
            blocks.into_iter().for_each(|block| block.free(heap, thread));
        }
        assert!(heap.counter().failures() >= 3);
        // What one kind of request has left resident is no obstacle to another.
        for other in [MIB, 48, 40 * MIB, 5000] {
            alloc_all(heap, thread, layout(other, 8)).into_iter().for_each(|block| block.free(heap, thread));
            assert!(heap.stats(thread).charged <= 128 * MIB);
        }
        // SAFETY: our own block.
        unsafe { heap.reclaim(thread) };
        heap.audit(thread).unwrap();
        let left = heap.stats(thread);
        assert_eq!((left.charged, left.allocated()), (0, 0), "{left:?}");
    }
}

/// Class of bug: a length that makes no sense, perhaps of somebody else's making, costs every cache.
#[test]
fn what_nothing_makes_room_for_is_refused_at_once() {
    for limited in [false, true] {
        let Setup { os, heap } = setup(false);
        let thread = heap.attach();
        let too_long = if limited { 100 * MIB } else { os.total_memory().expect("Linux says it") } + 1;
        if limited {
            limit(heap, Limits::of(100 * MIB)).unwrap();
        }
        let mut grows = Block::new(heap, thread, layout(34 * MIB, 8), 3).unwrap();
        Block::new(heap, thread, layout(MIB, 8), 1).unwrap().free(heap, thread);
        os.limit(os.mapped() + 60 * MIB);
        let (back, failures) = (|| heap.kswapd().done().by_calls, heap.counter().failures());
        let (before, usage) = (back(), heap.counter().usage());
        // SAFETY: the block is this thread's.
        assert_eq!(unsafe { heap.alloc(thread, layout(too_long, 8)) }, Err(AllocError::TooLarge));
        // SAFETY: as above.
        assert_eq!(unsafe { heap.alloc_zeroed(thread, layout(too_long, 8)) }, Err(AllocError::TooLarge));
        assert!(!grows.resize(heap, thread, too_long));
        assert_eq!((back(), heap.counter().usage()), (before, usage));
        assert_eq!(heap.counter().failures() - failures, if limited { 3 } else { 0 });
        // What only others are in the way of is worth an attempt.
        // SAFETY: as above.
        assert_eq!(unsafe { heap.alloc(thread, layout(too_long - 1, 8)) }, Err(AllocError::OutOfMemory));
        assert!(!limited || back() > before);
        grows.check(34 * MIB);
        os.limit(usize::MAX);
        grows.free(heap, thread);
        heap.validate(thread).unwrap();
    }
}

/// Class of bug: what the system refuses is seen in the figures for a moment, and others give memory back for it.
#[test]
fn what_the_system_refuses_is_never_counted() {
    static HEAP: std::sync::OnceLock<&Heap> = std::sync::OnceLock::new();
    static MOST: AtomicUsize = AtomicUsize::new(0);
    fn look(_: Call, _: u64) {
        let heap = HEAP.get().expect("nothing is refused before");
        MOST.fetch_max(heap.counter().usage(), Relaxed);
    }
    let os = forever(FaultyOs::watched(Unix, Some(look)));
    let heap = *HEAP.get_or_init(|| heap_on(os, None));
    limit(heap, Limits { max: 0, high: 10 * MIB, min: 0 }).unwrap();
    os.plan(Plan::Kind(Call::Map));
    // SAFETY: no block is used.
    assert!(unsafe { heap.alloc(None, layout(1 << 40, 8)) }.is_err());
    assert!(os.refused() > 0 && MOST.load(Relaxed) < 10 * MIB && heap.counter().usage() == 0);
}

/// Class of bug: an allocator that cannot serve the code which handles its own refusal.
#[test]
fn whoever_is_refused_something_large_has_a_reserve_of_small_things() {
    let Setup { heap, .. } = setup(false);
    limit(heap, Limits { max: 64 * MIB, high: 64 * MIB, min: 2 * MIB }).unwrap();
    let large = alloc_all(heap, None, layout(64 << 10, 8));
    assert!(heap.counter().usage() <= 62 * MIB);
    let small = alloc_all(heap, None, layout(1024, 8));
    assert!(small.len() >= 3 * MIB / 2 / 1024, "{} objects", small.len());
    assert!(heap.counter().usage() <= 64 * MIB);
    for block in small.into_iter().chain(large) {
        block.free(heap, None);
    }
    heap.validate(None).unwrap();
}

#[test]
fn a_thread_that_gives_memory_back_may_take_the_reserve() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach().unwrap();
    limit(heap, Limits { max: 64 * MIB, high: 64 * MIB, min: 4 * MIB }).unwrap();
    let large = alloc_all(heap, Some(thread), layout(MIB, 8));
    thread.set_relieving(true);
    let more = alloc_all(heap, Some(thread), layout(MIB, 8));
    assert!((3..=4).contains(&more.len()), "{} blocks", more.len());
    thread.set_relieving(false);
    assert!(Block::new(heap, Some(thread), layout(MIB, 8), 1).is_none());
    more.into_iter().chain(large).for_each(|block| block.free(heap, Some(thread)));
}

#[test]
fn a_block_grows_up_to_the_limit_and_stays_as_it_is_beyond() {
    for (size, with_guard) in [(100 << 10, false), (MIB, false), (33 * MIB, false), (33 * MIB, true)] {
        let Setup { heap, .. } = setup(false);
        let thread = heap.attach();
        heap.set_guard_pages(with_guard);
        limit(heap, Limits::of(100 * MIB)).unwrap();
        let mut block = Block::new(heap, thread, layout(size, 8), 3).unwrap();
        let step = (size / 4).max(MIB);
        while block.resize(heap, thread, block.layout.size() + step) {
            assert!(heap.counter().usage() <= 100 * MIB);
        }
        let reached = block.layout.size();
        // A run may have to be copied, so that both are there for a moment.
        assert!(reached >= if size > 32 * MIB { 90 } else { 30 } * MIB, "{reached} bytes from {size} on");
        block.check(reached);
        assert!(block.resize(heap, thread, size));
        heap.validate(thread).unwrap();
        while block.resize(heap, thread, block.layout.size() + step) {}
        let again = block.layout.size();
        assert!(again >= reached / 2, "{again} bytes are there again, of {reached}");
        block.free(heap, thread);
        heap.validate(thread).unwrap();
    }
}

#[test]
fn limits_that_make_no_sense_are_errors_and_change_nothing() {
    let Setup { heap, .. } = setup(false);
    let block = Block::new(heap, None, layout(10 * MIB, 8), 1).unwrap();
    let good = Limits::of(64 * MIB);
    limit(heap, good).unwrap();
    for (bad, why) in [
        (Limits::of(8 * MIB), ConfigError::BelowUse),
        (Limits { min: 60 * MIB, ..good }, ConfigError::OutOfOrder),
        (Limits { high: 65 * MIB, ..good }, ConfigError::OutOfOrder),
    ] {
        assert_eq!(limit(heap, bad), Err(why), "{bad:?}");
        assert_eq!(heap.counter().limits(), good);
    }
    assert_eq!(heap.set_watermarks(Some(2), Some(1)), Err(ConfigError::OutOfOrder));
    // What is free is no obstacle: it goes.
    let more = Block::new(heap, None, layout(30 * MIB, 8), 2).unwrap();
    more.free(heap, None);
    limit(heap, Limits::of(16 * MIB)).unwrap();
    assert!(heap.counter().usage() <= 16 * MIB);
    limit(heap, Limits::default()).unwrap();
    Block::new(heap, None, layout(100 * MIB, 8), 2).unwrap().free(heap, None);
    block.free(heap, None);
}

#[test]
fn choices_are_taken_one_by_one() {
    let Setup { os, heap } = setup(false);
    assert!(heap.kswapd().looks_at_groups() && !heap.parts.zeroing.is_dense());
    let mut told = Vec::new();
    let tunables = Tunables {
        limit: Some(64 * MIB),
        soft_limit: Some(80 * MIB),
        low: Some(MIB),
        high: Some(3 * MIB),
        purge_after: Some(5000),
        huge_pages: Some(HugePages::Never),
        guard_pages: Some(true),
        sparse_zeros: Some(false),
        cgroup: Some(false),
        ..Tunables::new()
    };
    // SAFETY: no block is used.
    unsafe { heap.configure(None, &tunables, &mut |what, why| told.push((what, why))) };
    assert_eq!(told, [("limit", ConfigError::OutOfOrder)]);
    assert_eq!((heap.watermarks(0, 0).low, heap.watermarks(0, 0).high), (MIB, 3 * MIB));
    assert_eq!(heap.kswapd().purge_after(), 5000);
    assert_eq!(heap.parts.zone.huge.get(), HugePages::Never);
    assert!(heap.parts.zeroing.is_dense(), "nobody asks what was written");
    Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap().free(heap, None);
    assert_eq!([Call::Guard, Call::Unguard].map(|call| os.calls_of(call)), [1, 1], "put behind it, and taken away");
    assert!(!heap.kswapd().looks_at_groups());
    // SAFETY: no block is used.
    unsafe { heap.configure(None, &Tunables { soft_limit: None, ..tunables }, &mut |_, why| panic!("{why}")) };
    assert_eq!(heap.counter().limits().max, 64 * MIB);
}

/// Class of bug: a soft limit that nobody hears of (cgroups' own), and one that is told of all the time.
#[test]
fn the_program_is_told_once_for_each_tick_that_memory_is_short() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    heap.set_huge_pages(HugePages::Never); // so that a chunk counts page by page
    heap.set_purge_after(thread, Some(u32::MAX)); // so that no time passes
    limit(heap, Limits { max: 64 * MIB, high: 32 * MIB, min: 0 }).unwrap();
    awaken(heap);
    let mut blocks = Vec::new();
    while heap.counter().usage() + MIB <= 32 * MIB {
        blocks.push(Block::new(heap, None, layout(MIB, 8), 1).unwrap());
        assert!(!heap.kswapd().is_alarmed());
    }
    for tick in 0..3 {
        blocks.push(Block::new(heap, None, layout(MIB, 8), 1).unwrap());
        assert!(heap.kswapd().is_alarmed() && heap.kswapd().take_alarm(), "tick {tick}");
        blocks.push(Block::new(heap, None, layout(MIB, 8), 1).unwrap());
        assert!(!heap.kswapd().is_alarmed() && !heap.kswapd().take_alarm());
        blocks.drain(..2).for_each(|block| block.free(heap, None));
        // SAFETY: our own block.
        unsafe { heap.tick(thread) };
        heap.kswapd().silence();
    }
    blocks.into_iter().for_each(|block| block.free(heap, None));
    // SAFETY: our own block.
    unsafe { heap.tick(thread) };
    assert!(!heap.kswapd().is_alarmed());
    assert_eq!(heap.counter().usage(), heap.stats(thread).free_dirty_pages * PAGE_SIZE);
}

/// Class of bug: a soft limit that is heard of once, and then never again, since the tick does not come that ends an alarm.
#[test]
fn where_nobody_ticks_the_program_is_told_again_after_a_while() {
    let Setup { os, heap } = setup(false);
    heap.set_purge_after(None, Some(100));
    heap.set_purge_after(None, None);
    let told = os.now();
    heap.kswapd().alarm(os);
    assert!(heap.kswapd().take_alarm());
    heap.kswapd().alarm(os);
    assert!(!heap.kswapd().is_alarmed() || os.now() - told >= 50, "at once");
    for _ in 0..1000 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        heap.kswapd().alarm(os);
        if heap.kswapd().take_alarm() {
            return;
        }
    }
    panic!("never again");
}

/// Class of bug: an allocator that refuses to take memory back.
#[test]
fn an_area_that_shrinks_is_never_refused_to_be_a_run() {
    for short_of in ["the limit", "the system"] {
        let Setup { os, heap } = setup(false);
        let thread = heap.attach();
        if short_of == "the limit" {
            limit(heap, Limits::of(64 * MIB)).unwrap();
        }
        let mut block = Block::new(heap, thread, layout(62 * MIB + MIB / 2, 8), 9).unwrap();
        if short_of == "the system" {
            os.plan(Plan::From(1));
        }
        for size in [61 * PAGE_SIZE, 64 * PAGE_SIZE, 60 * PAGE_SIZE - 100, 3 * PAGE_SIZE] {
            assert!(block.resize(heap, thread, size), "{short_of}: {size}");
        }
        os.plan(Plan::Never);
        heap.validate(thread).unwrap();
        assert!(block.resize(heap, thread, 20 * PAGE_SIZE) && block.resize(heap, thread, 3 * MIB));
        block.free(heap, thread);
        // SAFETY: our own block.
        unsafe { heap.reclaim(thread) };
        heap.audit(thread).unwrap();
    }
}

/// Class of bug: objects in the caches of threads that do not free any more.
#[test]
fn a_thread_sends_its_objects_home_when_it_is_asked_to() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach().unwrap();
    let blocks: Vec<_> = (0..1000).map(|_| Block::new(heap, Some(thread), layout(100, 8), 1).unwrap()).collect();
    blocks.into_iter().for_each(|block| block.free(heap, Some(thread)));
    let before = heap.stats(None).cached_objects;
    assert!(before >= 16, "{before} objects are in sheaves");
    heap.parts.registry.ask_back();
    // The next refill or overflow, of whichever sheaf.
    let run = Block::new(heap, Some(thread), layout(2000, 8), 1).unwrap();
    let cached = heap.stats(None).cached_objects;
    assert!(cached < 8, "{cached} objects are in sheaves");
    run.free(heap, Some(thread));
    heap.validate(Some(thread)).unwrap();
}

/// Class of bug: pages that were claimed in vain count as resident, are not, and are handed out beyond the limit.
#[test]
fn an_extension_beyond_the_limit_leaves_nothing_that_counts() {
    let Setup { os, heap } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    // Without those, it would be more than the limit by itself.
    let others = Block::new(heap, None, layout(10 * MIB, 8), 2).unwrap();
    let mut run = Block::new(heap, None, layout(2 * MIB, 8), 1).unwrap();
    let used = heap.counter().usage();
    limit(heap, Limits { max: used + MIB, high: used + MIB, min: 0 }).unwrap();
    assert!(!run.resize(heap, None, 10 * MIB));
    assert_eq!(heap.counter().usage(), used);
    assert_eq!(heap.stats(None).free_dirty_pages, 0);
    if FIRST_ARENA_CHUNKS < 12 {
        return; // nothing lies behind it
    }
    // A part of what lies behind it is resident already.
    limit(heap, Limits::default()).unwrap();
    assert!(run.resize(heap, None, 4 * MIB) && run.resize(heap, None, 2 * MIB));
    limit(heap, Limits { max: used + 3 * MIB, high: used + 3 * MIB, min: 0 }).unwrap();
    // All of that is gone; or that part is left, where the system takes nothing back.
    os.plan(Plan::Kind(Call::Discard));
    assert!(!run.resize(heap, None, 10 * MIB));
    assert_eq!(heap.counter().usage(), used + 2 * MIB);
    os.plan(Plan::Never);
    assert!(!run.resize(heap, None, 10 * MIB));
    assert_eq!(heap.counter().usage(), used);
    heap.validate(None).unwrap();
    limit(heap, Limits::default()).unwrap();
    Block::zeroed(heap, None, layout(3 * MIB, 8)).free(heap, None);
    [others, run].into_iter().for_each(|block| block.free(heap, None));
}

/// As above, where as much is free and resident elsewhere: that goes back, and the block is copied.
#[test]
fn an_extension_beyond_the_limit_is_no_more_for_what_is_free_elsewhere() {
    if FIRST_ARENA_CHUNKS < 12 {
        return; // nothing lies behind a block
    }
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    let mut run = Block::new(heap, None, layout(2 * MIB, 8), 1).unwrap();
    let [behind, elsewhere] = [8, 9].map(|mib| Block::new(heap, None, layout(mib * MIB, 8), 2).unwrap());
    behind.free(heap, None);
    // SAFETY: no block is used.
    unsafe { heap.reclaim(None) };
    elsewhere.free(heap, None);
    let used = heap.counter().usage();
    assert_eq!(used, 11 * MIB);
    limit(heap, Limits { max: used + MIB, high: used + MIB, min: 0 }).unwrap();
    assert!(run.resize(heap, None, 10 * MIB));
    assert!(heap.counter().usage() <= used + MIB);
    heap.validate(None).unwrap();
    run.free(heap, None);
}

/// Class of bug: a request that is refused anyway makes others fail that would fit, as long as it is looked at.
#[test]
fn what_is_far_beyond_the_limit_is_in_nobodys_way() {
    let Setup { heap, .. } = setup(true);
    limit(heap, Limits { max: 64 * MIB, high: 64 * MIB, min: 0 }).unwrap();
    let kept = Block::new(heap, None, layout(8 * MIB, 8), 1).unwrap();
    let used = heap.counter().usage();
    limit(heap, Limits { max: used + 4 * MIB, high: used + 4 * MIB, min: MIB }).unwrap();
    let most = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Relaxed) {
                most.fetch_max(heap.counter().usage(), Relaxed);
            }
        });
        while most.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        for _ in 0..2000 {
            assert!(Block::new(heap, None, layout(16 * MIB, 8), 1).is_none());
        }
        done.store(true, Relaxed);
        watch.join().unwrap();
    });
    assert_eq!(most.into_inner(), used);
    kept.free(heap, None);
    heap.validate(None).unwrap();
}

/// Class of bug: a limit that is none where memory is locked, or `madvise` refused.
#[test]
fn a_system_that_takes_nothing_back_keeps_the_limit() {
    let Setup { os, heap } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    // As long as an arena: in a longer one a row would have pages that nobody has touched, and be too much.
    let max = (64 * MIB).max(FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE);
    limit(heap, Limits { max, high: max, min: 0 }).unwrap();
    os.plan(Plan::Kind(Call::Discard));
    for size in [3 * PAGE_SIZE, MIB, 5 * PAGE_SIZE, 3 * MIB, 60 * PAGE_SIZE, 33 * MIB, 2 * PAGE_SIZE] {
        let blocks = alloc_all(heap, None, layout(size, 8));
        let bytes = blocks.len() * size;
        assert!(bytes <= max && (size > 32 * MIB || bytes >= max / 2), "{bytes} bytes in blocks of {size}");
        blocks.into_iter().for_each(|block| block.free(heap, None));
        heap.validate(None).unwrap();
    }
    os.plan(Plan::Never);
    // SAFETY: no block is used.
    unsafe { heap.reclaim(None) };
    assert_eq!(heap.counter().usage(), 0);
}

/// Class of bug: what is locked in memory is not counted any more, although the system has not freed it.
#[test]
fn what_is_cut_off_an_area_is_gone_or_counted() {
    let Setup { os, heap } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    let mut area = Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap();
    os.plan(Plan::Kind(Call::Discard));
    let resized = os.calls_of(Call::Resize);
    assert!(area.resize(heap, None, 33 * MIB));
    assert_eq!(
        (os.calls_of(Call::Resize) - resized, heap.counter().usage()),
        (1, 33 * MIB),
        "cut off, as it is not freed"
    );
    os.plan(Plan::Never);
    let (resized, moved) = (os.calls_of(Call::Resize), os.calls_of(Call::Relocate));
    assert!(area.resize(heap, None, 40 * MIB) && area.resize(heap, None, 33 * MIB));
    assert_eq!(heap.counter().usage(), 33 * MIB);
    // Unless others were where it had been, and it moved, with more behind it than a tail may be.
    assert!(
        os.calls_of(Call::Relocate) > moved || os.calls_of(Call::Resize) == resized + 1,
        "it grew, and keeps a tail"
    );
    area.free(heap, None);
    heap.audit(None).unwrap();
}

/// Class of bug: what is free refuses a block that grows where it lies.
#[test]
fn a_block_grows_in_place_once_what_is_free_has_gone_back() {
    if FIRST_ARENA_CHUNKS as usize * CHUNK_SIZE < 66 * MIB {
        return; // where such a block is an area
    }
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    let [others, free, mut run, behind] =
        [22, 12, 28, 4].map(|mib| Block::new(heap, None, layout(mib * MIB, 8), 1).unwrap());
    behind.free(heap, None);
    // SAFETY: no block of a thread is meant.
    unsafe { heap.reclaim(None) };
    limit(heap, Limits { max: 64 * MIB, high: 64 * MIB, min: MIB }).unwrap();
    free.free(heap, None);
    assert_eq!(heap.counter().usage(), 62 * MIB, "two more are too much, and so is a copy without what is free");
    assert!(!run.resize(heap, None, 30 * MIB) && run.resize(heap, None, 30 * MIB));
    assert_eq!(heap.counter().usage(), 52 * MIB);
    [others, run].into_iter().for_each(|block| block.free(heap, None));
    heap.audit(None).unwrap();
}

/// Class of bug: where the reserve was used, too little of what is free goes back for a block that grows.
#[test]
fn an_area_grows_in_place_once_what_has_used_the_reserve_has_gone_back() {
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    limit(heap, Limits { max: 100 * MIB, high: 100 * MIB, min: 50 * MIB }).unwrap();
    let mut area = Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap();
    let objects = alloc_all(heap, None, layout(16 << 10, 8));
    assert!(heap.counter().usage() > 99 * MIB);
    objects.into_iter().for_each(|block| block.free(heap, None));
    assert!(heap.counter().usage() > 90 * MIB, "free, and resident");
    assert!(area.resize(heap, None, 48 * MIB));
    area.free(heap, None);
}

/// Class of bug: bytes are compared with a limit, and pages are charged.
#[test]
fn an_area_grows_in_place_by_less_than_a_page() {
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    let max = 100 * MIB + 256;
    limit(heap, Limits { max, high: max, min: 0 }).unwrap();
    let mut area = Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap();
    let [used, free] =
        [0; 2].map(|_| (0..30).map(|_| Block::new(heap, None, layout(MIB, 8), 1).unwrap()).collect::<Vec<_>>());
    free.into_iter().for_each(|block| block.free(heap, None));
    assert_eq!(heap.counter().usage(), 100 * MIB);
    assert!(area.resize(heap, None, 40 * MIB + 200));
    used.into_iter().chain([area]).for_each(|block| block.free(heap, None));
}

/// Class of bug: memory that is free, and in no row that is long enough, is the reason of a refusal.
#[test]
fn free_memory_in_pieces_makes_room_for_something_large_even_where_the_reserve_is_used() {
    let Setup { heap, .. } = setup(false);
    limit(heap, Limits { max: 64 * MIB, high: 64 * MIB, min: 8 * MIB }).unwrap();
    let mut kept = Vec::new();
    for (i, block) in alloc_all(heap, None, layout(16 << 10, 8)).into_iter().enumerate() {
        if i % 64 == 0 {
            kept.push(block);
        } else {
            block.free(heap, None);
        }
    }
    let large = Block::new(heap, None, layout(40 * MIB, 8), 2).expect("most of it is free");
    let run = Block::new(heap, None, layout(5 * MIB, 8), 3).expect("most of it is free");
    [large, run].into_iter().chain(kept).for_each(|block| block.free(heap, None));
}

#[test]
fn beyond_the_soft_limit_free_memory_goes_first_and_a_tick_says_what_is_left() {
    let Setup { heap, .. } = setup(false);
    let thread = heap.attach();
    heap.set_huge_pages(HugePages::Never);
    limit(heap, Limits { max: 0, high: 20 * MIB, min: 0 }).unwrap();
    assert!(!heap.stay_below_soft_limit(thread));
    let used: Vec<_> = (0..10).map(|_| Block::new(heap, thread, layout(MIB, 8), 1).unwrap()).collect();
    (0..15)
        .map(|_| Block::new(heap, thread, layout(MIB, 8), 1).unwrap())
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|block| block.free(heap, thread));
    assert!(heap.counter().is_high() && heap.kswapd().take_alarm());
    assert!(!heap.stay_below_soft_limit(thread), "{} bytes", heap.counter().usage());
    assert!(heap.counter().usage() > 15 * MIB, "no more than what is too much");
    let more: Vec<_> = (0..15).map(|_| Block::new(heap, thread, layout(MIB, 8), 1).unwrap()).collect();
    assert!(heap.stay_below_soft_limit(thread));
    // SAFETY: our own block.
    assert!(unsafe { heap.tick(thread) }, "there is something to do as long as there is too much");
    assert!(heap.kswapd().is_alarmed());
    used.into_iter().chain(more).for_each(|block| block.free(heap, thread));
}

/// Class of bug: a limit that is felt at the next request only, which an idle process never makes.
#[test]
fn a_soft_limit_below_what_is_resident_gives_back_what_is_free_at_once() {
    let Setup { heap, .. } = setup(false);
    let used = Block::new(heap, None, layout(4 * MIB, 8), 1).unwrap();
    let free: Vec<_> = (0..30).map(|_| Block::new(heap, None, layout(MIB, 8), 1).unwrap()).collect();
    free.into_iter().for_each(|block| block.free(heap, None));
    assert!(heap.counter().usage() >= 34 * MIB);
    limit(heap, Limits { max: 0, high: 10 * MIB, min: 0 }).unwrap();
    assert!(heap.counter().usage() <= 10 * MIB, "{} bytes", heap.counter().usage());
    used.free(heap, None);
}

/// Class of bug: a program that is told each time that it swings about a limit.
#[test]
fn who_swings_about_the_soft_limit_is_told_once_a_tick() {
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    limit(heap, Limits { max: 0, high: 50 * MIB, min: 0 }).unwrap();
    awaken(heap);
    let swing = || {
        let areas = [0; 2].map(|_| Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap());
        let told = heap.kswapd().take_alarm();
        areas.into_iter().for_each(|area| area.free(heap, None));
        Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap().free(heap, None);
        // SAFETY: no block is used.
        unsafe { heap.reclaim(None) };
        told
    };
    assert_eq!([swing(), swing(), swing()], [true, false, false]);
    super::returns::tick(heap, None);
    assert!(swing());
}

/// Class of bug: an alarm that nobody was told of, since what was free was enough, keeps the next one quiet.
#[test]
fn an_alarm_without_need_is_no_obstacle_to_the_next_one() {
    let Setup { heap, .. } = setup(false);
    heap.set_purge_after(None, Some(u32::MAX));
    limit(heap, Limits { max: 0, high: 10 * MIB, min: 0 }).unwrap();
    awaken(heap);
    let alarm = || {
        heap.kswapd().alarm(heap.os());
        heap.kswapd().take_alarm()
    };
    assert_eq!([alarm(), alarm()], [true, false]);
    heap.kswapd().listen();
    assert_eq!([alarm(), alarm()], [true, false]);
}

/// Class of bug: a limit that is looked at as seldom as free memory goes back.
#[test]
fn however_long_free_memory_may_stay_the_thread_sees_soon_that_memory_is_short() {
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    heap.set_purge_after(None, Some(3_600_000));
    let number = awaken(heap);
    let used = Block::new(heap, None, layout(20 * MIB, 8), 1).unwrap();
    limit(heap, Limits { max: 0, high: 10 * MIB, min: 0 }).unwrap();
    let ticks = std::thread::scope(|scope| {
        // SAFETY: no block is used.
        scope.spawn(|| unsafe { heap.run_kswapd(None, number, &|| ()) });
        let ticks = (0..300).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            heap.kswapd().done().ticks
        });
        let ticks = ticks.into_iter().find(|ticks| *ticks > 1);
        heap.set_purge_after(None, None);
        ticks
    });
    assert!(ticks.is_some(), "{:?}", heap.kswapd().done());
    used.free(heap, None);
}

/// As above, where those who free do the work.
#[test]
fn without_a_thread_a_tick_is_due_sooner_where_memory_is_short() {
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    heap.set_purge_after(None, Some(3_600_000));
    let number = awaken(heap);
    heap.without_kswapd(None, number);
    let after_a_while = || {
        std::thread::sleep(std::time::Duration::from_millis(600));
        heap.kswapd().attend(heap.os())
    };
    assert_eq!(after_a_while(), Attend::Nothing);
    let used = Block::new(heap, None, layout(20 * MIB, 8), 1).unwrap();
    limit(heap, Limits { max: 0, high: 10 * MIB, min: 0 }).unwrap();
    assert_eq!(after_a_while(), Attend::Tick(number));
    used.free(heap, None);
}

#[test]
fn what_a_limit_gives_back_is_in_the_figures() {
    let Setup { heap, .. } = setup(false);
    heap.set_huge_pages(HugePages::Never);
    let back = || heap.kswapd().done().by_calls as usize;
    chunks(heap, 15).into_iter().for_each(|block| block.free(heap, None));
    limit(heap, Limits { max: 64 * MIB, high: 20 * MIB, min: 0 }).unwrap();
    assert_eq!(back(), 15 * CHUNK_SIZE, "as it was set");
    chunks(heap, 15).into_iter().for_each(|block| block.free(heap, None));
    heap.stay_below_soft_limit(None);
    let by_soft = back();
    let excess = by_soft - 15 * CHUNK_SIZE;
    assert!((10 * MIB..10 * MIB + 2 * CHUNK_SIZE).contains(&excess), "{excess} bytes beyond the soft limit");
    let used = heap.counter().usage();
    let large = Block::new(heap, None, layout(60 * MIB, 8), 1).unwrap();
    assert!(back() - by_soft >= used - 4 * MIB, "{} bytes for something large", back() - by_soft);
    large.free(heap, None);
    // What is aside, for a run.
    limit(heap, Limits { max: 64 * MIB, high: 64 * MIB, min: 0 }).unwrap();
    awaken(heap);
    Block::new(heap, None, layout(60 * MIB, 8), 1).unwrap().free(heap, None);
    let before = back();
    let runs = chunks(heap, 4);
    assert!(back() - before >= 60 * MIB, "{} bytes that were aside", back() - before);
    runs.into_iter().for_each(|run| run.free(heap, None));
}

/// Class of bug: what is kept drives the program beyond its limit, since long blocks are not taken into account.
#[test]
fn long_blocks_leave_less_for_what_is_free() {
    let Setup { heap, .. } = setup(false);
    limit(heap, Limits { max: 100 * MIB, high: 80 * MIB, min: 0 }).unwrap();
    heap.set_watermarks(Some(30 * MIB), Some(30 * MIB)).unwrap();
    assert_eq!(heap.watermarks(0, 0).high, 30 * MIB);
    let area = Block::new(heap, None, layout(60 * MIB, 8), 1).unwrap();
    assert_eq!(heap.watermarks(0, 0).high, 10 * MIB);
    area.free(heap, None);
}

#[test]
fn an_alarm_ends_the_sleep_of_the_thread() {
    let Setup { os, heap } = setup(false);
    heap.set_purge_after(None, Some(100_000));
    let number = awaken(heap);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| heap.kswapd().wait(os, number, u32::MAX, &|| false, &|| false));
        let before = heap.kswapd().done().wakeups;
        while heap.kswapd().done().wakeups == before {
            heap.kswapd().alarm(os);
            std::thread::yield_now();
        }
        heap.set_purge_after(None, None);
        assert!(!thread.join().unwrap(), "nobody wants it any more");
    });
}

#[test]
fn watermarks_that_are_set_hold_and_the_others_follow() {
    let Setup { heap, .. } = setup(false);
    let marks = |low, high| {
        heap.set_watermarks(low, high).unwrap();
        let marks = heap.watermarks(0, 64 * MIB);
        (marks.low, marks.high)
    };
    let (low, high) = marks(None, None);
    assert_eq!(marks(Some(3 * MIB), None), (3 * MIB, 6 * MIB));
    assert_eq!(marks(None, Some(MIB)), (low.min(MIB / 2), MIB));
    assert_eq!(marks(Some(0), Some(5 * MIB)), (0, 5 * MIB));
    limit(heap, Limits { max: 100 * MIB, high: 70 * MIB, min: MIB }).unwrap();
    assert_eq!(marks(Some(4 * MIB), Some(5 * MIB)), (3 * MIB, 3 * MIB), "half of what is left below the soft limit");
    assert_eq!(heap.watermarks(0, 64 * MIB).min, MIB);
    limit(heap, Limits::default()).unwrap();
    assert_eq!(marks(None, None), (low, high));
    let mut told = Vec::new();
    let bad = Tunables { low: Some(2), high: Some(1), ..Tunables::new() };
    // SAFETY: no block is used.
    unsafe { heap.configure(None, &bad, &mut |what, why| told.push(format!("{what}: {why}"))) };
    assert_eq!(told, [format!("watermarks: {}", ConfigError::OutOfOrder.what())]);
    assert_ne!(ConfigError::OutOfOrder.what(), ConfigError::BelowUse.what());
}

#[test]
fn what_lies_behind_a_guard_that_stays_is_remembered() {
    let Setup { os, heap } = setup(false);
    heap.set_guard_pages(true);
    let mapped = os.mapped();
    for plan in [Plan::Kind(Call::Unguard), Plan::From(1)] {
        os.plan(Plan::Never);
        let block = Block::new(heap, None, layout(40 * MIB, 8), 1).unwrap();
        os.plan(plan);
        block.free(heap, None);
        heap.validate(None).unwrap();
    }
    os.plan(Plan::Never);
    // SAFETY: no block is used.
    unsafe { heap.reclaim(None) };
    assert!(os.mapped() - mapped < MIB, "{} bytes are still mapped", os.mapped() - mapped);
}
