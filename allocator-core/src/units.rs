//! Quantities with types: page numbers, page counts, chunk numbers, orders.

use crate::config::{PAGE_SHIFT, PAGE_SIZE};
use core::ops::{Add, Sub};

/// Number of a page in its arena, counted from zero (a page frame number).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PageIndex(u32);

/// A number of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PageCount(u32);

/// Number of a chunk in its arena, counted from zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChunkIndex(u32);

/// Base-2 logarithm of a block's length, or of an alignment, in pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Order(u8);

impl PageIndex {
    /// The page with number `n`.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }
    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
    /// Its distance in bytes from the arena's first page.
    pub const fn byte_offset(self) -> usize {
        (self.0 as usize) << PAGE_SHIFT
    }
}

impl PageCount {
    /// `n` pages.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }
    /// As many pages as `bytes` bytes need, if a `u32` can count them.
    pub const fn holding(bytes: usize) -> Option<Self> {
        let n = bytes / PAGE_SIZE + (bytes % PAGE_SIZE != 0) as usize;
        if n <= u32::MAX as usize {
            Some(Self(n as u32))
        } else {
            None
        }
    }
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
    /// Length in bytes.
    pub const fn bytes(self) -> usize {
        (self.0 as usize) << PAGE_SHIFT
    }
}

impl ChunkIndex {
    /// The chunk with number `n`.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }
    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Order {
    /// One page.
    pub const ZERO: Order = Order(0);
    /// The order of `2^k` pages.
    pub const fn new(k: u8) -> Self {
        Self(k)
    }
    /// The logarithm.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
    /// The order of a block that starts at a multiple of `align` bytes (a power of two).
    pub const fn of_alignment(align: usize) -> Self {
        Self(align.trailing_zeros().saturating_sub(PAGE_SHIFT) as u8)
    }
}

impl Add<PageCount> for PageIndex {
    type Output = Self;
    fn add(self, n: PageCount) -> Self {
        Self(self.0 + n.0)
    }
}

impl Sub for PageCount {
    type Output = Self;
    fn sub(self, n: Self) -> Self {
        Self(self.0 - n.0)
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_round_up() {
        assert_eq!(PageCount::holding(1).unwrap().get(), 1);
        assert_eq!(PageCount::holding(PAGE_SIZE).unwrap().get(), 1);
        assert_eq!(PageCount::holding(PAGE_SIZE + 1).unwrap().get(), 2);
        assert_eq!(PageCount::holding(usize::MAX), None);
        assert_eq!(Order::of_alignment(4096).get(), 0);
        assert_eq!(Order::of_alignment(4 * PAGE_SIZE).get(), 2);
    }
}
