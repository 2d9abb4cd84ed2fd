//! Slabs and caches: lists and counts under the lock of a shard, and what happens between two holders of it.

use super::*;
use crate::size_class::SizeClass;

/// Eight objects of eight bytes are a slab of one page.
const OBJECTS: usize = 8;

fn class() -> SizeClass {
    SizeClass::new(0).unwrap()
}

/// Takes `n` objects by way of a shard, or fewer, and touches them.
fn refill(world: &'static World, shard: usize, n: usize) -> Vec<usize> {
    let mut out = [core::ptr::null_mut(); OBJECTS];
    let taken = world.caches.refill(&world.zone, world.alone(), class(), shard, &mut out[..n]).unwrap();
    let objects: Vec<_> = out[n - taken..n].iter().map(|o| *o as usize).collect();
    objects.iter().for_each(|o| world.touch(*o));
    objects
}

fn flush(world: &'static World, objects: &[usize]) -> usize {
    objects.iter().for_each(|o| world.touch(*o));
    let mut batch: Vec<_> = objects.iter().map(|o| *o as *mut u8).collect();
    world.caches.flush(&world.zone, world.alone(), class(), &mut batch).unwrap();
    0
}

/// Checks that so many objects are out, and that nothing is lost.
fn rest(world: &'static World, out: usize, pages: usize) {
    let usage = world.caches.usage(world.alone(), class());
    assert_eq!(usage.out, out, "objects were lost, or won");
    let arenas = world.arenas();
    world.rest(arenas * 4 - usage.slabs);
    assert_eq!(usage.slabs, pages);
}

/// A slab whose objects are all out.
fn full(world: &'static World) -> Vec<usize> {
    refill(world, 0, OBJECTS)
}

#[test]
fn s1_two_flushes_into_one_full_slab_put_it_on_its_list() {
    model(full, [|w, o| flush(w, &o[..3]), |w, o| flush(w, &o[3..6])], |w, _, _| rest(w, 2, 1));
}

#[test]
fn s1_two_flushes_that_empty_a_slab_leave_it_once() {
    model(full, [|w, o| flush(w, &o[..4]), |w, o| flush(w, &o[4..])], |w, _, _| rest(w, 0, 1));
}

#[test]
fn s2_a_refill_gets_what_flushes_gave_or_a_slab_of_its_own() {
    model(
        full,
        [|w, o| flush(w, &o[..1]), |w, o| flush(w, &o[1..2]), |w, _| refill(w, 0, 1).len()],
        |w, _, [.., n]| {
            let slabs = w.caches.usage(w.alone(), class()).slabs;
            assert!(slabs <= 2 && n == 1);
            rest(w, OBJECTS - 2 + n, slabs);
        },
    );
}

#[test]
fn s3_two_refills_of_one_shard_share_no_object() {
    model(
        |_| vec![],
        [|w, _| refill(w, 0, 5).len(), |w, _| refill(w, 0, 5).len()],
        |w, _, [one, other]| {
            let slabs = w.caches.usage(w.alone(), class()).slabs;
            rest(w, one + other, slabs);
        },
    );
}

#[test]
fn s4_an_empty_slab_leaves_while_another_refills() {
    model(
        |w| {
            // One empty slab is what a shard keeps; the next one that empties must go.
            let mut objects = full(w);
            objects.extend(full(w));
            flush(w, &objects[OBJECTS..]);
            objects
        },
        [|w, o| flush(w, &o[..OBJECTS]), |w, _| refill(w, 0, 2).len()],
        |w, _, [_, n]| {
            let slabs = w.caches.usage(w.alone(), class()).slabs;
            assert!(n == 2 && (1..=2).contains(&slabs));
            rest(w, 2, slabs);
        },
    );
}

#[test]
fn s5_a_page_of_a_slab_that_left_is_somebody_elses() {
    model(
        |w| {
            let mut objects = full(w);
            objects.extend(full(w));
            flush(w, &objects[OBJECTS..]);
            objects
        },
        [
            |w, o| flush(w, &o[..OBJECTS]),
            // A slab of the other shard, made of the page that the first one leaves or of another.
            |w, _| refill(w, 1, 2).len(),
        ],
        |w, _, [_, n]| rest(w, n, 2),
    );
}

#[test]
fn s6_objects_go_home_to_the_shard_that_made_them() {
    model(
        |w| {
            let mut objects = refill(w, 0, 2);
            objects.extend(refill(w, 1, 2));
            objects
        },
        [|w, o| flush(w, &[o[0], o[2]]), |w, o| flush(w, &[o[3], o[1]])],
        |w, _, _| rest(w, 0, 2),
    );
}

#[test]
fn s7_a_shrink_takes_empty_slabs_and_no_others() {
    model(
        |w| {
            let objects = full(w);
            flush(w, &objects);
            objects
        },
        [|w, _| w.caches.shrink(&w.zone, w.alone(), 2).unwrap(), |w, _| refill(w, 0, 1).len()],
        |w, _, [pages, n]| {
            assert!(pages <= 1 && n == 1);
            rest(w, 1, 1);
        },
    );
}

/// A page of the system that holds two objects.
const SYSTEM_PAGE: usize = 16;

/// A slab of which all but the last two objects are free, and that rests. Those two.
fn resting(world: &'static World) -> Vec<usize> {
    let objects = full(world);
    flush(world, &objects[..OBJECTS - 2]);
    assert_eq!(world.caches.lay_to_rest(world.alone(), class(), 0), 1);
    objects[OBJECTS - 2..].to_vec()
}

fn hollow(world: &'static World) -> usize {
    world.caches.hollow(&world.zone, world.alone(), class(), 0, SYSTEM_PAGE).unwrap().unwrap_or(0)
}

#[test]
fn s8_memory_of_an_object_that_is_out_is_not_freed_with_the_holes() {
    model(resting, [|w, _| hollow(w), |w, _| refill(w, 0, 3).len()], |w, _, [bytes, n]| {
        // Some object was out in the holes, or the whole slab was: then there is another.
        let slabs = w.caches.usage(w.alone(), class()).slabs;
        assert!([0, 16, 32, 48].contains(&bytes) && n == 3 && slabs <= 2);
        rest(w, 2 + n, slabs);
    });
}

#[test]
fn s9_a_slab_stays_while_its_holes_are_taken_and_leaves_when_they_are_back() {
    model(
        |w| {
            // The empty slab that a shard keeps.
            let other = full(w);
            let out = resting(w);
            flush(w, &other);
            out
        },
        [|w, _| hollow(w), |w, o| flush(w, &o[..1]), |w, o| flush(w, &o[1..])],
        |w, _, _| rest(w, 0, 1),
    );
}

#[test]
fn s9_two_looks_share_no_hole() {
    model(resting, [|w, _| hollow(w), |w, _| hollow(w), |w, o| flush(w, &o[..1])], |w, _, [one, other, _]| {
        assert!(one + other == 0 || one + other == 48, "{one} and {other} bytes");
        rest(w, 1, 1);
    });
}
