//! Thread blocks: attach, detach, and a thread's end while others free into the same slab.

use super::*;
use crate::pcp::Idle;
use crate::size_class::SizeClass;
use crate::thread::Thread;
use crate::units::{Order, PageCount};

fn class() -> SizeClass {
    SizeClass::new(0).unwrap()
}

fn attach(world: &'static World) -> &'static Thread {
    let block = world.registry.attach(&world.memory, &world.zone.kept, 2, false).unwrap();
    world.touch(block.as_ptr() as usize);
    // SAFETY: blocks stay mapped as long as the world.
    unsafe { block.as_ref() }
}

fn detach(world: &'static World, block: &'static Thread) {
    world.touch(core::ptr::from_ref(block) as usize);
    // SAFETY: this thread has the block.
    unsafe { block.flush(&world.caches, &world.zone, world.alone()) }.unwrap();
    // SAFETY: it holds nothing any more.
    unsafe { world.registry.detach(&world.memory, block) };
}

/// Allocates one object by way of a block's sheaf.
fn alloc(world: &'static World, block: &'static Thread) -> usize {
    // SAFETY: this thread has the block.
    let object = match unsafe { block.sheaves().of(class()).pop() } {
        Some(object) => object,
        // SAFETY: as above.
        None => unsafe { block.refill(&world.caches, &world.zone, world.alone(), class(), 1) }.unwrap(),
    };
    world.touch(object.as_ptr() as usize);
    object.as_ptr() as usize
}

fn free(world: &'static World, block: &'static Thread, object: usize) {
    world.touch(object);
    let object = NonNull::new(object as *mut u8).unwrap();
    // SAFETY: this thread has the block, and the object.
    if !unsafe { block.sheaves().of(class()).push(object) } {
        // SAFETY: as above.
        unsafe { block.overflow(&world.caches, &world.zone, world.alone(), class(), object, 1) }.unwrap();
    }
}

fn rest(world: &'static World, live: usize, out: usize) {
    assert_eq!(world.registry.live(&world.memory), live);
    let usage = world.caches.usage(world.alone(), class());
    assert_eq!((usage.out, world.registry.cached(class())), (out, 0));
    world.rest(world.arenas() * 4 - usage.slabs);
}

#[test]
fn a_block_has_one_thread_at_a_time() {
    fn live_and_die(world: &'static World) -> usize {
        detach(world, attach(world));
        0
    }
    model(
        |_| vec![],
        [|w, _| live_and_die(w), |w, _| live_and_die(w), |w, _| core::ptr::from_ref(attach(w)) as usize],
        |w, _, _| assert_eq!(w.registry.live(&w.memory), 1),
    );
}

#[test]
fn who_walks_the_blocks_sees_each_whole() {
    model(
        |w| {
            attach(w);
            vec![]
        },
        // Of a class that nobody uses: the walk finds blocks, and nothing in them.
        [|w, _| core::ptr::from_ref(attach(w)) as usize, |w, _| w.registry.cached(SizeClass::new(1).unwrap())],
        |w, _, [_, cached]| assert_eq!((cached, w.registry.live(&w.memory)), (0, 2)),
    );
}

#[test]
fn a_thread_ends_while_another_frees_into_the_same_slab() {
    model(
        |w| {
            let block = attach(w);
            let mine = alloc(w, block);
            // What the sheaf holds beside it is of the same slab.
            let handed_over = alloc(w, block);
            vec![core::ptr::from_ref(block) as usize, mine, handed_over]
        },
        [
            |w, p| {
                // SAFETY: the block that `prepare` attached; this thread has it now.
                let block = unsafe { &*(p[0] as *const Thread) };
                free(w, block, p[1]);
                detach(w, block);
                0
            },
            |w, p| {
                w.touch(p[2]);
                w.caches.flush(&w.zone, w.alone(), class(), &mut [p[2] as *mut u8]).unwrap();
                0
            },
        ],
        |w, _, _| rest(w, 0, 0),
    );
}

#[test]
fn a_thread_that_ends_leaves_its_block_and_its_objects_to_others() {
    model(
        |w| {
            let block = attach(w);
            let object = alloc(w, block);
            vec![core::ptr::from_ref(block) as usize, object]
        },
        [
            |w, p| {
                // SAFETY: the block that `prepare` attached; this thread has it now.
                let block = unsafe { &*(p[0] as *const Thread) };
                free(w, block, p[1]);
                detach(w, block);
                0
            },
            |w, _| {
                let block = attach(w);
                let object = alloc(w, block);
                free(w, block, object);
                detach(w, block);
                0
            },
        ],
        |w, _, _| rest(w, 0, 0),
    );
}

#[test]
fn a_run_that_a_thread_keeps_is_its_own_or_whoever_takes_it() {
    const PAGE: PageCount = PageCount::new(1);

    fn run(address: usize) -> Idle {
        (NonNull::new(address as *mut u8).unwrap(), PAGE)
    }

    fn give_back(world: &'static World, run: Idle) -> usize {
        world.touch(run.0.as_ptr() as usize);
        world.zone.give_back_kept(run);
        1
    }

    model(
        |w| {
            let block = attach(w);
            assert!(block.pcp().take(PAGE).is_none() && block.pcp().wants(PAGE));
            let alloc = || w.zone.alloc_pages(w.alone(), PAGE, Order::ZERO, true).unwrap().ptr.as_ptr() as usize;
            vec![core::ptr::from_ref(block) as usize, alloc(), alloc()]
        },
        [
            |w, p| {
                // SAFETY: the block that `prepare` attached; this thread has it now.
                let block = unsafe { &*(p[0] as *const Thread) };
                w.touch(p[1]);
                assert_eq!(block.pcp().put(run(p[1])), None);
                let again = block.pcp().take(PAGE);
                w.touch(p[2]);
                assert_eq!(block.pcp().put(run(p[2])), None);
                let Some(again) = again else { return 0 };
                w.touch(again.as_ptr() as usize);
                // As if it were of another length.
                block.pcp().put((again, PAGE)).map_or(0, |other| give_back(w, other))
            },
            |w, _| w.registry.kept_runs().map(|run| give_back(w, run)).sum(),
        ],
        |w, p, given_back| {
            // SAFETY: as above.
            let block = unsafe { &*(p[0] as *const Thread) };
            let kept = block.pcp().empty().map_or(0, |run| give_back(w, run));
            assert_eq!((given_back.iter().sum::<usize>() + kept, given_back, kept), (2, given_back, kept));
            w.rest(w.arenas() * 4);
        },
    );
}
