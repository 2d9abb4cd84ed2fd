//! How long single operations take while a large live set changes.

use crate::{Random, Scale};
use hdrhistogram::Histogram;
use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::hint::black_box;
use std::time::Instant;

/// Blocks alive at a time.
const LIVE: usize = 100_000;
/// Of this many operations each is timed.
const OPERATIONS: usize = 2_000_000;
/// One request in so many is for 4 to 64 KiB; the others are for 16 to 1,024 bytes.
const LARGE: usize = 64;

/// Nanoseconds of each `alloc` and `dealloc`: a block is freed at random, and another one allocated and written to, the
/// latter out of the time that is taken. What reading the clock costs is in every figure.
pub fn latencies(scale: Scale) -> Histogram<u64> {
    let mut random = Random::new(50);
    let mut size = || {
        let (low, high) = if random.below(LARGE) == 0 { (12, 16) } else { (4, 10) };
        (random.log_uniform(low, high), random.below(LIVE))
    };
    let mut times = Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("bounds that make sense");
    let mut blocks: Vec<(*mut u8, Layout)> = Vec::with_capacity(LIVE);
    for _ in 0..LIVE {
        let layout = Layout::from_size_align(size().0, 8).expect("a size that exists");
        blocks.push((allocate(layout), layout));
    }
    for _ in 0..scale.of(OPERATIONS) / 2 {
        let (size, place) = size();
        let layout = Layout::from_size_align(black_box(size), black_box(8)).expect("a size that exists");
        let (old, old_layout) = blocks[place];
        let before = Instant::now();
        // SAFETY: allocated with this layout, and replaced below.
        unsafe { dealloc(old, old_layout) };
        let between = Instant::now();
        // SAFETY: more than no bytes.
        let new = black_box(unsafe { alloc(layout) });
        let after = Instant::now();
        if new.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: just allocated, all of it.
        unsafe { new.write_bytes(1, size) };
        blocks[place] = (new, layout);
        times.saturating_record((between - before).as_nanos() as u64);
        times.saturating_record((after - between).as_nanos() as u64);
    }
    for (block, layout) in blocks {
        // SAFETY: allocated with this layout, and not used again.
        unsafe { dealloc(block, layout) };
    }
    times
}

/// A block, all of which is written to.
fn allocate(layout: Layout) -> *mut u8 {
    // SAFETY: more than no bytes.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: just allocated, all of it.
    unsafe { block.write_bytes(1, layout.size()) };
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_timed() {
        let times = latencies(Scale::new(0.01));
        assert_eq!(times.len(), OPERATIONS as u64 / 100);
        assert!(times.max() > 0);
    }
}
