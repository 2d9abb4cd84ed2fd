//! The list of arenas: growth, and retirement while others walk it.

use super::*;
use crate::buddy::Purge;
use crate::config::CHUNK_SIZE;
use crate::page::Backing;
use crate::units::{Order, PageCount};

fn alloc(world: &'static World, caller: Caller<'_>, pages: u32) -> usize {
    match world.zone.alloc_pages(caller, PageCount::new(pages), Order::ZERO, true) {
        Ok(run) => {
            world.memory.look(run.ptr);
            world.touch(run.ptr.as_ptr() as usize);
            run.ptr.as_ptr() as usize
        }
        Err(_) => 0,
    }
}

fn free(world: &'static World, address: usize, pages: u32) -> usize {
    world.touch(address);
    world.zone.free_pages(world.zone.map_of(address as *mut u8), address, PageCount::new(pages)).unwrap();
    0
}

/// Two arenas of a chunk each; the first is full, and so is the second up to `free_pages`.
fn second_has(world: &'static World, free_pages: u32) -> Vec<usize> {
    let first = alloc(world, world.alone(), 4);
    let second = alloc(world, world.alone(), 4);
    assert!(first != 0 && second != 0 && world.arenas() == 2);
    if free_pages > 0 {
        free(world, second, free_pages);
    }
    vec![first, second]
}

/// Looks at every arena: its memory, and its words.
fn walk(world: &'static World, caller: Caller<'_>) -> usize {
    let mut arenas = 0;
    world.zone.each_arena(caller, &mut |arena| {
        world.memory.look(arena.base());
        world.memory.look(NonNull::from(arena).cast());
        let _ = (arena.committed(), arena.buddy().free_pages());
        arenas += 1;
        true
    });
    arenas
}

fn retire(world: &'static World, caller: Caller<'_>) -> usize {
    world.zone.retire_empty(caller, false);
    0
}

#[test]
fn who_finds_a_new_arena_sees_all_of_it() {
    model(
        |w| vec![alloc(w, w.alone(), 4)],
        [|w, _| alloc(w, w.alone(), 1), |w, _| with_slot(|slot| walk(w, w.caller(slot)))],
        |w, _, [new, _]| {
            assert!(new != 0 && w.arenas() == 2);
            w.rest(3);
        },
    );
}

#[test]
fn who_finds_the_first_arena_sees_all_of_it() {
    model(
        |_| vec![],
        [|w, _| alloc(w, w.alone(), 1), |w, _| walk(w, w.alone())],
        |w, _, [new, _]| {
            assert!(new != 0 && w.arenas() == 1);
            w.rest(3);
        },
    );
}

#[test]
fn two_who_find_no_room_are_both_served() {
    model(
        |_| vec![],
        [|w, _| alloc(w, w.alone(), 1), |w, _| alloc(w, w.alone(), 1)],
        |w, _, [one, other]| {
            assert!(one != 0 && other != 0 && one != other);
            // A second arena, if one found nothing because the other had just opened the chunk.
            w.rest(w.arenas() * 4 - 2);
        },
    );
}

#[test]
fn an_arena_is_not_unmapped_under_a_protected_walker() {
    model(
        |w| second_has(w, 4),
        [|w, _| with_slot(|slot| walk(w, w.caller(slot))), |w, _| with_slot(|slot| retire(w, w.caller(slot)))],
        |w, _, _| {
            assert_eq!(w.arenas(), 1);
            w.rest(0);
        },
    );
}

#[test]
fn an_arena_is_not_unmapped_under_a_walker_with_the_lock() {
    model(
        |w| second_has(w, 4),
        [|w, _| walk(w, w.alone()), |w, _| retire(w, w.alone())],
        |w, _, _| {
            assert_eq!(w.arenas(), 1);
            w.rest(0);
        },
    );
}

#[test]
fn an_arena_is_not_unmapped_under_a_walker_that_has_no_slot() {
    model(
        |w| second_has(w, 4),
        [|w, _| walk(w, w.stranger()), |w, _| with_slot(|slot| retire(w, w.caller(slot)))],
        |w, _, _| {
            assert_eq!(w.arenas(), 1);
            w.rest(0);
        },
    );
}

#[test]
fn an_arena_is_retired_or_serves_but_not_both() {
    model(
        |w| second_has(w, 4),
        [|w, _| with_slot(|slot| alloc(w, w.caller(slot), 1)), |w, _| with_slot(|slot| retire(w, w.caller(slot)))],
        |w, _, [page, _]| {
            assert!(page != 0, "the system has memory");
            free(w, page, 1);
            assert_eq!(w.arenas(), 2);
            w.rest(4);
        },
    );
}

#[test]
fn an_arena_whose_last_page_comes_back_is_retired_now_or_later() {
    model(
        |w| second_has(w, 3),
        [|w, pages| free(w, pages[1] + 3 * 64, 1), |w, _| with_slot(|slot| retire(w, w.caller(slot)))],
        |w, _, _| {
            w.rest(if w.arenas() == 1 { 0 } else { 4 });
            with_slot(|slot| retire(w, w.caller(slot)));
            assert_eq!(w.arenas(), 1);
        },
    );
}

#[test]
fn an_arena_that_the_system_does_not_take_back_serves_again() {
    model(
        |w| {
            let pages = second_has(w, 4);
            w.memory.keeps_everything();
            pages
        },
        [|w, _| with_slot(|slot| retire(w, w.caller(slot))), |w, _| with_slot(|slot| alloc(w, w.caller(slot), 1))],
        |w, _, [_, page]| {
            assert!(page != 0);
            let arenas = w.arenas();
            w.rest(4 * (arenas - 1) - 1);
        },
    );
}

