//! Block: memory of a size that the compiler cannot see, freed when it is dropped.

use std::alloc::{alloc, alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::hint::black_box;
use std::ptr::NonNull;

/// A page of the system, as far as touching memory is concerned.
const PAGE: usize = 4096;

/// A block.
pub(crate) struct Block {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: nothing but the block leads to its memory.
unsafe impl Send for Block {}

impl Block {
    /// A block of `size` bytes, more than none, the first word of which is written, as far as it is there.
    #[inline(always)]
    pub(crate) fn new(size: usize) -> Self {
        Self::aligned(size, 8)
    }

    /// As [`Block::new`], at a multiple of `align`.
    #[inline(always)]
    pub(crate) fn aligned(size: usize, align: usize) -> Self {
        let layout = layout(size, align);
        // SAFETY: no row asks for no bytes.
        let block = Self::from(unsafe { alloc(layout) }, layout);
        // SAFETY: the first byte of the block.
        unsafe { block.at.write(size as u8) };
        block
    }

    /// A block of zeros, which nothing is written to.
    #[inline(always)]
    pub(crate) fn zeroed(size: usize) -> Self {
        let layout = layout(size, 8);
        // SAFETY: no row asks for no bytes.
        Self::from(unsafe { alloc_zeroed(layout) }, layout)
    }

    #[inline(always)]
    fn from(at: *mut u8, layout: Layout) -> Self {
        let Some(at) = NonNull::new(black_box(at)) else { handle_alloc_error(layout) };
        Self { at, layout }
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    /// Writes to every byte.
    pub(crate) fn fill(&mut self) {
        // SAFETY: the whole block.
        unsafe { self.at.write_bytes(black_box(0xa5), self.layout.size()) };
    }

    /// Writes to one page in so many.
    pub(crate) fn touch(&mut self, one_in: usize) {
        for offset in (0..self.layout.size()).step_by(PAGE * one_in) {
            // SAFETY: inside the block.
            let byte = unsafe { self.at.add(offset) };
            // SAFETY: as above. Volatile, so that it is done.
            unsafe { byte.write_volatile(1) };
        }
    }

    /// Adds one to its first byte, so many times.
    pub(crate) fn scribble(&mut self, times: usize) {
        for _ in 0..times {
            // SAFETY: the first byte of the block. Volatile, so that each is done.
            let value = unsafe { self.at.read_volatile() };
            // SAFETY: as above.
            unsafe { self.at.write_volatile(value.wrapping_add(1)) };
        }
    }

    /// The byte that [`Block::new`] wrote.
    pub(crate) fn first(&self) -> u8 {
        // SAFETY: written when the block was made.
        unsafe { self.at.read() }
    }
}

impl Drop for Block {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}

#[inline(always)]
fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(black_box(size), black_box(align)).expect("rows ask for sizes that exist")
}
