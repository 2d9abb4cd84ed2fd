//! tls: the calling thread's pointer to its sheaves.
//!
//! # Algorithm
//! One pointer in static thread-local storage, initialised by the linker to sheaves without arrays: they are forever
//! empty and full, so a thread that never called takes the slow path without a test for it. On x86-64 the symbol is
//! defined here in assembly and read with the initial-exec model, which an executable's linker turns into local-exec:
//! two instructions. A `thread_local!` of a library crate would be compiled as a call that may clobber every register;
//! it is what other targets use.
//!
//! The symbol carries the version in its name, so that two versions of this crate can be in one binary.

use allocator_core::sheaf::Sheaves;
use core::mem::{align_of, size_of};

/// What the pointer says of a thread that has no block to use. Each state has sheaves without arrays of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not called yet.
    Fresh,
    /// It has ended, or could not get a block.
    Uncached,
    /// It is in the heap without a block.
    Guest,
    /// It is inside crossbeam-epoch.
    Library,
}

/// Frees that a thread without a block may begin with and not get one. A free of C may be a thread's last act, of memory that the C
/// library has allocated for other threads, and later than the destructor that takes a block back. The C library keeps some 40 MiB of
/// stacks, so it seldom frees more at once.
const FREES: usize = if cfg!(feature = "override") { 1000 } else { 0 };

/// In one place, so that one comparison tells them from blocks. Behind those of `State`: of threads that have freed so often, and called
/// for nothing else. Those begin as near to one another as they may: all of it is zeros for ever, and any of that is sheaves without arrays.
static STATES: [Sheaves; STATES_OF_STATE + STATES_OF_FREES] =
    [const { Sheaves::new() }; STATES_OF_STATE + STATES_OF_FREES];
const STATES_OF_STATE: usize = 4;
const STATES_OF_FREES: usize = if FREES == 0 { 0 } else { 1 + (FREES * STEP).div_ceil(size_of::<Sheaves>()) };
const STEP: usize = align_of::<Sheaves>();

/// What the calling thread has freed so far, if it has no block and has called for nothing else.
pub(crate) fn frees() -> Option<usize> {
    if State::Fresh.is_current() {
        return Some(0);
    }
    let behind = (get() as usize).wrapping_sub(STATES[STATES_OF_STATE..].as_ptr() as usize);
    (0..FREES * STEP).contains(&behind).then_some(behind / STEP + 1)
}

/// Notes so many frees of a thread without a block. False if it is to have one.
#[cfg(feature = "override")]
pub(crate) fn set_frees(frees: usize) -> bool {
    if frees > FREES {
        return false;
    }
    set(STATES[STATES_OF_STATE..].as_ptr().wrapping_byte_add((frees - 1) * STEP));
    true
}

impl State {
    /// What the pointer is in this state.
    #[inline]
    pub(crate) fn sheaves(self) -> *const Sheaves {
        &STATES[self as usize]
    }

    /// Whether the calling thread is in this state.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        get() == self.sheaves()
    }
}

/// Whether the pointer is a thread block's. It is null before thread-local storage is set up.
#[inline]
pub(crate) fn is_block(sheaves: *const Sheaves) -> bool {
    !STATES.as_ptr_range().contains(&sheaves) && (cfg!(not(feature = "override")) || !sheaves.is_null())
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
mod pointer {
    use super::{Sheaves, STATES};
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tdata.kmalloc, \"awT\", @progbits",
        ".p2align 3",
        ".globl __kmalloc_sheaves_0_1",
        ".hidden __kmalloc_sheaves_0_1",
        ".type __kmalloc_sheaves_0_1, @object",
        ".size __kmalloc_sheaves_0_1, 8",
        "__kmalloc_sheaves_0_1:",
        ".quad {fresh}",
        ".popsection",
        fresh = sym STATES, // the first of them is `State::Fresh`
    );

    #[inline(always)]
    pub(crate) fn get() -> *const Sheaves {
        let sheaves;
        // SAFETY: reads this thread's own pointer.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + __kmalloc_sheaves_0_1@GOTTPOFF]",
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) sheaves,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        sheaves
    }

    pub(crate) fn set(sheaves: *const Sheaves) {
        // SAFETY: writes this thread's own pointer.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + __kmalloc_sheaves_0_1@GOTTPOFF]",
                "mov qword ptr fs:[{0}], {1}",
                out(reg) _,
                in(reg) sheaves,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", not(miri))))]
mod pointer {
    extern crate std;

    use super::{Sheaves, STATES};
    use std::cell::Cell;

    // Without a destructor, so that it can be used until the thread is gone.
    std::thread_local!(static SHEAVES: Cell<*const Sheaves> = const { Cell::new(core::ptr::addr_of!(STATES).cast()) });

    #[inline]
    pub(crate) fn get() -> *const Sheaves {
        SHEAVES.with(Cell::get)
    }

    pub(crate) fn set(sheaves: *const Sheaves) {
        SHEAVES.with(|cell| cell.set(sheaves));
    }
}

pub(crate) use pointer::{get, set};

/// The calling thread's sheaves.
#[inline(always)]
pub(crate) fn sheaves() -> &'static Sheaves {
    // SAFETY: the pointer is one of the statics above or a thread block; blocks stay mapped for ever.
    unsafe { &*get() }
}
