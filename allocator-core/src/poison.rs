//! Poison: what AddressSanitizer is told of the memory that nobody has. Only with the feature `asan`, which needs
//! `-Zsanitizer=address`; without it nothing is done here.
//!
//! AddressSanitizer knows mappings, and takes every byte of an arena for usable. So everything in an arena that the
//! program does not have is *poisoned*: free pages, free objects, those in sheaves, and what is left of an object, run
//! or area behind the bytes that were asked for. Whoever touches it (use after free, overflow) is reported at once.

use core::ptr::NonNull;

/// Whether anything is done here.
pub const ON: bool = cfg!(feature = "asan");

#[cfg(feature = "asan")]
extern "C" {
    fn __asan_poison_memory_region(start: *const u8, len: usize);
    fn __asan_unpoison_memory_region(start: *const u8, len: usize);
}

/// Nobody may touch these bytes from now on.
#[inline(always)]
pub fn poison(ptr: NonNull<u8>, len: usize) {
    #[cfg(feature = "asan")]
    // SAFETY: changes the sanitizer's own memory only.
    unsafe {
        __asan_poison_memory_region(ptr.as_ptr(), len)
    };
    let _ = (ptr, len);
}

/// These bytes may be touched from now on.
#[inline(always)]
pub fn unpoison(ptr: NonNull<u8>, len: usize) {
    #[cfg(feature = "asan")]
    // SAFETY: changes the sanitizer's own memory only.
    unsafe {
        __asan_unpoison_memory_region(ptr.as_ptr(), len)
    };
    let _ = (ptr, len);
}

/// Of `room` bytes the first `size` may be touched from now on, and the others not.
#[inline(always)]
pub fn fit(ptr: NonNull<u8>, size: usize, room: usize) {
    if ON && size <= room {
        unpoison(ptr, size);
        // SAFETY: at most one past the room's last byte.
        poison(unsafe { ptr.add(size) }, room - size);
    }
}
