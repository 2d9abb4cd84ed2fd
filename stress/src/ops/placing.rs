//! Placing: a system that chooses itself where long mappings begin, so that a run makes the same system calls each
//! time.
//!
//! Where the kernel places a mapping depends on what else is mapped, and whether it is aligned decides how many calls
//! follow. With a place of its own choice for each answer of a chunk or more, both cases are met on purpose and neither
//! by chance.

use allocator_core::config::CHUNK_SIZE;
use allocator_core::sync::Park;
use allocator_core::sys::{Os, Unix};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// No alignment that operations ask for is above it.
const BOUNDARY: usize = 64 << 20;

/// Where mappings of a chunk or more begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placing {
    /// Where the kernel likes.
    Kernel,
    /// At a multiple of 64 MiB.
    Aligned,
    /// A page behind one.
    Unaligned,
}

impl Placing {
    fn place(self, len: usize, ask: impl Fn(usize) -> Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        let page = Unix.page_size();
        let behind = match self {
            Placing::Aligned if len >= CHUNK_SIZE => 0,
            Placing::Unaligned if len >= CHUNK_SIZE => page,
            _ => return ask(len),
        };
        let long = len.checked_add(BOUNDARY + page)?;
        let start = ask(long)?;
        let head = start.as_ptr().align_offset(BOUNDARY) + behind;
        // SAFETY: less than `BOUNDARY` and a page, so inside.
        let ptr = unsafe { start.add(head) };
        // SAFETY: the end of what is asked for, inside.
        let tail = unsafe { ptr.add(len) };
        for (slack, len) in [(start, head), (tail, long - head - len)] {
            // SAFETY: just mapped, and not handed out.
            assert!(len == 0 || unsafe { Unix.unmap(slack, len) }, "the system itself refuses");
        }
        Some(ptr)
    }
}

impl Park for Placing {
    fn wait(&self, word: &AtomicU32, expected: u32) {
        Unix.wait(word, expected);
    }
    fn wait_for(&self, word: &AtomicU32, expected: u32, millis: u32) {
        Unix.wait_for(word, expected, millis);
    }
    fn wake_one(&self, word: &AtomicU32) {
        Unix.wake_one(word);
    }
    fn wake_all(&self, word: &AtomicU32) {
        Unix.wake_all(word);
    }
    fn nap(&self) {
        Unix.nap();
    }
    fn current(&self) -> usize {
        Unix.current()
    }
}

// SAFETY: every answer is the system's, or a part of one.
unsafe impl Os for Placing {
    fn page_size(&self) -> usize {
        Unix.page_size()
    }
    fn cpus(&self) -> usize {
        Unix.cpus()
    }
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, |len| Unix.map(len))
    }
    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, |len| Unix.reserve(len))
    }
    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: the caller's contract is the callee's.
        unsafe { Unix.commit(ptr, len) }
    }
    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: as above.
        unsafe { Unix.unmap(ptr, len) }
    }
    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: as above.
        unsafe { Unix.discard(ptr, len) }
    }
    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool {
        // SAFETY: as above.
        let done = unsafe { Unix.advise_huge(ptr, len, huge) };
        // Of a system without huge pages it is noted all the same which memory was to have some.
        done || huge && !Unix.has_huge_pages()
    }
    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: as above.
        unsafe { Unix.populate(ptr, len) }
    }
    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        // Whether there is room behind a mapping is the kernel's choice as well.
        let chance = *self != Placing::Kernel && new_len > len;
        // SAFETY: as above.
        !chance && unsafe { Unix.resize(ptr, len, new_len) }
    }
    unsafe fn relocate(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        unsafe { Unix.relocate(ptr, len, new_len) }
    }
    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize, on: bool) -> bool {
        // SAFETY: the caller's contract is the callee's.
        unsafe { Unix.guard(ptr, len, on) }
    }

    unsafe fn name(&self, ptr: NonNull<u8>, len: usize, name: &core::ffi::CStr) -> bool {
        // SAFETY: the caller's contract is the callee's.
        unsafe { Unix.name(ptr, len, name) }
    }

    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize> {
        Unix.resident(ptr, len)
    }

    fn written(&self, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        Unix.written(ptr, len, show)
    }

    fn read(&self, _: &core::ffi::CStr, _: &mut [u8]) -> Option<usize> {
        None
    }
    fn yield_now(&self) {
        Unix.yield_now();
    }
    fn now(&self) -> u64 {
        Unix.now()
    }
}
