//! What Kmalloc's threads do to each other, counted: read-modify-writes, fences, locks taken, locks waited for.

use allocator_core::sync::{at_windows, Window};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Counts from now on.
pub(crate) fn begin() {
    at_windows(|what| {
        let place = match what {
            Window::Change => 0,
            Window::Fence => 1,
            Window::Lock => 2,
            Window::Wait => 3,
            Window::Look | Window::Tell => return,
        };
        COUNTS[place].fetch_add(1, Relaxed);
    });
}

/// Read-modify-writes, fences, locks taken, locks waited for. A lock is two of the first, or more if it is waited for.
pub(crate) fn so_far() -> [u64; 4] {
    std::array::from_fn(|place| COUNTS[place].load(Relaxed))
}
