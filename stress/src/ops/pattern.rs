//! What is written into blocks: words that are a function of the block's identity and their place.
//!
//! A block of up to `whole` bytes is written and read from end to end. Of a longer one both ends are, and one word at
//! the start of every page (32 KiB), or, of an area, at a few dozen places: a block that is handed out twice, moved
//! without its content or not zeroed differs there too, and a run takes a thousandth of the time.

use allocator_core::config::{PAGE_SIZE, VMALLOC_THRESHOLD};
use std::ptr::NonNull;

/// Bytes at each end of a long block.
const ENDS: usize = 128;
/// Words between the ends of an area, at most.
const SAMPLES: usize = 64;
/// Bytes in the smallest page of a system.
const SYSTEM_PAGE: usize = 4096;

/// The word of a block at this offset, a multiple of eight.
fn word(id: u64, offset: usize) -> [u8; 8] {
    ((id ^ (offset / 8) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ id).to_ne_bytes()
}

/// Calls `visit` with the offset and length of each word of a block, in order. Ends with the first offset that it does
/// not like.
#[inline(always)]
fn each_word(size: usize, whole: usize, step: usize, mut visit: impl FnMut(usize, usize) -> bool) -> Option<usize> {
    if size <= whole.max(2 * ENDS) {
        // The common case in a loop of its own, which knows that its words are whole: a soak spends its time here.
        let words = size / 8 * 8;
        let mut offset = 0;
        while offset < words {
            if !visit(offset, 8) {
                return Some(offset);
            }
            offset += 8;
        }
        return (words < size && !visit(words, size - words)).then_some(words);
    }
    let mut part = |from: usize, to: usize, step: usize| {
        (from..to).step_by(step).find(|offset| !visit(*offset, (size - offset).min(8)))
    };
    let tail = (size - ENDS) / 8 * 8;
    part(0, ENDS, 8).or_else(|| part(step, tail, step)).or_else(|| part(tail, size, 8))
}

/// Bytes from one word to the next between the ends of a long block: a power of two, so that blocks of
/// different sizes that follow each other at one place are looked at where the last one was written.
fn step(size: usize) -> usize {
    match size {
        0..=VMALLOC_THRESHOLD => PAGE_SIZE,
        _ => (size / SAMPLES).next_power_of_two(),
    }
}

/// Writes the pattern of `id`.
///
/// # Safety
/// `ptr` is a block of `size` bytes that the caller has for itself.
pub unsafe fn fill(ptr: NonNull<u8>, size: usize, whole: usize, id: u64) {
    each_word(size, whole, step(size), |offset, len| {
        // SAFETY: offset and length lie inside the block.
        let at = unsafe { ptr.add(offset) };
        let word = word(id, offset);
        match len {
            // SAFETY: eight bytes of the block.
            8 => unsafe { at.cast::<[u8; 8]>().write(word) },
            // SAFETY: the last bytes of the block.
            _ => unsafe { at.copy_from_nonoverlapping(NonNull::from(&word).cast(), len) },
        }
        true
    });
}

/// The first place within the first `len` bytes where a block of `size` bytes does not have the pattern of `id`.
///
/// # Safety
/// `ptr` is a block of at least `len` bytes that nobody writes to now.
pub unsafe fn spoiled(ptr: NonNull<u8>, size: usize, len: usize, whole: usize, id: u64) -> Option<usize> {
    if len == size {
        // SAFETY: by contract.
        return each_word(size, whole, step(size), |offset, len| unsafe { is(ptr, offset, len, word(id, offset)) });
    }
    each_word(size, whole, step(size), |offset, word_len| {
        let word_len = word_len.min(len.saturating_sub(offset));
        // SAFETY: by contract.
        word_len == 0 || unsafe { is(ptr, offset, word_len, word(id, offset)) }
    })
}

/// The first place that was found not to be zero.
///
/// # Safety
/// `ptr` is a block of `size` bytes that nobody writes to now.
pub unsafe fn nonzero(ptr: NonNull<u8>, size: usize, whole: usize) -> Option<usize> {
    let step = step(size).min(if size <= 64 * PAGE_SIZE { SYSTEM_PAGE } else { usize::MAX });
    // SAFETY: by contract.
    each_word(size, whole, step, |offset, len| unsafe { is(ptr, offset, len, [0; 8]) })
}

/// # Safety
/// `len` bytes, at most eight, at `offset` can be read.
#[inline(always)]
unsafe fn is(ptr: NonNull<u8>, offset: usize, len: usize, word: [u8; 8]) -> bool {
    // SAFETY: by contract.
    let at = unsafe { ptr.add(offset) };
    if len == 8 {
        // SAFETY: by contract.
        return unsafe { at.cast::<[u8; 8]>().read() } == word;
    }
    // SAFETY: by contract.
    let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
    *bytes == word[..len]
}
