//! vmalloc, and what it gets its memory from.

use super::*;
use crate::mempool::Mempool;
use crate::page::Owner;

fn layout() -> Layout {
    Layout::from_size_align(crate::config::VMALLOC_THRESHOLD + 1, 1).unwrap()
}

fn alloc(world: &'static World) -> usize {
    let ptr = world.vmalloc.alloc(world.site(), layout(), true).unwrap().0.as_ptr() as usize;
    world.touch(ptr);
    ptr
}

fn free(world: &'static World, address: usize) -> usize {
    let ptr = NonNull::new(address as *mut u8).unwrap();
    match world.zone.table.owner(address) {
        // What two claim at once is what the model is about; it decides between them.
        Owner::Area(record) if world.vmalloc.claim(&world.zone.table, record, ptr, layout()).is_ok() => {
            // SAFETY: claimed.
            unsafe { world.vmalloc.release(world.site(), record, false) };
            1
        }
        _ => 0,
    }
}

#[test]
fn of_two_frees_of_an_area_one_finds_it() {
    model(
        |w| vec![alloc(w)],
        [|w, area| free(w, area[0]), |w, area| free(w, area[0])],
        |w, _, [first, second]| {
            assert_eq!((first + second, w.vmalloc.usage(&w.memory)), (1, (0, 0)));
            w.rest(0);
        },
    );
}

#[test]
fn who_frees_an_area_that_was_resized_meanwhile_does_not_get_it() {
    model(
        |w| vec![alloc(w)],
        [
            |w, area| free(w, area[0]),
            |w, area| {
                let Owner::Area(record) = w.zone.table.owner(area[0]) else { return 0 };
                let (ptr, new) =
                    (NonNull::new(area[0] as *mut u8).unwrap(), Layout::from_size_align(layout().size() - 1, 1));
                // SAFETY: two that claim to own it are what the model is about.
                let resized = unsafe { w.vmalloc.resize(w.site(), record, ptr, layout(), new.unwrap()) };
                usize::from(resized == Ok(Some(ptr)))
            },
        ],
        |w, area, [freed, resized]| {
            assert_eq!((freed + resized, w.vmalloc.usage(&w.memory).0), (1, resized));
            if resized == 1 {
                let Owner::Area(record) = w.zone.table.owner(area[0]) else { panic!("an area of ours") };
                let (ptr, new) =
                    (NonNull::new(area[0] as *mut u8).unwrap(), Layout::from_size_align(layout().size() - 1, 1));
                w.vmalloc.claim(&w.zone.table, record, ptr, new.unwrap()).unwrap();
                // SAFETY: claimed.
                unsafe { w.vmalloc.release(w.site(), record, false) };
            }
            w.rest(0);
        },
    );
}

#[test]
fn areas_made_and_freed_at_once_share_no_record() {
    model(
        |w| vec![alloc(w)],
        [|w, area| free(w, area[0]) + 1, |w, _| alloc(w), |w, _| alloc(w)],
        |w, _, [_, one, other]| {
            assert_eq!((free(w, one), free(w, other), w.vmalloc.usage(&w.memory)), (1, 1, (0, 0)));
            w.rest(0);
        },
    );
}

#[test]
fn what_is_set_aside_is_used_again_or_goes_back_and_stays_counted() {
    fn free_aside(world: &'static World, address: usize) -> usize {
        let ptr = NonNull::new(address as *mut u8).unwrap();
        let Owner::Area(record) = world.zone.table.owner(address) else { panic!("an area of ours") };
        world.vmalloc.claim(&world.zone.table, record, ptr, layout()).unwrap();
        // SAFETY: claimed.
        unsafe { world.vmalloc.release(world.site(), record, true) };
        0
    }
    model(
        |w| vec![alloc(w), alloc(w)],
        [
            |w, areas| free_aside(w, areas[0]),
            |w, areas| free_aside(w, areas[1]) + alloc(w),
            |w, _| w.vmalloc.age(w.site()).0 + w.vmalloc.age(w.site()).0,
        ],
        |w, _, [_, again, _]| {
            assert_eq!(w.zone.counter.usage(), w.vmalloc.charged_bytes(&w.memory));
            w.vmalloc.shrink(w.site());
            assert_eq!((free(w, again), w.vmalloc.usage(&w.memory), w.zone.counter.usage()), (1, (0, 0), 0));
            w.rest(0);
        },
    );
}

#[test]
fn who_finds_an_area_in_the_table_reads_its_start() {
    model(
        |w| {
            w.memory.next.store(0x1000, Relaxed);
            free(w, alloc(w));
            // Where the next area will begin.
            vec![w.memory.block.as_ptr() as usize + w.memory.next.load(Relaxed)]
        },
        [
            |w, next| (alloc(w) == next[0]) as usize,
            |w, next| match w.zone.table.holder(next[0]) {
                Owner::Area(record) => {
                    assert!(w.vmalloc.begins_at(record, next[0]), "an area that is being made is not recognised");
                    0
                }
                _ => 0,
            },
        ],
        |w, next, [as_planned, _]| assert_eq!((as_planned, free(w, next[0])), (1, 1)),
    );
}

#[test]
fn a_range_that_was_kept_is_handed_out_once() {
    fn map(world: &'static World) -> usize {
        let ptr = world.zone.kept.map(&world.memory, 64).unwrap().as_ptr() as usize;
        world.touch(ptr);
        ptr
    }
    model(
        |w| {
            w.memory.keeps_everything();
            let ptr = w.zone.kept.map(&w.memory, 64).unwrap();
            // SAFETY: just mapped.
            assert!(!unsafe { w.zone.kept.unmap(&w.memory, ptr, 64) });
            vec![ptr.as_ptr() as usize]
        },
        [|w, _| map(w), |w, _| map(w)],
        |w, kept, [one, other]| {
            assert!(one != other && (one == kept[0] || other == kept[0]));
            assert_eq!(w.zone.kept.bytes(&w.memory), 0);
        },
    );
}

#[test]
fn a_promise_is_kept_while_others_take_theirs() {
    check(|| {
        let world = for_this_run(World::new());
        let pool = for_this_run(Mempool::new());
        let threads = [(); 2].map(|()| {
            loom::thread::spawn(move || {
                assert!(pool.promise(&world.memory, &world.zone.kept));
                let elements = [(); 2].map(|()| pool.alloc(&world.memory).expect("promised"));
                elements.iter().for_each(|e| world.touch(e.as_ptr() as usize));
                // SAFETY: just taken.
                unsafe { pool.free(&world.memory, elements[0]) };
                pool.release(&world.memory);
                elements[1].as_ptr() as usize
            })
        });
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        assert!(one != other && pool.in_use(&world.memory) == 2);
        // SAFETY: all threads have ended.
        unsafe { end_of_run(pool) };
        // SAFETY: as above.
        unsafe { end_of_run(world) };
    });
}
