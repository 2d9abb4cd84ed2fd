//! zeroing: making memory read as zeros that may hold anything.
//!
//! # Algorithm
//! What is cleared becomes resident, and of a long block that is asked for as zeros often little is written: tables, sets of
//! bits, buffers for the worst case. When such a block is freed, most of its pages have no memory behind them still, but which
//! they are only the system knows. So of long blocks it is asked which pages may hold anything ([`Os::written`]), and only
//! those are cleared: the others read as zeros, and stay without memory.
//!
//! The question takes as long as it takes to clear half a megabyte that is in the processor's caches, and is a loss where
//! blocks are written as a whole (they are *dense*), or where the system does not say. So it has a price in bytes that are to be
//! cleared: those of short blocks add up to it, and it doubles with each question that saved little.
//!
//! With that, programs that have only dense blocks spend a thirtieth of the time that clearing takes on questions, and none
//! spends more than it takes to clear all of them.

use crate::config::PAGE_SIZE;
use crate::sync::{atomic::Ordering::Relaxed, const_unless_loom, UnwatchedU32};
use crate::sys::Os;
use core::ptr::NonNull;

/// A shorter block is cleared without a question: less than two pages could be saved.
const SHORTEST: usize = 2 * PAGE_SIZE;

/// Bytes to be cleared for each question, to begin with; and at most, after questions that saved little.
const PRICE: u32 = 512 << 10;
const HIGHEST_PRICE: u32 = PRICE << DOUBLED_MOST;
const DOUBLED_MOST: u32 = 5;

/// What the last blocks were like. All zeros before there was any. It orders nothing: what two threads change at once may be
/// off.
pub struct Zeroing {
    /// Bytes that were to be cleared, and that no question was paid with yet.
    credit: UnwatchedU32,
    /// How often the price has doubled.
    doubled: UnwatchedU32,
    /// One if the last block of which the system has told was dense.
    dense: UnwatchedU32,
    /// One if no question is to be asked.
    off: UnwatchedU32,
}

impl Zeroing {
    const_unless_loom! {
        /// Nothing is known.
        pub fn new() -> Self {
            let [credit, doubled, dense, off] = [const { UnwatchedU32::new(0) }; 4];
            Self { credit, doubled, dense, off }
        }
    }

    /// Questions may be asked, or not.
    pub fn set(&self, asks: bool) {
        self.off.store((!asks).into(), Relaxed);
    }

    /// True if the system is to be asked about the next block, of so many bytes.
    pub fn asks(&self, len: usize) -> bool {
        if len < SHORTEST || self.off.load(Relaxed) != 0 {
            return false;
        }
        let price = PRICE << self.doubled.load(Relaxed);
        let len = u32::try_from(len).unwrap_or(HIGHEST_PRICE).min(HIGHEST_PRICE);
        let credit = (self.credit.load(Relaxed) + len).min(2 * HIGHEST_PRICE);
        let asks = credit >= price;
        self.credit.store(if asks { credit - price } else { credit }, Relaxed);
        asks
    }

    /// Whether a run that is asked for as zeros is to be thought dense: if the last one was of which the system has told, or if it
    /// is not asked.
    pub fn is_dense(&self) -> bool {
        self.dense.load(Relaxed) != 0 || self.off.load(Relaxed) != 0
    }

    /// Clears private memory of ours, but for pages that the system tells to hold zeros.
    ///
    /// # Safety
    /// The range is the caller's alone, readable and writable.
    #[inline(never)] // needs more stack than who asks for a short block should have
    pub unsafe fn clear(&self, os: &dyn Os, ptr: NonNull<u8>, len: usize) {
        let within = os.page_size() - 1;
        let (start, end) = (ptr.as_ptr() as usize, ptr.as_ptr() as usize + len);
        // The question is about whole pages of the system, which others may have parts of. What is cleared is ours.
        let first = start & !within;
        let pages = os.whole_pages(end - first);
        let clear = |from: usize, to: usize| {
            let (from, to) = (from.max(start), to.min(end));
            let place = ptr.as_ptr().wrapping_add(from - start);
            // SAFETY: what is in the range of this, which may be nothing.
            unsafe { place.write_bytes(0, to.saturating_sub(from)) };
        };
        let mut written = 0;
        let told = NonNull::new(ptr.as_ptr().wrapping_sub(start - first)).map_or(0, |page| {
            os.written(page, pages, &mut |page, len| {
                written += len;
                clear(page.as_ptr() as usize, page.as_ptr() as usize + len);
            })
        });
        clear(first + told, end);
        self.note(if told == pages { Some(written > pages / 4 * 3) } else { None });
    }

