//! Sheaf: one thread's array of pointers to free objects of one class. The fast path.
//!
//! # Algorithm
//! `pop` and `push` move a pointer within an array: no atomic operation, no lock, no call, and the object is not
//! touched. A top no higher than the start means *empty*, one no lower than the end *full*. A sheaf without array has null for
//! all three pointers and so is empty and full at once: every call on it takes the slow path. That is the state of a thread
//! that is new, and of one that has ended, without a test for either. (Linux has sheaves per CPU since 6.18.)
//!
//! The tops of all sheaves lie side by side, and so do their starts and ends: a class number times the size of a word, which
//! is how x86 addresses memory anyway, is the way to all of them. `docs/fastpath.md` has the instructions.
//!
//! # Invariants
//! - Sh1: `start ≤ top ≤ end`, within one array, or all are null; the slots below `top` hold objects that are free, of this
//!   class, and in no other sheaf or slab.
//! - Sh2: only the owning thread changes a sheaf. Others may look at its pointers for statistics; hence atomics, with
//!   loads and stores that are plain moves, or plain loads by the owner (`sync::read_own`).

use crate::config::SHEAF_LIMIT;
use crate::size_class::{SizeClass, CLASSES};
use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{Relaxed, Release},
};
use crate::sync::{array_of, const_unless_loom, in_program_order, read_own, UnwatchedUnsafeCell};
use core::mem::size_of;
use core::ptr::{null_mut, NonNull};

/// A slot holds an object's address.
pub type Slot = *mut u8;

/// Slots for the arrays of sheaves. In a cell: references to the block around it live in every thread that reads statistics.
#[repr(transparent)]
pub struct Slots<const N: usize>(UnwatchedUnsafeCell<[Slot; N]>);

impl<const N: usize> Slots<N> {
    #[cfg_attr(not(any(test, kmalloc_loom)), allow(dead_code))] // mapped as zeros
    pub(crate) const fn new() -> Self {
        Self(UnwatchedUnsafeCell::new([null_mut(); N]))
    }

    /// The slot of this number, of which there is one or which is behind the last one.
    pub(crate) fn at(&self, slot: usize) -> *mut Slot {
        debug_assert!(slot <= N);
        self.0.with_mut(|slots| slots.cast::<Slot>()).wrapping_add(slot)
    }
}

/// The sheaves of all classes of one thread; what a thread-local pointer leads to.
#[repr(C, align(64))]
pub struct Sheaves {
    tops: [AtomicPtr<Slot>; CLASSES],
    ends: [AtomicPtr<Slot>; CLASSES],
    starts: [AtomicPtr<Slot>; CLASSES],
}

/// Free objects of one class: its three words in [`Sheaves`].
#[derive(Clone, Copy)]
pub struct Sheaf<'a> {
    top: &'a AtomicPtr<Slot>,
    end: &'a AtomicPtr<Slot>,
    start: &'a AtomicPtr<Slot>,
}

