//! The one door to atomics, cells and locks: loom's under `cfg(kmalloc_loom)`, the machine's otherwise, and these with a hook
//! in every race window under the feature `yields`.
//!
//! Nothing else in the crate names `core::sync`, `UnsafeCell` or `loom`. Loom's constructors are not `const`, and zeros
//! are no state of its atomics: [`const_unless_loom`], [`array_of`] and [`lay`] are for that.

#[cfg(kmalloc_loom)]
pub(crate) mod atomic;
mod mutex;
mod park;
#[cfg(all(not(kmalloc_loom), feature = "yields"))]
mod yielding;

pub use mutex::{Guard, Mutex, Rank, Ranked};
#[cfg(all(test, kmalloc_loom))]
pub(crate) use park::loom_park;
pub use park::Park;
#[cfg(all(not(kmalloc_loom), feature = "yields"))]
pub use yielding::{at_windows, Window};

/// What a thread sleeps on: a word as the system sees it, in front of any hook.
#[cfg(kmalloc_loom)]
pub(crate) use self::atomic::AtomicU32 as Word;
#[cfg(not(kmalloc_loom))]
pub(crate) use core::sync::atomic::AtomicU32 as Word;

use core::ptr::NonNull;

#[cfg(kmalloc_loom)]
pub(crate) use self::atomic::recheck;
#[cfg(kmalloc_loom)]
pub(crate) use loom::{cell::UnsafeCell, hint};

/// Figures that loom does not watch, since nothing depends on them but how much is kept, and what is counted; and
/// pointers that are written once, before one that it does watch.
pub(crate) use core::sync::atomic::{AtomicPtr as UnwatchedPtr, AtomicU32 as UnwatchedU32, AtomicU64 as UnwatchedU64};

/// A cell that loom does not watch: for memory that is reached by pointers, which leave its closures anyway.
pub(crate) use self::cell::UnsafeCell as UnwatchedUnsafeCell;
#[cfg(not(kmalloc_loom))]
pub(crate) use self::cell::UnsafeCell;
#[cfg(not(kmalloc_loom))]
pub(crate) use core::hint;
#[cfg(not(any(kmalloc_loom, feature = "yields")))]
pub(crate) use core::sync::atomic;
#[cfg(all(not(kmalloc_loom), feature = "yields"))]
pub(crate) mod atomic {
    pub(crate) use super::yielding::{fence, AtomicPtr, AtomicU32, AtomicU64, AtomicU8, AtomicUsize};
    pub(crate) use core::sync::atomic::Ordering;
}

/// `holds`: the answer of a look that is taken once more because another thread may have been in between. The models
/// must fail without it, so under loom the re-check of a name can be left out (`atomic.rs`).
#[cfg(not(kmalloc_loom))]
#[inline(always)]
pub(crate) fn recheck(_name: &str, holds: bool) -> bool {
    holds
}

/// Reads a pointer that no other thread changes, as a plain variable: the compiler makes such a load a part of the
/// instruction that needs the value, which it does not do with an atomic one. Others may read it meanwhile.
///
/// # Safety
/// No other thread changes it.
#[inline(always)]
pub(crate) unsafe fn read_own<T>(word: &atomic::AtomicPtr<T>) -> *mut T {
    #[cfg(not(kmalloc_loom))]
    // SAFETY: a valid pointer; a read races with no read, and by contract nobody else writes.
    return unsafe { *word.as_ptr() };
    #[cfg(kmalloc_loom)]
    return word.load(atomic::Ordering::Relaxed);
}

/// What is written before is written before what is written after, for a signal handler of the calling thread. No instruction.
#[inline(always)]
pub(crate) fn in_program_order() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

mod cell {
    /// `core`'s cell behind loom's closures, so that one spelling serves both.
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }
        #[inline(always)]
        #[cfg_attr(any(kmalloc_loom, not(feature = "alloc")), allow(dead_code))] // the reclamation scheme's
        pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
            look(self.0.get())
        }
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, edit: impl FnOnce(*mut T) -> R) -> R {
            edit(self.0.get())
        }
    }
}

/// A type that is laid over memory of zeros.
///
/// # Safety
/// With the machine's atomics, zeros are a valid value and the same as `zeroed()`.
pub(crate) unsafe trait Zeroed: Sized {
    /// What zeros are.
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self;
}

/// Lays `n` values in a row over memory of zeros. On the machine they are there already.
///
/// # Safety
/// The memory is aligned for them, long enough, holds zeros, and is the caller's alone.
pub(crate) unsafe fn lay<T: Zeroed>(memory: NonNull<u8>, n: usize) -> NonNull<T> {
    let first = memory.cast::<T>();
    // Not there at all on the machine: code that is not optimised would keep a value on the stack for it.
    #[cfg(kmalloc_loom)]
    for i in 0..n {
        // SAFETY: by contract there is room for `n` of them.
        let place = unsafe { first.as_ptr().add(i) };
        // SAFETY: by contract ours.
        unsafe { place.write(T::zeroed()) };
    }
    let _ = n;
    first
}

/// An array whose elements are made by this expression: of a constant, or one by one for loom's types.
macro_rules! array_of {
    ($len:expr, $element:ty, $make:expr) => {{
        #[cfg(not(kmalloc_loom))]
        {
            #[allow(clippy::declare_interior_mutable_const)] // an initialiser, copied into each place
            const ELEMENT: $element = $make;
            [ELEMENT; $len]
        }
        #[cfg(kmalloc_loom)]
        {
            core::array::from_fn::<$element, { $len }, _>(|_| $make)
        }
    }};
}
pub(crate) use array_of;

/// A `const fn` for the machine's types, a plain one for loom's, whose constructors are not `const`.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(kmalloc_loom))]
        #[allow(clippy::new_without_default)]
        $(#[$meta])* $vis const fn $($rest)*
        #[cfg(kmalloc_loom)]
        #[allow(clippy::new_without_default)]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_unless_loom;