    /// Notes whether most of a block had been written, if the system has told.
    fn note(&self, dense: Option<bool>) {
        if let Some(dense) = dense {
            self.dense.store(dense.into(), Relaxed);
        }
        let saved_little = dense != Some(false);
        let doubled = if saved_little { (self.doubled.load(Relaxed) + 1).min(DOUBLED_MOST) } else { 0 };
        self.doubled.store(doubled, Relaxed);
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sys::{Call, FaultyOs, Plan, Unix};
    use std::vec::Vec;

    #[test]
    fn what_is_cleared_is_what_was_asked_for_wherever_it_begins_and_ends() {
        const LEN: usize = 8 * 4096;
        let os = FaultyOs::new(Unix);
        for plan in [Plan::Never, Plan::Kind(Call::Written)] {
            os.plan(plan);
            for (start, end) in [(0, LEN), (1, LEN), (0, LEN - 1), (4095, 4097), (4096, 8192), (100, 200), (5000, 5000)]
            {
                let memory = os.map(LEN).unwrap();
                // Pages 2 and 5 stay without memory.
                for page in [0, 1, 3, 4, 6, 7] {
                    // SAFETY: mapped.
                    unsafe { memory.as_ptr().wrapping_add(page * 4096).write_bytes(0xaa, 4096) };
                }
                // SAFETY: mapped.
                let ptr = unsafe { memory.add(start) };
                // SAFETY: nobody else knows it.
                unsafe { Zeroing::new().clear(&os, ptr, end - start) };
                // SAFETY: mapped.
                let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), LEN) };
                for (i, byte) in bytes.iter().enumerate() {
                    let zero = (start..end).contains(&i) || [2, 5].contains(&(i / 4096));
                    assert_eq!(*byte, if zero { 0 } else { 0xaa }, "byte {i} of {start}..{end}");
                }
                // SAFETY: the whole mapping.
                assert!(unsafe { os.unmap(memory, LEN) });
            }
        }
    }

    #[test]
    fn a_question_is_paid_for_by_what_is_cleared_and_dearer_after_blocks_that_were_dense() {
        let zeroing = Zeroing::new();
        let asked = |len: usize| (0..64 << 20).step_by(len).filter(|_| zeroing.asks(len)).count();
        assert_eq!(asked(SHORTEST - 1), 0);
        assert_eq!(asked(SHORTEST), (64 << 20) / PRICE as usize, "one for each half of a megabyte");
        assert_eq!(asked(4 << 20), 16, "a long block each time");
        let price: Vec<_> = [None, Some(true), Some(true), Some(true), None, Some(true), None, Some(false)]
            .map(|dense| {
                zeroing.credit.store(0, Relaxed);
                zeroing.note(dense);
                (1..).take_while(|_| !zeroing.asks(PRICE as usize)).count() + 1
            })
            .into();
        assert_eq!(price, [2, 4, 8, 16, 32, 32, 32, 1]);
        assert!(!zeroing.is_dense());
        zeroing.note(None);
        assert!(!zeroing.is_dense(), "nothing was told");
        zeroing.note(Some(true));
        assert!(zeroing.is_dense());
        zeroing.note(None);
        assert!(zeroing.is_dense(), "as before");
        zeroing.note(Some(false));
        assert!(zeroing.asks(usize::MAX), "more than can be counted");
        zeroing.set(false);
        assert!(!zeroing.asks(usize::MAX) && zeroing.is_dense());
        zeroing.set(true);
        assert!(zeroing.asks(usize::MAX));
    }
}
