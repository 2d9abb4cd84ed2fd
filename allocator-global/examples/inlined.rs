//! The four methods of `GlobalAlloc` as they are compiled into a user's crate: `ci/symbols.sh` looks at what they call.

use allocator_global::Kmalloc;
use std::alloc::{GlobalAlloc, Layout};

/// # Safety
/// A power of two, and a size that stays in bounds when it is rounded up to it.
unsafe fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: by contract.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

/// `GlobalAlloc::alloc`.
///
/// # Safety
/// As for the method.
#[no_mangle]
pub unsafe extern "C" fn inlined_alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { layout(size, align) };
    // SAFETY: by contract.
    unsafe { Kmalloc::new().alloc(layout) }
}

/// `GlobalAlloc::alloc_zeroed`.
///
/// # Safety
/// As for the method.
#[no_mangle]
pub unsafe extern "C" fn inlined_alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { layout(size, align) };
    // SAFETY: by contract.
    unsafe { Kmalloc::new().alloc_zeroed(layout) }
}

/// `GlobalAlloc::dealloc`.
///
/// # Safety
/// As for the method.
#[no_mangle]
pub unsafe extern "C" fn inlined_dealloc(ptr: *mut u8, size: usize, align: usize) {
    // SAFETY: by contract.
    let layout = unsafe { layout(size, align) };
    // SAFETY: by contract.
    unsafe { Kmalloc::new().dealloc(ptr, layout) }
}

/// `GlobalAlloc::realloc`.
///
/// # Safety
/// As for the method.
#[no_mangle]
pub unsafe extern "C" fn inlined_realloc(ptr: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 {
    // SAFETY: by contract.
    let layout = unsafe { layout(size, align) };
    // SAFETY: by contract.
    unsafe { Kmalloc::new().realloc(ptr, layout, new_size) }
}
