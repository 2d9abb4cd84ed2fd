//! The scheme of the product: crossbeam-epoch, compiled for loom too.

use super::*;
use crate::reclaim::Epoch;
use loom::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Relaxed},
};

struct Shared {
    thing: AtomicPtr<Watched>,
    epoch: Epoch,
}

/// Reads the thing as a walker reads an arena: protected, by way of the pointer to it. False if it is not protected:
/// another is making the collector, and a walker would take the lock.
fn read(shared: &'static Shared) -> bool {
    with_own_slot(shared, |slot| {
        let mut look = || {
            // SAFETY: the memory stays until the run ends.
            if let Some(thing) = unsafe { shared.thing.load(Acquire).as_ref() } {
                thing.0.with(|_| ());
            }
        };
        // SAFETY: the slot is this thread's.
        unsafe { shared.epoch.protect(slot, &mut look) }
    })
}

/// Unlinks the thing and retires it.
fn retire(shared: &'static Shared) -> bool {
    with_own_slot(shared, |slot| {
        let thing = shared.thing.load(Relaxed);
        shared.thing.store(core::ptr::null_mut(), Relaxed);
        let garbage = Garbage { destroy, context: core::ptr::null(), object: thing.cast() };
        // SAFETY: the slot is this thread's; the pointer is gone.
        unsafe { shared.epoch.retire(slot, garbage) }
    })
}

fn with_own_slot<R>(shared: &'static Shared, run: impl FnOnce(&'static Slot) -> R) -> R {
    with_slot(|slot| {
        let result = run(slot);
        // SAFETY: the slot is this thread's, which is not protected.
        unsafe { shared.epoch.leave(slot) };
        result
    })
}

/// # Safety
/// `object` is a `Watched` that nobody can reach.
unsafe fn destroy(_: *const (), object: *mut ()) {
    // SAFETY: by contract. The memory stays, so that a reader that comes too late is loom's to find.
    let thing = unsafe { &*object.cast::<Watched>() };
    thing.0.with_mut(|_| ());
}

#[test]
fn crossbeam_destroys_nothing_under_a_protected_reader() {
    check(|| {
        let thing: *mut Watched = Box::into_raw(Box::new(Watched(UnsafeCell::new(0))));
        let shared = for_this_run(Shared { thing: AtomicPtr::new(thing), epoch: Epoch::beside() });
        let reader = loom::thread::spawn(move || read(shared));
        let retired = retire(shared);
        let protected = reader.join().unwrap();
        assert!(retired || protected, "at least the thread that makes the collector is served");
        // SAFETY: all threads have ended.
        unsafe { end_of_run(shared) };
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(thing) });
    });
}
