//! What time it is, without a system call each time.
//!
//! A call by its number takes ten times as long as the C library's function, which reads a page of the kernel's. But a slow free asks
//! each time. So the answer is kept with the *period* in which it was given, a thousandth of a second or less by the processor's
//! counter. In the same period it is still right, in another one the system is asked again.
//!
//! Period and answer are one word: no order with other memory is needed, and a thread that writes late writes an answer of a period
//! that is over. A period has 24 bits, so after some minutes or hours without a question an old answer may be taken for a new one, for
//! as long as a period; so may one of another processor whose counter is ahead, for as long as it is ahead. The time may go back by
//! that much.

use crate::sync::{atomic::Ordering::Relaxed, UnwatchedU64};

/// Bits of a word that are a period's.
const BITS: u32 = 24;

/// An answer and its period.
pub(super) struct Clock(UnwatchedU64);

impl Clock {
    pub(super) const fn new() -> Self {
        Self(UnwatchedU64::new(0))
    }

    /// Milliseconds by `ask`, which is asked once in each period. `None` for a processor whose counter is not known.
    pub(super) fn millis(&self, period: Option<u64>, ask: impl FnOnce() -> u64) -> u64 {
        let Some(period) = period else { return ask() };
        let period = period & ((1 << BITS) - 1);
        let last = self.0.load(Relaxed);
        if last != 0 && last & ((1 << BITS) - 1) == period {
            return last >> BITS;
        }
        let now = ask();
        self.0.store(now << BITS | period, Relaxed);
        now
    }
}

/// The period that it is.
#[cfg(target_arch = "x86_64")]
pub(super) fn period() -> Option<u64> {
    // 0.2 milliseconds with 5 GHz, one with 1 GHz.
    // SAFETY: every such processor counts.
    Some(unsafe { core::arch::x86_64::_rdtsc() } >> 20)
}

/// The period that it is.
#[cfg(target_arch = "aarch64")]
pub(super) fn period() -> Option<u64> {
    // 24 million to a thousand million in a second, by processor: 16 microseconds to 0.7 milliseconds.
    let count: u64;
    // SAFETY: Linux lets every program read it.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags)) };
    Some(count >> 14)
}

/// The period that it is.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn period() -> Option<u64> {
    None
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_asked_once_in_each_period() {
        let clock = Clock::new();
        let never = || panic!("asked");
        assert_eq!(clock.millis(Some(0), || 5), 5);
        assert_eq!(clock.millis(Some(0), never), 5);
        assert_eq!(clock.millis(Some(1), || 6), 6);
        assert_eq!(clock.millis(Some(1), never), 6);
        assert_eq!(clock.millis(Some(1 << BITS), || 8), 8, "another one than the last, whatever it was an hour ago");
        assert_eq!(clock.millis(None, || 9), 9);
        assert_eq!(clock.millis(None, || 10), 10);
    }

    #[test]
    fn periods_go_on() {
        let Some(first) = period() else { return };
        while period() == Some(first) {
            std::thread::yield_now();
        }
    }
}
