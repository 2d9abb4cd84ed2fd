//! Placing: a system that chooses itself where long mappings begin, so that a run makes the same system calls each
//! time.
//!
//! Where the kernel places a mapping depends on what else is mapped. Whether it is aligned, and which leaves of the
//! address table it lies in, decides how many calls follow. With a place of its own choice for each answer of a chunk
//! or more, aligned and unaligned ones are met on purpose and neither by chance, and their length alone says in which of
//! two leaves they lie: each in the next slot that has room, so what was freed is not mapped again for a while.

use allocator_core::config::{CHUNK_SHIFT, CHUNK_SIZE, LEAF_SHIFT};
use allocator_core::sync::Park;
use allocator_core::sys::{Guarded, Os, Unix};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::OnceLock;

/// Bytes of a slot. No alignment that operations ask for is above it.
const BOUNDARY: usize = 64 << 20;
/// Bytes that a leaf of the address table stands for.
const LEAF: usize = 1 << (CHUNK_SHIFT + LEAF_SHIFT);
/// Slots of a leaf.
const SLOTS: usize = LEAF / BOUNDARY;

/// Where the two leaves begin that mappings are placed in, if the system has room for them.
fn leaves() -> Option<usize> {
    static START: OnceLock<Option<usize>> = OnceLock::new();
    *START.get_or_init(|| {
        let room = Unix.reserve(3 * LEAF)?;
        // SAFETY: just mapped, and not handed out.
        assert!(unsafe { Unix.unmap(room, 3 * LEAF) }, "the system itself refuses");
        Some((room.as_ptr() as usize).next_multiple_of(LEAF))
    })
}

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
    /// Maps `len` bytes in a place of its choice, or has them mapped where the kernel likes.
    fn place(
        self,
        len: usize,
        access: libc::c_int,
        ask: fn(&Unix, usize) -> Option<NonNull<u8>>,
    ) -> Option<NonNull<u8>> {
        let behind = match self {
            Placing::Aligned if len >= CHUNK_SIZE => 0,
            Placing::Unaligned if len >= CHUNK_SIZE => Unix.page_size(),
            _ => return ask(&Unix, len),
        };
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let Some(leaves) = leaves() else { return ask(&Unix, len) };
        let leaf = leaves + len / CHUNK_SIZE % 2 * LEAF;
        for _ in 0..SLOTS {
            let offset = NEXT.fetch_add(1, Relaxed) % SLOTS * BOUNDARY + behind;
            if len > LEAF - offset {
                continue;
            }
            if let Some(ptr) = map_at(leaf + offset, len, access) {
                NEXT.fetch_add(len / BOUNDARY, Relaxed);
                return Some(ptr);
            }
        }
        ask(&Unix, len)
    }
}

/// Maps memory there and nowhere else.
fn map_at(address: usize, len: usize, access: libc::c_int) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let wanted = address as *mut libc::c_void;
    // SAFETY: a new mapping, which replaces none.
    let start = unsafe { libc::mmap(wanted, len, access, flags, -1, 0) };
    // Before Linux 4.17 the address is a wish.
    assert!(start == libc::MAP_FAILED || start == wanted, "a mapping at {start:?} in place of {wanted:?}");
    NonNull::new(start.cast()).filter(|_| start == wanted)
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
        self.place(len, libc::PROT_READ | libc::PROT_WRITE, Unix::map)
    }
    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, libc::PROT_NONE, Unix::reserve)
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
        if *self == Placing::Kernel {
            // SAFETY: as above.
            return unsafe { Unix.relocate(ptr, len, new_len) };
        }
        let to = self.reserve(new_len)?;
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: as above; what it replaces was just mapped, and not handed out.
        let moved = unsafe { libc::mremap(ptr.as_ptr().cast(), len, new_len, how, to.as_ptr()) };
        assert!(moved == to.as_ptr().cast(), "the system itself refuses");
        Some(to)
    }
    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize) -> Option<Guarded> {
        // SAFETY: the caller's contract is the callee's.
        unsafe { Unix.guard(ptr, len) }
    }

    unsafe fn unguard(&self, ptr: NonNull<u8>, len: usize, guarded: Guarded) -> bool {
        // SAFETY: the caller's contract is the callee's.
        unsafe { Unix.unguard(ptr, len, guarded) }
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
