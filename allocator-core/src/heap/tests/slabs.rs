//! One slab, against the set of numbers that are free in it.

use super::*;
use crate::cache::Found;
use crate::error::Misuse;
use crate::slab::Slab;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Gives `test` a slab that no shard and no list knows, all of it free, and its heap.
fn with_new_slab(class: SizeClass, test: impl FnOnce(&'static Heap, NonNull<Slab>)) {
    static HEAP: std::sync::OnceLock<&'static Heap> = std::sync::OnceLock::new();
    let heap = HEAP.get_or_init(|| setup(false).heap);
    let zone = &heap.parts.zone;
    let pages = PageCount::new(class.slab_pages());
    let run = zone.alloc_pages(heap.caller(None), pages, Order::ZERO).unwrap();
    let map = zone.map_of(run.ptr.as_ptr());
    // SAFETY: the pages were just taken.
    let slab = unsafe { Slab::create(map, map.page_of(run.ptr.as_ptr() as usize), class, 0) };
    test(heap, slab);
    // SAFETY: nobody else knows it.
    unsafe { slab.as_ref() }.destroy(map);
    zone.free_pages(map, run.ptr.as_ptr() as usize, pages).unwrap();
}

/// Gives `test` such a slab.
fn with_slab(class: SizeClass, test: impl FnOnce(&mut Slab)) {
    // SAFETY: nobody else knows it.
    with_new_slab(class, |_, mut slab| test(unsafe { slab.as_mut() }));
}

fn put(slab: &mut Slab, class: SizeClass, objects: &[*mut u8]) -> usize {
    // SAFETY: a slab of this class.
    unsafe { slab.put(class.cut(), objects) }
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
const SIZES: [usize; 7] = [8, 32, 48, 512, 1000, 5000, 32 << 10];

/// What a batch is made of: pieces of objects in a row, upwards or downwards, or each somewhere else.
type Piece = (proptest::sample::Index, usize, i8);

fn numbers(piece: &Piece, objects: usize) -> Vec<usize> {
    let (at, len, step) = (piece.0.index(objects), piece.1, isize::from(piece.2));
    (0..len as isize).map_while(|i| at.checked_add_signed(i * step).filter(|number| *number < objects)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Class of bug: a bit that is not the object's, where several are set at a time.
    #[test]
    fn a_slab_is_the_set_of_its_free_objects(
        size in proptest::sample::select(&SIZES[..]),
        steps in proptest::collection::vec(
            (0usize..130, proptest::collection::vec((any::<proptest::sample::Index>(), 1usize..70, -3i8..=3), 0..6)),
            1..12,
        ),
    ) {
        let class = SizeClass::of(layout(size, 1)).unwrap();
        with_slab(class, |slab| {
            let objects = all_out(slab, class);
            let mut free = BTreeSet::new();
            for (n, pieces) in &steps {
                let batch: Vec<_> = pieces.iter().flat_map(|piece| numbers(piece, objects.len())).collect();
                let mut before = free.clone();
                // Up to the first that is free already.
                let good = batch.iter().take_while(|number| before.insert(**number)).count();
                let given: Vec<_> = batch.iter().map(|number| objects[*number]).collect();
                assert_eq!(put(slab, class, &given), good);
                free.extend(&batch[..good]);
                slab.validate().unwrap();
                assert_eq!((0..objects.len()).filter(|n| slab.is_free(*n)).collect::<BTreeSet<_>>(), free);

                let lowest: Vec<_> = free.iter().copied().take(*n).collect();
                assert_eq!(take(slab, *n), lowest.iter().map(|number| objects[*number]).collect::<Vec<_>>());
                lowest.iter().for_each(|number| assert!(free.remove(number)));
                slab.validate().unwrap();
            }
        });
    }
}

/// Class of bug: what is no object is taken for one because those before it are.
/// Class of bug: an object that is freed twice, the second time into a slab that somebody makes in its place, or has given up.
#[test]
fn a_slab_that_is_nobodys_takes_no_object() {
    let class = SizeClass::of(layout(48, 8)).unwrap();
    with_new_slab(class, |heap, mut slab| {
        // SAFETY: nobody else knows it, as below; the references end with their lines.
        let object = take(unsafe { slab.as_mut() }, 1)[0];
        let flush = || heap.parts.caches.flush(&heap.parts.zone, heap.caller(None), class, &[object]);
        let is_told = |flushed: Result<(), Found>| flushed.is_err_and(|found| found.misuse == Misuse::DoubleFree);
        assert!(is_told(flush()), "before a shard has it");
        // SAFETY: as above.
        unsafe { slab.as_mut() }.adopt(3);
        // SAFETY: as above.
        let [third, fourth] = [3, 4].map(|shard| unsafe { slab.as_ref() }.is_of(class, shard));
        assert!(third && !fourth);
        // SAFETY: as above.
        unsafe { slab.as_mut() }.disown();
        assert!(is_told(flush()), "after the shard has given it up");
        // SAFETY: as above.
        assert_eq!(unsafe { slab.as_ref() }.free(), class.slab_objects() - 1);
    });
}

#[test]
fn a_row_ends_before_what_is_no_object_and_what_is_free_already() {
    for size in SIZES {
        let class = SizeClass::of(layout(size, 1)).unwrap();
        with_slab(class, |slab| {
            let objects = all_out(slab, class);
            let behind = |n: usize| objects[0].wrapping_byte_add(n * class.size());
            let mut row: Vec<_> = (objects.len() - 5..objects.len() + 3).map(behind).collect();
            assert_eq!(put(slab, class, &row), 5, "upwards, over the end");
            assert_eq!(take(slab, 5), row[..5]);
            row.reverse();
            assert_eq!(put(slab, class, &row), 0, "downwards, from behind the end");
            let below: Vec<_> = (0..8).map(|i| objects[4].wrapping_byte_sub(i * class.size())).collect();
            assert_eq!(put(slab, class, &below), 5, "downwards, below the beginning");
            assert_eq!(put(slab, class, &objects[..6]), 0, "the first is free");
            assert_eq!(take(slab, 3), objects[..3]);
            assert_eq!(put(slab, class, &objects[..6]), 3, "the fourth is");
            let odd: Vec<_> = objects.iter().map(|object| object.wrapping_byte_add(1)).collect();
            assert_eq!(put(slab, class, &odd), 0, "none begins there");
            slab.validate().unwrap();
        });
    }
}
