//! Yielding: the machine's atomics, with a hook before each operation that a race can be made of. Only under the
//! feature `yields`, for the stress program.
//!
//! # Algorithm
//! Two threads can only disturb each other between two operations on words that both of them use: after a word was read
//! and before it is exchanged, after a word was changed and before its hints are, after a lock was taken and before it
//! is given back. Each of these windows ends with a read-modify-write, an Acquire load or a Release store. So the hook
//! is in the door that all atomics come through, at just these operations, and the algorithms need no hooks of their
//! own: none can be forgotten. Relaxed loads and stores go by without: they are the fast path, and hints.
//!
//! The hook is told which operation it is, and of locks that are taken and waited for: so it can count as well.
//!
//! Loom's build replaces the same door, and needs no hook: to it every operation is a point where threads may change.

use core::mem::transmute;
use core::ops::Deref;
use core::sync::atomic::{self as machine, Ordering, Ordering::Relaxed};

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// A read-modify-write.
    Change,
    /// An Acquire load.
    Look,
    /// A Release store.
    Tell,
    /// A fence.
    Fence,
    /// A lock is taken; its own operations come beside it.
    Lock,
    /// The thread sleeps until a lock is free.
    Wait,
}

static HOOK: machine::AtomicPtr<()> = machine::AtomicPtr::new(core::ptr::null_mut());

/// From now on `hook` runs before each operation that a race can be made of, in every thread, also while locks are
/// held. It may let others run, and must not allocate from a heap of this crate.
pub fn at_windows(hook: fn(Window)) {
    HOOK.store(hook as *mut (), Relaxed);
}

#[inline]
pub(crate) fn window(what: Window) {
    let hook = HOOK.load(Relaxed);
    if !hook.is_null() {
        // SAFETY: not null, so stored by `at_windows` from a function of this type.
        let hook: fn(Window) = unsafe { transmute(hook) };
        hook(what);
    }
}

/// `core`'s fence, after the hook.
#[inline]
pub fn fence(order: Ordering) {
    window(Window::Fence);
    machine::fence(order);
}

/// One method of an atomic, after the hook.
macro_rules! after_the_hook {
    ($value:ty: $($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(#[inline]
        pub fn $name(&self, $($argument: $type),*) -> $answer {
            window(Window::Change);
            self.0.$name($($argument),*)
        })*
    };
}

/// An atomic of the machine behind the hook; `$extra` are the operations that its kind has beside the common ones.
macro_rules! atomic {
    ($name:ident $(<$t:ident>)?, $value:ty, { $($extra:tt)* }) => {
        #[repr(transparent)]
        pub struct $name $(<$t>)? (machine::$name $(<$t>)?);

        #[allow(dead_code)] // every kind has all of them, whoever uses which
        impl $(<$t>)? $name $(<$t>)? {
            pub const fn new(value: $value) -> Self {
                Self(machine::$name::new(value))
            }

            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $value {
                if order != Relaxed {
                    window(Window::Look);
                }
                self.0.load(order)
            }

            #[inline(always)]
            pub fn store(&self, value: $value, order: Ordering) {
                if order != Relaxed {
                    window(Window::Tell);
                }
                self.0.store(value, order);
            }

            after_the_hook! { $value:
                swap(value: $value, order: Ordering) -> $value;
                compare_exchange(is: $value, new: $value, done: Ordering, failed: Ordering) -> Result<$value, $value>;
                compare_exchange_weak(is: $value, new: $value, done: Ordering, failed: Ordering)
                    -> Result<$value, $value>;
                $($extra)*
            }
        }

        /// What the system sleeps on is the machine's own.
        impl $(<$t>)? Deref for $name $(<$t>)? {
            type Target = machine::$name $(<$t>)?;
            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    };
}

macro_rules! integer {
    ($name:ident, $value:ty) => {
        atomic!($name, $value, {
            fetch_add(value: $value, order: Ordering) -> $value;
            fetch_sub(value: $value, order: Ordering) -> $value;
            fetch_and(value: $value, order: Ordering) -> $value;
            fetch_or(value: $value, order: Ordering) -> $value;
            fetch_max(value: $value, order: Ordering) -> $value;
        });
    };
}

integer!(AtomicU8, u8);
integer!(AtomicU32, u32);
integer!(AtomicU64, u64);
integer!(AtomicUsize, usize);
atomic!(AtomicPtr<T>, *mut T, {});
