//! Epoch: reclamation by crossbeam-epoch, inside an allocator.
//!
//! # Algorithm
//! A collector of our own, made on first use; one handle per thread, in its [`Slot`]. Three properties of the library
//! shape the code. It allocates through the global allocator, which may be the very heap that is calling: the two
//! hooks tell the front end, which serves such requests from a pool of their own and in no other way. Its calls may
//! run garbage: they are made with no lock held. It cannot be told that there is no memory: `enter` refuses
//! beforehand, and the caller does without.
//!
//! # Invariants
//! - Ep1: every call into crossbeam-epoch is made between `enter` and `leave` of the hooks, but for what the protected
//!   closure itself does, which runs outside them.
//! - Ep2: `state` is `READY` ⇒ the collector is initialised, for good.

use super::{Garbage, Reclaim, Slot};
use crate::sync::atomic::{
    AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{const_unless_loom, UnsafeCell, UnwatchedU32};
use core::mem::{ManuallyDrop, MaybeUninit};
use crossbeam_epoch::{Collector, LocalHandle};

// A slot has room for it.
static_assertions::assert_eq_size!(LocalHandle, usize);
static_assertions::assert_eq_align!(LocalHandle, usize);

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const READY: u8 = 2;

/// What the front end does before and after a call into crossbeam-epoch.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// From now on this thread's allocations are crossbeam-epoch's. `None` if there is not enough memory set aside
    /// for what one call may need; otherwise what `leave` wants to know.
    pub enter: fn() -> Option<usize>,
    /// The opposite of `enter`, by the same thread, which is given what that gave.
    pub leave: unsafe fn(usize),
}

/// Reclamation by crossbeam-epoch.
pub struct Epoch {
    collector: UnsafeCell<MaybeUninit<Collector>>,
    state: AtomicU8,
    hooks: Hooks,
    /// Threads that have left since the last look for garbage.
    left: UnwatchedU32,
}

// SAFETY: the collector is written once, by the thread that moved `state` from `EMPTY` to `BUSY`, and read after
// `READY` only; a `Collector` may be shared.
unsafe impl Sync for Epoch {}

/// The scheme of a heap lives for ever, but a model ends.
#[cfg(kmalloc_loom)]
impl Drop for Epoch {
    fn drop(&mut self) {
        if self.state.load(Relaxed) == READY {
            self.collector.with_mut(|collector| {
                // SAFETY: nobody else is left.
                let collector = unsafe { &mut *collector };
                // SAFETY: Ep2.
                unsafe { collector.assume_init_drop() };
            });
        }
    }
}

/// Between `enter` and `leave` of the hooks.
struct Inside<'a>(&'a Hooks, usize);

impl<'a> Inside<'a> {
    fn enter(hooks: &'a Hooks) -> Option<Self> {
        (hooks.enter)().map(|state| Self(hooks, state))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // SAFETY: what `enter` gave to this thread: it is a call that both are in.
        unsafe { (self.0.leave)(self.1) };
    }
}

/// How often [`turn`] turns the epoch.
const TURNS: u32 = 3;

// The library moves bags of 2 KiB by value, several in a call. Each call is in a frame of its own, so that one is gone
// when the next begins, however much is inlined.

/// One turn of the epoch, if nobody else is protected.
#[inline(never)]
fn flush(handle: &LocalHandle) {
    handle.pin().flush();
}

/// Lets `garbage` be destroyed once everyone who is protected now has left.
///
/// # Safety
/// Nobody protected later can reach it.
#[inline(never)]
unsafe fn defer(handle: &LocalHandle, garbage: Garbage) {
    let guard = handle.pin();
    let destroy = move || {
        // SAFETY: by contract; everyone who was protected has left.
        unsafe { (garbage.destroy)(garbage.context, garbage.object) }
    };
    // SAFETY: by contract. Three words, so the closure is stored in place.
    unsafe { guard.defer_unchecked(destroy) };
    // Else it would wait for 63 others, which may never come.
    guard.flush();
}

