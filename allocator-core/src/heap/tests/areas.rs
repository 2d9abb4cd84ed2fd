//! Areas that were freed, and are set aside for the next one.

use super::*;
use crate::kswapd::Attend;
use crate::page_counter::Limits;

const MIB: usize = 1 << 20;

/// A heap whose kswapd is about to tick: here, the test does.
fn with_kswapd(os: &'static FaultyOs<Unix>) -> &'static Heap {
    let heap = heap_on(os, None);
    area(heap, 33 * MIB).free(heap, None);
    assert!(matches!(heap.kswapd().attend(os), Attend::Start(_)), "a heap that has had an area is not small");
    assert_eq!(aside(heap), 0, "nobody would have given it back");
    heap
}

fn area(heap: &'static Heap, size: usize) -> Block {
    Block::new(heap, None, layout(size, 8), 5).unwrap()
}

fn aside(heap: &'static Heap) -> usize {
    heap.validate(None).unwrap();
    heap.stats(None).aside_bytes
}

fn tick(heap: &'static Heap) {
    // SAFETY: no block is used.
    unsafe { heap.tick(None) };
}

/// Class of bug: pages of a vector that grows are moved to where none of its huge pages can be.
#[test]
fn an_area_with_huge_pages_begins_with_one_wherever_it_goes() {
    let begins = |ptr: NonNull<u8>| ptr.as_ptr() as usize % CHUNK_SIZE == 0;
    let Some(probe) = Unix.map(17 * CHUNK_SIZE) else { return };
    // SAFETY: just mapped.
    assert!(unsafe { Unix.unmap(probe, 17 * CHUNK_SIZE) });
    if !gets_huge_pages() || !begins(probe) {
        return; // the system does not see to it, as Linux does since 6.7
    }
    let Setup { os, heap } = setup(false);
    let thread = heap.attach();
    let odd = |times: usize| times * (VMALLOC_THRESHOLD + CHUNK_SIZE / 3);
    let mut area = Block::new(heap, thread, layout(odd(1), 8), 3).unwrap();
    assert!(begins(area.ptr) && heap.stats(thread).area_bytes == os.whole_pages(odd(1)), "and no more than that");
    // Something behind it, so that it must move at times.
    let _wall = os.map(PAGE_SIZE);
    for times in 2..6 {
        assert!(area.resize(heap, thread, odd(times)));
        assert!(begins(area.ptr));
    }
    assert!(heap.stats(thread).area_bytes <= odd(5) / 8 * 9 + 2 * CHUNK_SIZE);
    area.free(heap, thread);
    // Where there is no room for more than is asked for, or the rest does not go back, it is served all the same.
    for plan in [Plan::Nth(1), Plan::Kind(Call::Unmap)] {
        os.plan(plan);
        let area = Block::new(heap, thread, layout(odd(1), 8), 3).unwrap();
        assert!(os.refused() > 0);
        os.plan(Plan::Never);
        area.free(heap, thread);
    }
    heap.validate(thread).unwrap();
}

#[test]
fn an_area_of_the_same_length_is_the_same_pages_again() {
    let os = forever(FaultyOs::new(Unix));
    let heap = with_kswapd(os);
    let first = area(heap, 40 * MIB);
    let at = first.ptr;
    first.free(heap, None);
    assert_eq!((aside(heap), heap.counter().usage()), (40 * MIB, 40 * MIB));
    assert!(!heap.owns(at.as_ptr() as usize));
    let maps = os.calls_of(Call::Map);
    // Up to a quarter shorter; what is behind its end is not resident any more.
    let again = area(heap, 33 * MIB);
    assert_eq!((again.ptr, aside(heap), heap.counter().usage()), (at, 0, 33 * MIB));
    again.free(heap, None);
    // And longer, as far as its mapping goes.
    let longer = area(heap, 39 * MIB);
    assert_eq!((longer.ptr, os.calls_of(Call::Map) - maps), (at, 0));
    longer.free(heap, None);
    assert_eq!(aside(heap), 39 * MIB);
    // SAFETY: no block is used.
    assert_eq!(unsafe { heap.reclaim(None) }, 39 * MIB);
    heap.audit(None).unwrap();
    assert_eq!((aside(heap), heap.counter().usage()), (0, 0));
}

/// Class of bug: `calloc` that hands out what somebody else has written.
#[test]
fn zeros_are_new_ones() {
    let heap = with_kswapd(forever(FaultyOs::new(Unix)));
    area(heap, 40 * MIB).free(heap, None);
    let zeros = Block::zeroed(heap, None, layout(40 * MIB, 8));
    assert_eq!(aside(heap), 0, "the program has moved on");
    zeros.free(heap, None);
}

#[test]
fn what_is_set_aside_goes_back_with_the_second_tick_or_when_another_length_is_asked_for() {
    let heap = with_kswapd(forever(FaultyOs::new(Unix)));
    area(heap, 40 * MIB).free(heap, None);
    tick(heap);
    assert_eq!(aside(heap), 40 * MIB);
    tick(heap);
    assert_eq!((aside(heap), heap.counter().usage()), (0, 0));

    let some = [33, 35, 37, 39].map(|mib| area(heap, mib * MIB));
    some.into_iter().for_each(|area| area.free(heap, None));
    assert_eq!(aside(heap), (33 + 35 + 37) * MIB, "four at the most, and 128 MiB");
    let other = area(heap, 64 * MIB);
    assert_eq!((aside(heap), heap.counter().usage()), (0, 64 * MIB));
    other.free(heap, None);
}

#[test]
fn nothing_is_set_aside_that_a_limit_needs() {
    let heap = with_kswapd(forever(FaultyOs::new(Unix)));
    // SAFETY: no block is used.
    unsafe { heap.set_limits(None, Limits { max: 128 * MIB, high: 80 * MIB, min: 0 }) }.unwrap();
    let some = [40, 60].map(|mib| area(heap, mib * MIB));
    some.into_iter().for_each(|area| area.free(heap, None));
    assert_eq!(aside(heap), 60 * MIB, "the first was freed beyond the soft limit");
    // Neither an object nor a run is refused for it.
    let runs: Vec<Block> = (0..110).filter_map(|_| Block::new(heap, None, layout(MIB, 8), 3)).collect();
    assert_eq!((runs.len(), aside(heap)), (110, 0));
    runs.into_iter().for_each(|run| run.free(heap, None));
    // SAFETY: no block is used.
    unsafe { heap.reclaim(None) };
    heap.audit(None).unwrap();
}

#[test]
fn what_is_set_aside_and_would_have_to_grow_beyond_the_limit_goes_back() {
    let heap = with_kswapd(forever(FaultyOs::new(Unix)));
    let mut shrunk = area(heap, 40 * MIB);
    assert!(shrunk.resize(heap, None, 33 * MIB), "it keeps its mapping");
    // SAFETY: no block is used.
    unsafe { heap.set_limits(None, Limits { max: 38 * MIB, high: 38 * MIB, min: 0 }) }.unwrap();
    shrunk.free(heap, None);
    assert_eq!(aside(heap), 33 * MIB);
    assert!(Block::new(heap, None, layout(40 * MIB, 8), 1).is_none());
    assert_eq!((aside(heap), heap.counter().usage()), (0, 0));
    area(heap, 37 * MIB).free(heap, None);
}

/// Class of bug: a page without access for which there is no place in a table. (Found by a random sequence: beyond the
/// thirty-second each was lost.)
#[test]
fn no_guard_is_lost_however_many_are_neither_opened_nor_taken_back() {
    for align in [8, 2 * CHUNK_SIZE] {
        let os = forever(FaultyOs::new(Unix));
        let heap = heap_on(os, None);
        heap.set_guard_pages(true);
        let area = layout(33 * MIB, align);
        // Not touched: three gigabytes, and what a sanitizer keeps of them.
        // SAFETY: no block of a thread is meant.
        let areas = [(); 100].map(|()| unsafe { heap.alloc(None, area) }.unwrap());
        os.plan(Plan::From(1));
        areas.into_iter().for_each(|ptr| {
            // SAFETY: live, of this layout.
            unsafe { heap.free(None, ptr, area) };
        });
        heap.validate(None).unwrap();
        let Stats { kept, own, reserved, area_bytes, .. } = heap.stats(None);
        assert!(area_bytes == 0 && kept >= 100 * 33 * MIB, "{kept}");
        assert_eq!(kept + own + reserved, os.mapped(), "all of it is known");
        // SAFETY: no block is used.
        unsafe { heap.reclaim(None) };
        assert_eq!(heap.stats(None).kept, kept, "refused once more");
        os.plan(Plan::Never);
        // What was kept is used again, and what is closed goes back.
        let again = Block::new(heap, None, layout(33 * MIB, align), 0).unwrap();
        again.free(heap, None);
        tick(heap);
        heap.audit(None).unwrap();
        let Stats { kept, own, reserved, .. } = heap.stats(None);
        assert_eq!((kept, own + reserved), (0, os.mapped()));
    }
}

/// Class of bug: memory that is lost because the system refuses while it is passed on.
#[test]
fn a_system_that_refuses_loses_nothing() {
    for call in [Call::Map, Call::Unmap, Call::Discard, Call::Guard, Call::Unguard, Call::AdviseHuge, Call::AdviseSmall]
    {
        let os = forever(FaultyOs::new(Unix));
        let heap = with_kswapd(os);
        heap.set_guard_pages(true);
        for round in 0..2 {
            let some = [40, 33, 50].map(|mib| area(heap, mib * MIB));
            os.plan(Plan::Kind(call));
            some.into_iter().for_each(|area| area.free(heap, None));
            let more: Vec<Block> =
                [38, 33, 70].into_iter().filter_map(|mib| Block::new(heap, None, layout(mib * MIB, 8), 9)).collect();
            tick(heap);
            heap.validate(None).unwrap_or_else(|what| panic!("{call:?}, round {round}: {what}"));
            more.into_iter().for_each(|area| area.free(heap, None));
            os.plan(Plan::Never);
            // SAFETY: no block is used.
            unsafe { heap.reclaim(None) };
            heap.audit(None).unwrap_or_else(|what| panic!("{call:?}, round {round}: {what}"));
            assert_eq!(heap.counter().usage(), 0);
        }
    }
}

/// Class of bug: memory that was asked for as zeros has small pages for whoever has it next, and the other way round.
#[test]
fn what_is_set_aside_has_huge_pages_if_its_next_owner_is_to_have_some() {
    let os = forever(FaultyOs::new(Unix));
    let heap = with_kswapd(os);
    let advised = || [Call::AdviseHuge, Call::AdviseSmall].map(|call| os.calls_of(call));
    Block::zeroed(heap, None, layout(40 * MIB, 8)).free(heap, None);
    assert_eq!(aside(heap), 40 * MIB);
    let [huge, small] = advised();
    for _ in 0..2 {
        area(heap, 40 * MIB).free(heap, None);
        assert_eq!(advised(), [huge + 1, small], "once");
    }
    heap.set_huge_pages(HugePages::Never);
    area(heap, 40 * MIB).free(heap, None);
    assert_eq!((aside(heap), advised()), (40 * MIB, [huge + 1, small + 1]));
    // What was left to the system may have some by its choice.
    heap.set_huge_pages(HugePages::Auto);
    Block::zeroed(heap, None, layout(60 * MIB, 8)).free(heap, None);
    heap.set_huge_pages(HugePages::Never);
    for _ in 0..2 {
        area(heap, 60 * MIB).free(heap, None);
        assert_eq!((aside(heap), advised()), (60 * MIB, [huge + 1, small + 2]), "once");
    }
}
