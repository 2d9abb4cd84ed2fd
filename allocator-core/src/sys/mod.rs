//! The operating system: every system call of the allocator is a method of [`Os`], and every one may fail.
//!
//! [`Unix`] is the real one; [`FaultyOs`] wraps another and refuses chosen calls. [`Kept`] holds what the system did
//! not take back; [`Discard`] knows whether to believe it. [`die`] is the end of a process that misused its memory.

#![cfg_attr(miri, allow(dead_code, unused_imports))] // most calls of `Unix`

#[cfg(any(feature = "raw", all(test, not(kmalloc_loom))))]
mod clock;
mod die;
mod discard;
mod faulty;
mod file;
#[cfg(miri)]
mod interpreted;
mod kept;
mod pagemap;
#[cfg(feature = "raw")]
mod raw;
mod unix;

pub use die::{die, warn, Line};
pub use discard::Discard;
pub use faulty::{Call, FaultyOs, Plan};
#[cfg(miri)]
pub use interpreted::as_mapped;
pub use kept::{Kept, Place};
pub use unix::{quietly, Unix};

use crate::sync::Park;
use core::ffi::CStr;
use core::ptr::NonNull;

/// The system calls under the allocator. A refusal is `None` or `false` and leaves everything as it was; `errno` is
/// never changed.
///
/// # Safety
/// What `map` and `reserve` return is a new mapping of that length and of whole pages, which nobody else uses or takes
/// away; memory reads as zeros where that is said.
pub unsafe trait Os: Park + Sync {
    /// Bytes in a page of the system: a power of two.
    fn page_size(&self) -> usize;

    /// `len` bytes in whole pages of the system.
    fn whole_pages(&self, len: usize) -> usize {
        let within = self.page_size() - 1;
        len.saturating_add(within) & !within
    }

    /// Processors that this process may use; at least 1.
    fn cpus(&self) -> usize;

    /// Bytes of memory and of swap that the machine has in all. `None`: the system does not say.
    fn total_memory(&self) -> Option<usize> {
        None
    }

    /// Maps `len` bytes (a multiple of the page size) of zeros, readable and writable.
    fn map(&self, len: usize) -> Option<NonNull<u8>>;

    /// Reserves `len` bytes of address space that cannot be touched and cost no memory.
    fn reserve(&self, len: usize) -> Option<NonNull<u8>>;

    /// Makes part of a reservation readable and writable; it holds zeros.
    ///
    /// # Safety
    /// The range is whole pages inside one reservation of ours.
    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool;

    /// Gives a range back to the system.
    ///
    /// # Safety
    /// The range is whole pages of mappings of ours, and nobody uses it any more, should the call succeed.
    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool;

    /// Frees the memory behind a range: it reads as zeros afterwards.
    ///
    /// # Safety
    /// The range is whole pages of a readable and writable mapping of ours whose content nobody needs.
    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool;

    /// Asks the system to back a range by huge pages as it is touched, where its huge pages are as long as a chunk, or
    /// (`huge` is false) not to. True if it will try to: not where huge pages are switched off. What is in the range does not
    /// change.
    ///
    /// # Safety
    /// The range is whole pages of a mapping of ours.
    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool;

    /// Whether there are huge pages of a chunk's length for who asks.
    fn has_huge_pages(&self) -> bool {
        true
    }

    /// Makes a range resident by one call, which costs a fraction of a fault for each page.
    ///
    /// # Safety
    /// The range is whole pages of a readable and writable mapping of ours.
    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool;

    /// Changes the length of a mapping where it lies.
    ///
    /// # Safety
    /// `ptr` and `len` are a whole mapping of ours that is readable and writable; a part that is cut off is unused.
    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool;

    /// Changes the length of a mapping and, if it must, moves it to where there is room. The system chooses the place:
    /// a target that was reserved before would be gone after some refusals, but not after others.
    ///
    /// # Safety
    /// As for [`Os::resize`]; where it was, nothing is left unless that is the answer.
    unsafe fn relocate(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> Option<NonNull<u8>>;

    /// Lets every access to a range end the process. Its content is lost.
    ///
    /// # Safety
    /// The range is whole pages of a mapping of ours that is readable and writable; nobody needs what is in it.
    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize) -> Option<Guarded>;

