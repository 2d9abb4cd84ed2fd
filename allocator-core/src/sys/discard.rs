//! Discard: freeing the memory behind a range, and whether it can be taken for zeros then.
//!
//! `madvise(MADV_DONTNEED)` leaves zeros in private anonymous memory. But an emulator of Linux may answer that it has
//! done so, and do nothing: old versions of qemu-user did, with all ranges, or with those that are no whole pages of the machine
//! below. So after the first call that succeeds the range is looked at, and after the first with a range of finer alignment
//! again; a system that has lied once is not believed any more. Until then what may have been zero is left as zero.

use super::Os;
use crate::sync::atomic::{AtomicU8, Ordering::Relaxed};
use crate::sync::const_unless_loom;
use core::ptr::NonNull;

const UNKNOWN: u8 = 0;
const LYING: u8 = u8::MAX;

/// How fine the alignment of a range is: above `UNKNOWN`, and below `LYING`.
fn fineness(ptr: NonNull<u8>, len: usize) -> u8 {
    (u64::BITS - (ptr.as_ptr() as usize | len).trailing_zeros()) as u8
}

/// What is known of the system: up to which fineness it was honest, or that it lies. All zeros before anything is.
pub struct Discard(AtomicU8);

impl Discard {
    const_unless_loom! {
        /// Nothing is known.
        pub fn new() -> Self {
            Self(AtomicU8::new(UNKNOWN))
        }
    }

    /// Frees the memory behind a range. True if it reads as zeros now.
    ///
    /// # Safety
    /// As for [`Os::discard`]; the range is not empty.
    pub unsafe fn discard(&self, os: &dyn Os, ptr: NonNull<u8>, len: usize) -> bool {
        let word = ptr.cast::<u64>();
        let fineness = fineness(ptr, len);
        match self.0.load(Relaxed) {
            LYING => return false,
            // SAFETY: by contract.
            honest if fineness <= honest => return unsafe { os.discard(ptr, len) },
            // SAFETY: whole pages that are ours, and nobody needs what is in them.
            _ => unsafe { word.write_volatile(!0) },
        }
        // SAFETY: by contract.
        let done = unsafe { os.discard(ptr, len) };
        // SAFETY: as above.
        let zero = done && unsafe { word.read_volatile() } == 0;
        if done {
            self.0.fetch_max(if zero { fineness } else { LYING }, Relaxed);
        }
        if !zero {
            // A purge discards a whole chunk, some pages of which may be known to be zero; they are so still.
            // SAFETY: as above.
            unsafe { word.write_volatile(0) };
        }
        zero
    }
}