#[test]
fn an_arena_that_the_system_does_not_take_back_is_whole_when_it_is_linked_again() {
    model(
        |w| {
            let pages = second_has(w, 4);
            w.memory.keeps_everything();
            pages
        },
        [|w, _| with_slot(|slot| retire(w, w.caller(slot))), |w, _| with_slot(|slot| walk(w, w.caller(slot)))],
        |w, _, _| {
            assert_eq!(w.arenas(), 2);
            w.rest(4);
        },
    );
}

#[test]
fn nobody_is_refused_because_pages_are_in_transit() {
    model(
        |w| {
            w.memory.reservable(CHUNK_SIZE);
            let start = alloc(w, w.alone(), 4);
            free(w, start, 3);
            vec![start + 3 * 64]
        },
        [|w, last| free(w, last[0], 1), |w, _| alloc(w, w.alone(), 1)],
        |w, _, [_, page]| {
            assert!(page != 0, "three pages are free at every moment");
            w.rest(3);
        },
    );
}

/// Two arenas that the system has no more room beside, the second of which is empty.
fn no_more_room(world: &'static World) -> Vec<usize> {
    world.memory.reservable(2 * CHUNK_SIZE);
    second_has(world, 4)
}

#[test]
fn nobody_is_refused_because_an_arena_is_on_its_way_to_the_system() {
    model(
        no_more_room,
        [|w, _| with_slot(|slot| retire(w, w.caller(slot))), |w, _| with_slot(|slot| alloc(w, w.caller(slot), 1))],
        |w, _, [_, page]| {
            assert!(page != 0, "there is an arena, or room for one, at every moment");
            w.rest(3);
        },
    );
}

#[test]
fn nobody_is_refused_because_an_arena_is_on_its_way_to_the_system_and_back() {
    model(
        |w| {
            let pages = no_more_room(w);
            w.memory.keeps_everything();
            pages
        },
        [|w, _| with_slot(|slot| retire(w, w.caller(slot))), |w, _| with_slot(|slot| alloc(w, w.caller(slot), 1))],
        |w, _, [_, page]| {
            assert!(page != 0, "the arena comes back");
            w.rest(3);
        },
    );
}

#[test]
fn two_who_purge_and_take_see_zeros_where_it_is_said() {
    fn zeroed(world: &'static World) -> usize {
        let run = world.zone.alloc_pages(world.alone(), PageCount::new(1), Order::ZERO, true).unwrap();
        world.touch(run.ptr.as_ptr() as usize);
        // SAFETY: a page that this thread has.
        let first = unsafe { run.ptr.as_ptr().read() };
        assert!(!run.content.is_zeros() || first == 0, "a page that is said to be zero is not");
        1
    }
    model(
        |w| {
            w.memory.reservable(CHUNK_SIZE);
            let start = alloc(w, w.alone(), 4);
            // SAFETY: four pages that this thread has.
            unsafe { (start as *mut u8).write_bytes(0xa5, 4 * 64) };
            free(w, start, 2);
            vec![start + 2 * 64]
        },
        [|w, _| w.zone.purge(w.alone(), Purge::ALL) as usize, |w, pages| free(w, pages[0], 1) + zeroed(w)],
        |w, _, _| w.rest(2),
    );
}

fn discard(world: &'static World, address: usize, pages: u32) -> usize {
    let map = world.zone.map_of(address as *mut u8);
    world.zone.discard_pages(&world.memory, map, NonNull::new(address as *mut u8).unwrap(), PageCount::new(pages));
    0
}

fn ripen(world: &'static World) -> usize {
    world.zone.ripen(world.alone());
    0
}

/// Class of bug: a huge page that the system makes of a chunk a part of which went back, so that it is resident again.
#[test]
fn a_chunk_of_which_a_part_goes_back_while_kswapd_makes_it_huge_is_not_huge_in_the_end() {
    model(
        |w| {
            w.memory.takes_advice();
            let run = alloc(w, w.alone(), 4);
            ripen(w);
            vec![run, run + CHUNK_SIZE / 4]
        },
        [|w, _| ripen(w), |w, pages| discard(w, pages[0], 1), |w, pages| discard(w, pages[1], 1)],
        |w, pages, _| {
            let backing = w.zone.map_of(pages[0] as *mut u8).backing();
            assert!(backing == Backing::Small || backing == Backing::Broken, "{backing:?}");
            assert!(!w.memory.is_huge(pages[0]));
            free(w, pages[0], 4);
            w.rest(4);
        },
    );
}

/// Class of bug: memory that becomes resident later, and is not counted: a chunk that is to be a huge page, and of which one page counts.
#[test]
fn a_chunk_that_goes_back_and_is_opened_while_kswapd_makes_it_huge_is_counted_as_what_it_is() {
    model(
        |w| {
            w.memory.takes_advice();
            w.memory.reservable(CHUNK_SIZE);
            let run = alloc(w, w.alone(), 4);
            ripen(w);
            vec![run]
        },
        [
            |w, _| ripen(w),
            |w, pages| {
                discard(w, pages[0], 4);
                free(w, pages[0], 4);
                alloc(w, w.alone(), 1)
            },
        ],
        |w, _, [_, page]| {
            assert!(!w.memory.is_huge(page) || w.zone.counter.usage() == CHUNK_SIZE);
            free(w, page, 1);
            w.rest(4);
        },
    );
}