    /// Takes a guard away: the range is readable and writable again, and holds zeros or what was there.
    ///
    /// # Safety
    /// [`Os::guard`] gave this for this range, and nobody has taken the guard away since.
    unsafe fn unguard(&self, ptr: NonNull<u8>, len: usize, guarded: Guarded) -> bool;

    /// Gives a mapping a name that `/proc/PID/maps` shows.
    ///
    /// # Safety
    /// The range is whole pages of a mapping of ours.
    unsafe fn name(&self, ptr: NonNull<u8>, len: usize, name: &CStr) -> bool;

    /// How many bytes of whole pages are resident, in a range that is no longer than a chunk. `None`: the system does not say.
    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize>;

    /// Shows, from the lowest on, the ranges of whole pages that may hold something else than zeros, in private memory of
    /// ours. Returns how many bytes from `ptr` on it has told of, which may be none: what lies behind them may hold anything.
    ///
    /// A page is shown unless it reads as zeros for sure: because nothing was written into it since it was mapped or discarded. That
    /// one was brought in by a read alone, or went to the swap, makes no difference.
    fn written(&self, _ptr: NonNull<u8>, _len: usize, _show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        0
    }

    /// Reads the begin of a file of the system (in `/proc` or `/sys`): how many bytes that is.
    fn read(&self, path: &CStr, into: &mut [u8]) -> Option<usize>;

    /// Lets other threads run.
    fn yield_now(&self);

    /// Milliseconds since some moment, by a clock that costs next to nothing and moves every ten or so.
    fn now(&self) -> u64;
}

/// The pointer by which a block that the program gives back is handed on to the next owner. By Rust's rules as Miri knows them, the
/// program's may reach less than the block (a box's reaches what is in the box); on the machine a pointer is an address.
#[cfg(not(miri))]
#[inline(always)]
pub fn as_mapped(ptr: *mut u8) -> *mut u8 {
    ptr
}

/// How a range was made one that must not be touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarded {
    /// By advice, which splits no mapping (Linux 6.13).
    ByAdvice,
    /// It has no access.
    ByAccess,
}

/// A range of address space whose start is aligned, and the mapping that it lies in, which may be longer when the
/// system refused to take the slack back.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    /// The aligned range.
    pub ptr: NonNull<u8>,
    /// Start of the mapping.
    pub map: NonNull<u8>,
    /// Length of the mapping.
    pub map_len: usize,
}

impl Reservation {
    /// Reserves `len` bytes whose start is a multiple of `align`, both multiples of the page size, `align` a power
    /// of two. An unaligned answer of the system is traded for a longer one that is trimmed. `writable`: it can be used
    /// at once, and counts as memory in full; else it must be committed first.
    pub fn new(os: &dyn Os, kept: &Kept, len: usize, align: usize, writable: bool) -> Option<Self> {
        let ask = |len| if writable { os.map(len) } else { os.reserve(len) };
        let place = if writable { None } else { kept.place(os) };
        // Not tried where an unaligned answer could not be remembered, should the system not take it back.
        if writable || place.is_some() {
            let first = ask(len)?;
            if first.as_ptr() as usize & (align - 1) == 0 {
                return Some(Self { ptr: first, map: first, map_len: len });
            }
            match place {
                // SAFETY: just reserved, never used.
                Some(place) => unsafe { place.unmap(first, len) },
                // SAFETY: just mapped, never used.
                None => _ = unsafe { kept.unmap(os, first, len) },
            }
        }
        let long = len.checked_add(align)?;
        let map = ask(long)?;
        let head = (map.as_ptr() as usize).wrapping_neg() & (align - 1);
        // SAFETY: `head` is below `align`, so this is inside the mapping.
        let ptr = unsafe { map.add(head) };
        let mut this = Self { ptr, map, map_len: long };
        // SAFETY: the tail begins where the range ends, inside the mapping.
        let tail = unsafe { ptr.add(len) };
        let tail_len = long - head - len;
        // SAFETY: slack behind the range, never used.
        if unsafe { os.unmap(tail, tail_len) } {
            this.map_len -= tail_len;
        }
        // SAFETY: slack before the range, never used.
        if head != 0 && unsafe { os.unmap(map, head) } {
            this.map = ptr;
            this.map_len -= head;
        }
        Some(this)
    }
}