/// Turns the epoch: often enough to see destroyed what was retired before, if nobody else is protected. Each time puts a
/// bag into the queue that garbage waits in, and takes up to eight out.
fn turn(handle: &LocalHandle) {
    for _ in 0..TURNS {
        flush(handle);
    }
}

impl Epoch {
    const_unless_loom! {
        /// A scheme of its own. Nothing is allocated before it is first used.
        pub fn new(hooks: Hooks) -> Self {
            Self { collector: UnsafeCell::new(MaybeUninit::uninit()), state: AtomicU8::new(EMPTY), hooks, left: UnwatchedU32::new(0) }
        }
    }

    const_unless_loom! {
        /// For a heap that is not the global allocator: crossbeam-epoch's own allocations are no concern of it.
        pub fn beside() -> Self {
            Self::new(Hooks { enter: || Some(0), leave: |_| {} })
        }
    }

    /// The collector, made if need be. `None` while another thread makes it. Between the hooks.
    fn collector(&self) -> Option<&Collector> {
        if self.state.load(Acquire) != READY {
            self.state.compare_exchange(EMPTY, BUSY, Relaxed, Relaxed).ok()?;
            let new = Collector::new();
            // SAFETY: only the thread that made it `BUSY` comes here, once, and nobody reads before `READY`.
            self.collector.with_mut(|collector| unsafe { (*collector).write(new) });
            self.state.store(READY, Release);
        }
        // SAFETY: Ep2.
        let collector = self.collector.with(|collector| unsafe { &*collector });
        // SAFETY: Ep2.
        Some(unsafe { collector.assume_init_ref() })
    }

    /// The calling thread's handle, registered if need be. Between the hooks.
    ///
    /// # Safety
    /// `slot` belongs to the calling thread.
    #[inline(never)]
    unsafe fn handle<'s>(&self, slot: &'s Slot) -> Option<&'s LocalHandle> {
        // SAFETY: by contract nobody else looks at it.
        if slot.handle.with_mut(|word| unsafe { *word }) == 0 {
            let handle = ManuallyDrop::new(self.collector()?.register());
            // SAFETY: as above; a handle is one word, which is a pointer and so never zero.
            slot.handle.with_mut(|word| unsafe { word.cast::<ManuallyDrop<LocalHandle>>().write(handle) });
        }
        // SAFETY: not zero, so it was written as a handle, which stays until `leave`.
        Some(slot.handle.with_mut(|word| unsafe { &*word.cast::<LocalHandle>() }))
    }

    /// Takes the [`turn`] of one look for garbage. False: the library may not allocate here, or there is no memory for it.
    ///
    /// # Safety
    /// `slot` belongs to the calling thread.
    unsafe fn look(&self, slot: &Slot) -> bool {
        let Some(_inside) = Inside::enter(&self.hooks) else { return false };
        // SAFETY: by contract.
        let Some(handle) = (unsafe { self.handle(slot) }) else { return false };
        turn(handle);
        true
    }
}

// SAFETY: protected is pinned, and garbage is deferred under a pin: crossbeam-epoch's own promise.
unsafe impl Reclaim for Epoch {
    unsafe fn protect(&self, slot: &Slot, read: &mut dyn FnMut()) -> bool {
        let guard = {
            let Some(_inside) = Inside::enter(&self.hooks) else { return false };
            // SAFETY: by contract.
            let Some(handle) = (unsafe { self.handle(slot) }) else { return false };
            handle.pin()
        };
        read();
        drop(guard); // stores to the handle's own words, and nothing else while the handle is registered
        true
    }

    unsafe fn retire(&self, slot: &Slot, garbage: Garbage) -> bool {
        let Some(_inside) = Inside::enter(&self.hooks) else { return false };
        // SAFETY: by contract.
        let Some(handle) = (unsafe { self.handle(slot) }) else { return false };
        // SAFETY: by contract.
        unsafe { defer(handle, garbage) };
        turn(handle);
        true
    }

