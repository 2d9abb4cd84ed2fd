//! Slabs, against the set of numbers that are free in them: one alone, and those that batches go home to.

use super::*;
use crate::cache::Found;
use crate::error::Misuse;
use crate::slab::{Slab, MAX_ROW};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Gives `test` a slab that no shard and no list knows, all of it free, and its heap.
fn with_new_slab(class: SizeClass, test: impl FnOnce(&'static Heap, NonNull<Slab>)) {
    static HEAP: std::sync::OnceLock<&'static Heap> = std::sync::OnceLock::new();
    let heap = HEAP.get_or_init(|| setup(false).heap);
    let zone = &heap.parts.zone;
    let pages = PageCount::new(class.slab_pages());
    let run = zone.alloc_pages(heap.caller(None), pages, Order::ZERO, true).unwrap();
    let map = zone.map_of(run.ptr.as_ptr());
    // SAFETY: the pages were just taken.
    let slab = unsafe { Slab::create(map, map.page_of(run.ptr.as_ptr() as usize), class, true) };
    test(heap, slab);
    zone.free_pages(map, run.ptr.as_ptr() as usize, pages).unwrap();
}

/// Gives `test` such a slab.
fn with_slab(class: SizeClass, test: impl FnOnce(&mut Slab)) {
    // SAFETY: nobody else knows it.
    with_new_slab(class, |_, mut slab| test(unsafe { slab.as_mut() }));
}

fn put(slab: &mut Slab, number: usize, len: usize) -> bool {
    if len == 1 {
        // SAFETY: a number of an object.
        unsafe { slab.put(number) }
    } else {
        // SAFETY: numbers of objects.
        unsafe { slab.put_row(number, len) }
    }
}

fn take(slab: &mut Slab, n: usize) -> Vec<*mut u8> {
    let mut out = vec![null_mut(); n];
    let taken = slab.take(&mut out);
    assert!(out[..n - taken].iter().all(|slot| slot.is_null()), "filled from the end");
    out.split_off(n - taken).into_iter().rev().collect()
}

fn all_out(slab: &mut Slab, class: SizeClass) -> Vec<*mut u8> {
    let objects = take(slab, class.slab_objects() + 1);
    assert_eq!((objects.len(), slab.free()), (class.slab_objects(), 0));
    objects
}

/// Classes whose bits are a word, a part of one, and many, behind the header and elsewhere, in one page and in several.
const SIZES: [usize; 9] = [8, 32, 48, 512, 1000, 5000, 20 << 10, 24 << 10, 32 << 10];

/// Class of bug: an object that somebody has had is taken for zeros.
#[test]
fn an_object_is_fresh_once_and_none_is_after_several_were_taken_together() {
    for size in SIZES {
        let class = SizeClass::of(layout(size, 8)).unwrap();
        with_slab(class, |slab| {
            let (first, zeros) = slab.take_one().unwrap();
            assert!(zeros && put(slab, 0, 1));
            assert_eq!(slab.take_one(), Some((first, false)));
            for number in 1..class.slab_objects() {
                let expected = (first.wrapping_add(number * class.size()), number < 255);
                assert_eq!(slab.take_one(), Some(expected), "so many are known");
                slab.validate().unwrap();
            }
            assert_eq!((slab.take_one(), slab.free()), (None, 0));
        });
        with_slab(class, |slab| {
            assert_eq!(take(slab, 1).len(), 1);
            assert!(!slab.take_one().unwrap().1);
            slab.validate().unwrap();
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Class of bug: a bit that is not the object's, where several are set at a time.
    #[test]
    fn a_slab_is_the_set_of_its_free_objects(
        size in proptest::sample::select(&SIZES[..]),
        steps in proptest::collection::vec(
            (0usize..130, proptest::collection::vec((any::<proptest::sample::Index>(), 1usize..=MAX_ROW), 0..6)),
            1..12,
        ),
    ) {
        let class = SizeClass::of(layout(size, 1)).unwrap();
        with_slab(class, |slab| {
            let objects = all_out(slab, class);
            let mut free = BTreeSet::new();
            for (n, rows) in &steps {
                for (first, len) in rows {
                    let first = first.index(objects.len());
                    let row = first..objects.len().min(first + len);
                    let good = row.clone().all(|number| !free.contains(&number));
                    assert_eq!(put(slab, first, row.len()), good, "all of them or none");
                    free.extend(row.filter(|_| good));
                    slab.validate().unwrap();
                }
                assert_eq!((0..objects.len()).filter(|n| slab.is_free(*n)).collect::<BTreeSet<_>>(), free);

                let lowest: Vec<_> = free.iter().copied().take(*n).collect();
                assert_eq!(take(slab, *n), lowest.iter().map(|number| objects[*number]).collect::<Vec<_>>());
                lowest.iter().for_each(|number| assert!(free.remove(number)));
                slab.validate().unwrap();
            }
        });
    }
}

/// Takes all objects of some new slabs of a class, each of another shard, in the order of their addresses.
fn all_of_slabs(heap: &'static Heap, class: SizeClass, slabs: usize) -> Vec<*mut u8> {
    let mut objects = Vec::new();
    for shard in 0..slabs {
        let mut out = vec![null_mut(); class.slab_objects()];
        let refilled = heap.parts.caches.refill(&heap.parts.zone, heap.caller(None), class, shard, &mut out);
        assert_eq!(refilled.unwrap(), out.len());
        objects.append(&mut out);
    }
    objects.sort_unstable();
    objects
}

fn flush(heap: &'static Heap, class: SizeClass, objects: &[*mut u8]) -> Result<(), Found> {
    heap.parts.caches.flush(&heap.parts.zone, heap.caller(None), class, &mut objects.to_vec())
}

fn is_out(heap: &'static Heap, class: SizeClass, object: *mut u8) -> bool {
    heap.parts.caches.check_out(&heap.parts.zone, heap.caller(None), class, object).is_ok()
}

/// What a batch is made of: pieces of objects in a row, upwards or downwards, or each somewhere else.
type Piece = (proptest::sample::Index, usize, i8);

fn numbers(piece: &Piece, objects: usize) -> Vec<usize> {
    let (at, len, step) = (piece.0.index(objects), piece.1, isize::from(piece.2));
    (0..len as isize).map_while(|i| at.checked_add_signed(i * step).filter(|number| *number < objects)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Class of bug: an object that goes home with those before it, and is not theirs.
    #[test]
    fn objects_of_a_batch_go_home_each_to_its_own_place(
        size in proptest::sample::select(&SIZES[..]),
        pieces in proptest::collection::vec((any::<proptest::sample::Index>(), 1usize..70, -3i8..=3), 0..20),
    ) {
        let (class, heap) = (SizeClass::of(layout(size, 1)).unwrap(), setup(false).heap);
        let objects = all_of_slabs(heap, class, 3);
        let mut home = BTreeSet::new();
        let mut batch: Vec<_> = pieces.iter().flat_map(|piece| numbers(piece, objects.len())).collect();
        batch.retain(|number| home.insert(*number));
        flush(heap, class, &batch.iter().map(|number| objects[*number]).collect::<Vec<_>>()).unwrap();
        // Slabs of which nothing is out may have been given up.
        for (number, object) in objects.iter().enumerate() {
            assert_eq!(is_out(heap, class, *object), !home.contains(&number));
        }
        let rest: Vec<_> = (0..objects.len()).filter(|number| !home.contains(number)).map(|number| objects[number]).collect();
        flush(heap, class, &rest).unwrap();
        heap.validate(None).unwrap();
    }
}

/// Class of bug: an object that is freed twice, the second time into a slab that somebody makes in its place, or has given up.
#[test]
fn a_slab_that_is_nobodys_takes_no_object() {
    let class = SizeClass::of(layout(48, 8)).unwrap();
    with_new_slab(class, |heap, mut slab| {
        // SAFETY: nobody else knows it, as below; the references end with their lines.
        let row = take(unsafe { slab.as_mut() }, 3);
        let map = heap.parts.zone.map_of(row[0]);
        let told = || {
            let [one, all] = [&row[..1], &row[..]].map(|batch| flush(heap, class, batch).unwrap_err());
            assert_eq!((one.at, all.at), (row[0], row[0]));
            assert_eq!(one.misuse, all.misuse);
            one.misuse
        };
        assert_eq!(told(), Misuse::NotAStart, "before a shard has it");
        // SAFETY: as above.
        let this = unsafe { slab.as_ref() };
        // SAFETY: as above.
        unsafe { this.adopt(map, 3) };
        assert_eq!(cache::locate(&heap.parts.zone, row[1], class).unwrap().shard, 3);
        // SAFETY: as above.
        unsafe { this.disown(map) };
        assert_eq!(told(), Misuse::NotAStart, "after the shard has given it up");
        // SAFETY: as above.
        assert_eq!(unsafe { slab.as_ref() }.free(), class.slab_objects() - 3);
    });
}

/// Class of bug: what is no object is taken for one because those before it are.
#[test]
fn a_row_with_what_is_no_object_or_free_already_is_refused() {
    let heap = setup(false).heap;
    for size in SIZES.into_iter().filter(|size| SizeClass::of(layout(*size, 1)).unwrap().slab_objects() >= 4) {
        let class = SizeClass::of(layout(size, 1)).unwrap();
        // What is told of a batch made from a slab's objects, and where in it that is; the third one may be free already.
        let told = |freed: bool, batch: &dyn Fn(&[*mut u8]) -> Vec<*mut u8>| {
            let slab = all_of_slabs(heap, class, 1);
            flush(heap, class, &slab[2..2 + usize::from(freed)]).unwrap();
            let batch = batch(&slab);
            let found = flush(heap, class, &batch).unwrap_err();
            // Some of the others were taken.
            let out: Vec<_> = slab.into_iter().filter(|object| is_out(heap, class, *object)).collect();
            flush(heap, class, &out).unwrap();
            heap.validate(None).unwrap();
            (batch.iter().position(|object| *object == found.at).unwrap(), found.misuse)
        };
        let steps = |from: *mut u8, n: usize, step: isize| -> Vec<_> {
            (0..n as isize).map(|i| from.wrapping_byte_offset(i * step)).collect()
        };
        let (objects, size) = (class.slab_objects(), class.size() as isize);
        // What follows the last one is the rest of the slab, another slab or nothing.
        assert_eq!(told(false, &|slab| steps(slab[objects - 3], 4, size)).0, 3, "upwards, over the end");
        let behind = |slab: &[*mut u8]| slab[0].wrapping_byte_add(objects * class.size());
        assert_eq!(told(false, &|slab| steps(behind(slab), 4, -size)).0, 0, "downwards, from behind the end");
        assert_eq!(told(false, &|slab| steps(slab[3], 5, -size)).0, 4, "downwards, below the beginning");
        let odd = |slab: &[*mut u8]| steps(slab[0].wrapping_byte_add(1), 4, size);
        assert_eq!(told(false, &odd), (0, Misuse::NotAStart));

        assert_eq!(told(true, &|slab| vec![slab[2]]), (0, Misuse::DoubleFree), "alone");
        assert_eq!(told(true, &|slab| slab[..4].to_vec()), (2, Misuse::DoubleFree), "in a row");
        assert_eq!(told(true, &|slab| steps(slab[3], 4, -size)), (1, Misuse::DoubleFree), "in a row downwards");
        assert_eq!(told(false, &|slab| vec![slab[3], slab[3]]), (0, Misuse::DoubleFree), "twice in a batch");
    }
}
