//! Reclaim: destroying what others may still be reading.
//!
//! A thread that walks the list of arenas may stand on one that another thread unlinks. The walker is *protected*; the
//! unlinker *retires* the arena, and it is destroyed when everyone who was protected at that moment has left.
//! [`Epoch`] does it with crossbeam-epoch. Whoever cannot be protected (no thread block, no memory for a handle)
//! walks under the lock of the list instead, which is just as safe: unlinking needs that lock.

#[cfg(feature = "alloc")]
mod epoch;
#[cfg(feature = "alloc")]
pub use epoch::{Epoch, Hooks};

use crate::sync::{const_unless_loom, UnsafeCell};

/// A thread's place in the reclamation scheme; all zeros before it is first used.
pub struct Slot {
    #[cfg_attr(not(feature = "alloc"), allow(dead_code))] // only the scheme knows what is in it
    handle: UnsafeCell<usize>,
}

impl Slot {
    const_unless_loom! {
        /// A place that was never used.
        pub fn new() -> Self {
            Self { handle: UnsafeCell::new(0) }
        }
    }
}

/// Something to be destroyed: `destroy(context, object)`.
#[derive(Clone, Copy)]
pub struct Garbage {
    /// What destroys it, without panicking.
    pub destroy: unsafe fn(*const (), *mut ()),
    /// Its first argument, which outlives the process's use of the heap.
    pub context: *const (),
    /// Its second argument.
    pub object: *mut (),
}

/// A reclamation scheme.
///
/// # Safety
/// What is retired is not destroyed while anyone is protected who was so when it was retired.
pub unsafe trait Reclaim: Sync {
    /// Runs `read` while nothing that is retired meanwhile is destroyed. False, and `read` did not run, if that cannot
    /// be promised now. Call it with no lock held: it may destroy other garbage.
    ///
    /// # Safety
    /// `slot` belongs to the calling thread.
    unsafe fn protect(&self, slot: &Slot, read: &mut dyn FnMut()) -> bool;

    /// Destroys `garbage` once everyone now protected has left. False, and nothing happened, if it cannot be
    /// remembered. Call it with no lock held.
    ///
    /// # Safety
    /// `slot` belongs to the calling thread; nobody who becomes protected from now on can reach the garbage; `destroy`
    /// may be called by any thread.
    unsafe fn retire(&self, slot: &Slot, garbage: Garbage) -> bool;

    /// Destroys what can be destroyed by now. Call it with no lock held.
    ///
    /// # Safety
    /// `slot` belongs to the calling thread, which is not protected.
    unsafe fn collect(&self, slot: &Slot);

    /// Gives the slot of a thread that ends back; it is as new afterwards.
    ///
    /// # Safety
    /// `slot` belongs to the calling thread, which is not protected.
    unsafe fn leave(&self, slot: &Slot);
}
