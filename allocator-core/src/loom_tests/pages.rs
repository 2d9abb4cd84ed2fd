//! The address table and the memmap.

use super::*;
use crate::arena::Arena;
use crate::config::{CHUNK_SIZE, LEAF_SHIFT};
use crate::page::{Owner, Tag};
use crate::units::{Order, PageCount};

/// Windows that the models enter; mappings begin behind.
const WINDOWS: usize = 2 << LEAF_SHIFT;

/// The start of window number `n` of the block.
fn window(world: &World, n: usize) -> NonNull<u8> {
    assert!(n < WINDOWS);
    // SAFETY: inside the block.
    unsafe { world.memory.block.add(n * CHUNK_SIZE) }
}

/// Enters a record in window `n`, having written to it. An address that is aligned stands for the record.
fn enter(world: &'static World, n: usize) -> usize {
    let (at, record) = (window(world, n), window(world, n + 8));
    assert!(world.zone.table.prepare(&world.memory, &world.zone.kept, at, CHUNK_SIZE));
    world.touch(record.as_ptr() as usize);
    world.zone.table.set_area(at, record);
    0
}

/// Looks window `n` up and reads the record that it finds.
fn look_up(world: &'static World, n: usize) -> usize {
    match world.zone.table.owner(window(world, n).as_ptr() as usize) {
        Owner::Area(record) => {
            assert_eq!(record, window(world, n + 8));
            world.touch(record.as_ptr() as usize);
            1
        }
        Owner::Chunk(_) => panic!("no chunk was entered"),
        Owner::Nobody => 0,
    }
}

fn nothing(world: &'static World) -> Vec<usize> {
    world.memory.next.store(WINDOWS * CHUNK_SIZE, Relaxed);
    Vec::new()
}

#[test]
fn two_who_prepare_one_leaf_lose_no_window() {
    model(nothing, [|w, _| enter(w, 1), |w, _| enter(w, 2)], |w, _, _| {
        assert_eq!((look_up(w, 1), look_up(w, 2), look_up(w, 3)), (1, 1, 0));
    });
}

#[test]
fn who_finds_a_record_in_the_first_leaf_sees_what_is_in_it() {
    model(nothing, [|w, _| enter(w, 1), |w, _| look_up(w, 1)], |w, _, _| assert_eq!(look_up(w, 1), 1));
}

#[test]
fn who_finds_a_record_in_a_new_leaf_sees_what_is_in_both() {
    /// The first leaf, which is no mapping, is for other windows.
    fn without_the_first(world: &'static World) -> Vec<usize> {
        assert!(world.zone.table.prepare(&world.memory, &world.zone.kept, window(world, 1 << LEAF_SHIFT), 1));
        nothing(world)
    }
    model(without_the_first, [|w, _| enter(w, 1), |w, _| look_up(w, 1)], |w, _, _| assert_eq!(look_up(w, 1), 1));
}

#[test]
fn a_leaf_that_two_hold_is_for_one_of_them_and_for_whoever_comes_next() {
    fn enter_with(world: &'static World, n: usize) -> usize {
        let (table, at, record) = (&world.zone.table, window(world, n), window(world, n + 8));
        let leaf = table.hold_leaf(&world.memory, &world.zone.kept).unwrap();
        table.prepare_with(&world.memory, &world.zone.kept, leaf, at);
        world.touch(record.as_ptr() as usize);
        table.set_area(at, record);
        look_up(world, n)
    }
    const OTHER: usize = 1 << LEAF_SHIFT;
    model(nothing, [|w, _| enter_with(w, 1), |w, _| enter_with(w, 2), |w, _| enter_with(w, OTHER)], |w, _, found| {
        assert_eq!(found, [1, 1, 1]);
        assert_eq!((look_up(w, 1), look_up(w, 2), look_up(w, OTHER), look_up(w, OTHER + 1)), (1, 1, 1, 0));
    });
}

#[test]
fn who_asks_about_an_address_in_a_new_chunk_sees_its_map() {
    fn arena(address: usize) -> &'static Arena {
        // SAFETY: an arena that `prepare` made; it is there as long as the world.
        unsafe { &*(address as *const Arena) }
    }
    model(
        |w| {
            let arena = Arena::create(w.ground(), &w.zone.kept, 1, false, false).unwrap();
            vec![arena.as_ptr() as usize]
        },
        [
            |w, a| arena(a[0]).commit(&w.zone.kept, &w.zone.table, 1) as usize,
            // Anybody may ask about any address: a pointer that is freed may be wrong.
            |w, a| match w.zone.table.owner(arena(a[0]).base().as_ptr() as usize) {
                Owner::Chunk(map) => {
                    assert_eq!((map.base(), map.tag(0)), (arena(a[0]).base().as_ptr(), Tag::NONE));
                    1
                }
                _ => 0,
            },
        ],
        |_, a, [committed, _]| {
            assert_eq!(committed, 1);
            arena(a[0]).validate().unwrap();
        },
    );
}

/// The chunk's map and the page of an address that was handed out.
fn free_run(world: &'static World, address: usize, pages: PageCount) -> usize {
    let map = world.zone.map_of(address as *mut u8);
    if !map.replace_tag(map.page_of(address), Tag::run(pages), Tag::NONE) {
        return 0;
    }
    world.touch(address);
    world.zone.free_pages(map, address, pages).unwrap();
    1
}

#[test]
fn of_two_frees_of_a_run_one_finds_its_tag() {
    model(
        |w| {
            let run = w.zone.alloc_pages(w.alone(), PageCount::new(2), Order::ZERO, true).unwrap();
            let map = w.zone.map_of(run.ptr.as_ptr());
            map.set_tag(map.page_of(run.ptr.as_ptr() as usize), Tag::run(PageCount::new(2)));
            vec![run.ptr.as_ptr() as usize]
        },
        [|w, run| free_run(w, run[0], PageCount::new(2)), |w, run| free_run(w, run[0], PageCount::new(2))],
        |w, _, [first, second]| {
            assert_eq!(first + second, 1);
            w.rest(4);
        },
    );
}
