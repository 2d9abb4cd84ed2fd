//! A plugin that carries a Kmalloc of its own: what `tests/plugin.rs` loads into a program that has another one.

use allocator_global::Kmalloc;
use std::alloc::Layout;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

/// Allocates `size` bytes from the plugin's heap.
#[no_mangle]
pub extern "C" fn plugin_alloc(size: usize) -> *mut u8 {
    match Layout::from_size_align(size.max(1), 8) {
        // SAFETY: the size is not zero.
        Ok(layout) => unsafe { std::alloc::alloc(layout) },
        Err(_) => std::ptr::null_mut(),
    }
}

/// Frees what `plugin_alloc` gave for this size.
///
/// # Safety
/// As for `dealloc`.
#[no_mangle]
pub unsafe extern "C" fn plugin_free(ptr: *mut u8, size: usize) {
    if let Ok(layout) = Layout::from_size_align(size.max(1), 8) {
        // SAFETY: by contract.
        unsafe { std::alloc::dealloc(ptr, layout) }
    }
}

/// Starts threads that allocate, and waits for them. Returns how many have a place in the plugin's heap then.
#[no_mangle]
pub extern "C" fn plugin_threads() -> usize {
    let sums = (0..8u64).map(|t| std::thread::spawn(move || (0..10_000).map(|n| n * t).collect::<Vec<u64>>().len()));
    let threads: Vec<_> = sums.collect();
    let lengths: usize = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    if lengths == 80_000 {
        Kmalloc::stats().threads
    } else {
        0
    }
}

/// Whether the plugin's heap has this address.
#[no_mangle]
pub extern "C" fn plugin_owns(ptr: *const u8) -> bool {
    Kmalloc::owns(ptr)
}

/// Whether the plugin's heap is valid.
#[no_mangle]
pub extern "C" fn plugin_valid() -> bool {
    Kmalloc::validate().is_ok()
}