impl Sheaf<'_> {
    /// Takes the newest object.
    ///
    /// # Safety
    /// Only the owning thread calls it (Sh2); anyone may for a sheaf without array.
    #[inline(always)]
    pub unsafe fn pop(&self) -> Option<NonNull<u8>> {
        let top = self.top.load(Relaxed);
        // SAFETY: only the owning thread changes it, and nobody does if there is no array (Sh2).
        if top <= unsafe { read_own(self.start) } {
            return None;
        }
        // SAFETY: above the start of the array (Sh1).
        let newest = unsafe { top.sub(1) };
        // SAFETY: a slot below the top holds an object (Sh1).
        let object = unsafe { *newest };
        self.lower_top();
        // SAFETY: objects have addresses.
        Some(unsafe { NonNull::new_unchecked(object) })
    }

    /// Puts an object on top. False if the sheaf is full.
    ///
    /// # Safety
    /// As for [`Sheaf::pop`]; `object` is of this class, and the caller gives it up for good.
    #[inline(always)]
    pub unsafe fn push(&self, object: NonNull<u8>) -> bool {
        let top = self.top.load(Relaxed);
        // SAFETY: only the owning thread changes it, and nobody does if there is no array (Sh2).
        if top >= unsafe { read_own(self.end) } {
            return false;
        }
        // SAFETY: below the end, so inside the array (Sh1).
        unsafe { *top = object.as_ptr() };
        // Unlike in `pop`, by the pointer that is at hand: what comes next to this sheaf waits for this store.
        // Release: the child of a fork, which has the memory of one moment, must not see the top without the object.
        // SAFETY: as above.
        self.top.store(unsafe { top.add(1) }, Release);
        true
    }

    /// Lowers the top by a slot. It is read again for that, so that one instruction does it, a subtraction from memory.
    #[inline(always)]
    fn lower_top(&self) {
        self.top.store(self.top.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// Objects in it, at about this moment.
    #[inline]
    pub fn len(&self) -> usize {
        self.up_to(self.top)
    }

    /// True without objects, at about this moment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects that it may hold; zero without an array.
    pub fn capacity(&self) -> usize {
        self.up_to(self.end)
    }

    /// Slots below one of its pointers. Of another thread's sheaf, which may change its array meanwhile, no more than there may
    /// be.
    #[inline]
    fn up_to(&self, pointer: &AtomicPtr<Slot>) -> usize {
        let bytes = (pointer.load(Relaxed) as usize).saturating_sub(self.start() as usize);
        (bytes / size_of::<Slot>()).min(SHEAF_LIMIT)
    }

    /// Gives it an array and a capacity. It must be empty.
    ///
    /// # Safety
    /// Only the owning thread calls it; the array has so many slots, which stay and are nobody else's until it is detached.
    pub(crate) unsafe fn attach(&self, array: *mut Slot, capacity: usize) {
        debug_assert!(0 < capacity);
        self.detach();
        self.start.store(array, Relaxed);
        in_program_order();
        self.top.store(array, Relaxed);
        in_program_order();
        self.end.store(array.wrapping_add(capacity), Relaxed);
    }

    /// Takes its array away. It must be empty. After each step, here and in `attach`, it is empty and full: a signal handler that
    /// allocates in between comes to the gate, which knows that its thread is inside. Hence their order.
    pub(crate) fn detach(&self) {
        debug_assert!(self.is_empty());
        for pointer in [self.end, self.top, self.start] {
            pointer.store(null_mut(), Relaxed);
            in_program_order();
        }
    }

    /// Changes the capacity; no object may be above it.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        debug_assert!(self.len() <= capacity);
        self.end.store(self.start().wrapping_add(capacity), Relaxed);
    }

    /// The slots up to the capacity, objects first.
    ///
    /// # Safety
    /// Only the owning thread calls it, the sheaf has an array, and no other result of this is in use.
    #[allow(clippy::mut_from_ref)] // the array is the owning thread's; the sheaf only leads to it
    pub(crate) unsafe fn slots(&self) -> &mut [Slot] {
        // SAFETY: by contract; arrays are mapped as zeros, so every slot is initialised.
        unsafe { core::slice::from_raw_parts_mut(self.start(), self.capacity()) }
    }

    /// Says how many slots, from the first on, hold objects now.
    pub(crate) fn set_len(&self, len: usize) {
        debug_assert!(len <= self.capacity());
        self.top.store(self.start().wrapping_add(len), Relaxed);
    }

    /// The first slot of its array.
    pub(crate) fn start(&self) -> *mut Slot {
        self.start.load(Relaxed)
    }
}

impl Sheaves {
    const_unless_loom! {
        /// Sheaves without arrays: forever empty and full, until somebody attaches arrays.
        pub fn new() -> Self {
            Self {
                tops: array_of!(CLASSES, AtomicPtr<Slot>, AtomicPtr::new(null_mut())),
                ends: array_of!(CLASSES, AtomicPtr<Slot>, AtomicPtr::new(null_mut())),
                starts: array_of!(CLASSES, AtomicPtr<Slot>, AtomicPtr::new(null_mut())),
            }
        }
    }

    /// The sheaf of a class.
    #[inline(always)]
    pub fn of(&self, class: SizeClass) -> Sheaf<'_> {
        debug_assert!(class.index() < CLASSES);
        // SAFETY: a `SizeClass` is below `CLASSES` by construction.
        let top = unsafe { self.tops.get_unchecked(class.index()) };
        // SAFETY: as above.
        let end = unsafe { self.ends.get_unchecked(class.index()) };
        // SAFETY: as above.
        let start = unsafe { self.starts.get_unchecked(class.index()) };
        Sheaf { top, end, start }
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    #[test]
    fn a_sheaf_without_array_is_empty_and_full() {
        let sheaves = Sheaves::new();
        let sheaf = sheaves.of(SizeClass::new(0).unwrap());
        // SAFETY: no other thread knows it.
        assert!(unsafe { sheaf.pop() }.is_none());
        // SAFETY: as above; a dangling object is never used.
        assert!(!unsafe { sheaf.push(NonNull::dangling()) });
        assert_eq!((sheaf.len(), sheaf.capacity()), (0, 0));
    }

    #[test]
    fn objects_come_back_newest_first_up_to_the_capacity() {
        let sheaves = Sheaves::new();
        let sheaf = sheaves.of(SizeClass::new(0).unwrap());
        let array = Box::new(Slots::<SHEAF_LIMIT>::new());
        for capacity in [1, 2, SHEAF_LIMIT] {
            // SAFETY: no other thread knows it.
            unsafe { sheaf.attach(array.at(0), capacity) };
            let object = |i: usize| NonNull::new(core::ptr::null_mut::<u8>().wrapping_add(i * 8)).unwrap();
            for i in 1..=capacity {
                // SAFETY: no other thread knows it.
                assert!(unsafe { sheaf.push(object(i)) });
            }
            // SAFETY: as above.
            assert!(!unsafe { sheaf.push(object(99)) });
            assert_eq!((sheaf.len(), sheaf.capacity()), (capacity, capacity));
            for i in (1..=capacity).rev() {
                // SAFETY: as above.
                assert_eq!(unsafe { sheaf.pop() }, Some(object(i)));
            }
            // SAFETY: as above.
            assert!(unsafe { sheaf.pop() }.is_none());
            sheaf.detach();
        }
    }
}