    unsafe fn collect(&self, slot: &Slot) {
        if self.state.load(Relaxed) != READY {
            return; // nothing was ever retired
        }
        // Each thread that has left has put a bag into the queue, though an empty one, and garbage may lie behind them.
        let bags = self.left.swap(0, Relaxed);
        for turns in 0..=bags.div_ceil(7 * TURNS) {
            // Anew each time: what is set aside is enough for one.
            // SAFETY: by contract.
            if !unsafe { self.look(slot) } {
                self.left.fetch_add(bags.saturating_sub(turns * 7 * TURNS), Relaxed); // for whoever looks next
                return;
            }
        }
    }

    unsafe fn leave(&self, slot: &Slot) {
        // SAFETY: by contract nobody else looks at it.
        if slot.handle.with_mut(|word| unsafe { *word }) == 0 {
            return;
        }
        // Without memory for the library's last bag the handle stays registered, unpinned, for good: it harms nobody.
        let inside = Inside::enter(&self.hooks);
        // SAFETY: not zero, so a handle; it is taken out and the slot is as new.
        let mut handle = ManuallyDrop::new(slot.handle.with_mut(|word| unsafe { word.cast::<LocalHandle>().read() }));
        // SAFETY: as above.
        slot.handle.with_mut(|word| unsafe { word.write(0) });
        if inside.is_some() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut handle) };
            self.left.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use core::ptr::{addr_of, null_mut};
    use core::sync::atomic::AtomicUsize;
    use std::vec::Vec;

    /// Also where looks were refused before, at once or in the middle.
    #[test]
    fn what_waits_behind_a_thousand_threads_that_left_is_destroyed_by_one_look() {
        static DESTROYED: AtomicUsize = AtomicUsize::new(0);
        static ALLOWED: AtomicUsize = AtomicUsize::new(usize::MAX);
        unsafe fn count(_: *const (), _: *mut ()) {
            DESTROYED.fetch_add(1, Relaxed);
        }
        let enter = || ALLOWED.fetch_update(Relaxed, Relaxed, |allowed| allowed.checked_sub(1)).ok();
        let epoch = Epoch::new(Hooks { enter, leave: |_| {} });
        let (slot, reader) = (Slot::new(), Slot::new());
        let others: Vec<Slot> = (0..1000).map(|_| Slot::new()).collect();
        for other in &others {
            // SAFETY: the slots are this thread's.
            assert!(unsafe { epoch.protect(other, &mut || ()) });
        }
        let retire = || {
            for other in &others {
                // SAFETY: as above, and protected no more.
                unsafe { epoch.leave(other) };
            }
            let garbage = Garbage { destroy: count, context: addr_of!(DESTROYED).cast(), object: null_mut() };
            // SAFETY: nobody reaches it; `count` may be called anywhere.
            assert!(unsafe { epoch.retire(&slot, garbage) });
        };
        let mut retire = Some(retire);
        // SAFETY: as above.
        assert!(unsafe { epoch.protect(&reader, &mut || retire.take().into_iter().for_each(|retire| retire())) });
        assert_eq!(DESTROYED.load(Relaxed), 0, "somebody was protected");
        for allowed in [0, 1] {
            ALLOWED.store(allowed, Relaxed);
            // SAFETY: as above.
            unsafe { epoch.collect(&slot) };
            assert_eq!(DESTROYED.load(Relaxed), 0, "{allowed} turns are not enough");
        }
        ALLOWED.store(usize::MAX, Relaxed);
        // SAFETY: as above.
        unsafe { epoch.collect(&slot) };
        assert_eq!(DESTROYED.load(Relaxed), 1);
        for slot in [&slot, &reader] {
            // SAFETY: as above.
            unsafe { epoch.leave(slot) };
        }
    }
}
