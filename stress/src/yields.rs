//! Yields: what happens in the race windows of the allocator, when it is built with hooks in them.
//!
//! Mostly nothing; now and then the thread lets others run, and rarely it sleeps, also while it holds a lock. Windows
//! of a few instructions become as long as a time slice.

use allocator_core::sync::{at_windows, Window};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

static SEED: AtomicU64 = AtomicU64::new(1);

// Without a destructor, so that it can be used to the very end of a thread.
thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });

/// From now on threads yield in windows. The seed chooses where, as seen from each thread; which thread gets which part
/// of it is up to the machine.
pub(crate) fn install(seed: u64) {
    SEED.store(seed | 1, Relaxed);
    at_windows(window);
}

fn window(_: Window) {
    let mut x = STATE.get();
    if x == 0 {
        x = SEED.fetch_add(0x9e37_79b9_7f4a_7c16, Relaxed); // even, so that it stays odd and is never zero
    }
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.set(x);
    match x >> 48 {
        0 => std::thread::sleep(Duration::from_micros(50)),
        1..=1023 => std::thread::yield_now(),
        _ => {}
    }
}
