//! The system under Miri, which interprets a program by Rust's own rules and knows few of Linux's calls: each mapping is a block
//! of the interpreter's.
//!
//! What is reserved, unmapped in part or guarded is memory that nobody has written, so that to read there is an error; what is
//! unmapped as a whole is gone. Huge pages and residence are not modelled: such advice is taken, and nothing is known.

extern crate std;

use super::{unix::coarse_millis, Guarded, Os, Unix};
use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr::{null_mut, NonNull};
use std::alloc::{GlobalAlloc, Layout, System};

const PAGE: usize = 4096;

/// Longer mappings are refused: the interpreter ends where its host refuses it something.
const LONGEST: usize = 1 << 30;

/// What is known of a mapping, in a page before it: it may be the program's allocator that asks.
struct Mapping {
    next: *mut Mapping,
    start: NonNull<u8>,
    layout: Layout,
    /// Bytes that are not unmapped.
    left: usize,
}

/// The list of all mappings, or [`TAKEN`]: as the system's, it is one thread's at a time.
static MAPPINGS: AtomicPtr<Mapping> = AtomicPtr::new(null_mut());
const TAKEN: *mut Mapping = NonNull::dangling().as_ptr();

/// The list, which is the caller's until it is dropped.
struct Mappings(*mut Mapping);

fn mappings() -> Mappings {
    loop {
        let first = MAPPINGS.swap(TAKEN, Acquire);
        if first != TAKEN {
            return Mappings(first);
        }
        std::thread::yield_now();
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        MAPPINGS.store(self.0, Release);
    }
}

fn new_mapping(len: usize, zeroed: bool) -> Option<NonNull<u8>> {
    if len == 0 || len > LONGEST {
        return None;
    }
    let layout = Layout::from_size_align(PAGE + len, PAGE).ok()?;
    // SAFETY: it has a length.
    let block = NonNull::new(unsafe {
        if zeroed {
            System.alloc_zeroed(layout)
        } else {
            System.alloc(layout)
        }
    })?;
    // SAFETY: inside the block.
    let start = unsafe { block.add(PAGE) };
    let mut mappings = mappings();
    let mapping = Mapping { next: mappings.0, start, layout, left: len };
    // SAFETY: the first page is ours.
    unsafe { block.cast().write(mapping) };
    mappings.0 = block.as_ptr().cast();
    Some(start)
}

/// The pointer of a mapping to this address in it.
pub fn as_mapped(ptr: *mut u8) -> *mut u8 {
    let mappings = mappings();
    // SAFETY: the list's, which nobody changes meanwhile.
    let mapping = |link: *mut Mapping| unsafe { link.as_ref() };
    let mut all = core::iter::successors(mapping(mappings.0), |last| mapping(last.next));
    let found = all.find_map(|mapping| {
        let offset = (ptr as usize).wrapping_sub(mapping.start.as_ptr() as usize);
        (offset < mapping.layout.size() - PAGE).then(|| mapping.start.as_ptr().wrapping_add(offset))
    });
    found.unwrap_or(ptr)
}

/// Lets nobody know what was there.
///
/// # Safety
/// The range is whole pages of a mapping, and nobody needs what is in it.
unsafe fn forget(ptr: NonNull<u8>, len: usize) {
    for page in (0..len / PAGE).map(|page| page * PAGE) {
        // SAFETY: by contract inside the range.
        let page = unsafe { ptr.add(page) };
        // SAFETY: by contract.
        unsafe { page.cast().write(MaybeUninit::<[u8; PAGE]>::uninit()) };
    }
}

// SAFETY: each mapping is a block of its own.
unsafe impl Os for Unix {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn cpus(&self) -> usize {
        2
    }

    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        new_mapping(self.whole_pages(len), true)
    }

    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        new_mapping(self.whole_pages(len), false)
    }

    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: by contract a range of our own.
        unsafe { ptr.as_ptr().write_bytes(0, len) };
        true
    }

    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        let mut mappings = mappings();
        let mut link: *mut *mut Mapping = &mut mappings.0;
        loop {
            // SAFETY: a place in the list, which nobody else changes meanwhile.
            let block = unsafe { *link };
            // SAFETY: by contract the range is a mapping's, so the list does not end before.
            let mapping = unsafe { &mut *block };
            let offset = (ptr.as_ptr() as usize).wrapping_sub(mapping.start.as_ptr() as usize);
            if offset >= mapping.layout.size() - PAGE {
                link = &mut mapping.next;
                continue;
            }
            mapping.left -= len;
            let Mapping { next, layout, left, .. } = *mapping;
            if left == 0 {
                // SAFETY: as above.
                unsafe { *link = next };
                // SAFETY: all of it is unmapped, so nobody uses any of it.
                unsafe { System.dealloc(block.cast(), layout) };
            } else {
                // SAFETY: by contract nobody uses it.
                unsafe { forget(ptr, len) };
            }
            return true;
        }
    }

    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: by contract a range of our own whose content nobody needs.
        unsafe { ptr.as_ptr().write_bytes(0, len) };
        true
    }

    unsafe fn advise_huge(&self, _: NonNull<u8>, _: usize, _: bool) -> bool {
        true
    }

    unsafe fn populate(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }

    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        let Some(cut) = len.checked_sub(new_len) else { return false };
        // SAFETY: by contract what is cut off is a part of the mapping, which nobody uses.
        cut == 0 || unsafe { self.unmap(ptr.add(new_len), cut) }
    }

    unsafe fn relocate(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> Option<NonNull<u8>> {
        let to = self.map(new_len)?;
        // SAFETY: both are as long, and the new one is a block of its own.
        unsafe { to.as_ptr().copy_from_nonoverlapping(ptr.as_ptr(), len.min(new_len)) };
        // SAFETY: by contract a whole mapping, which is left for the other one.
        unsafe { self.unmap(ptr, len) }.then_some(to)
    }

    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize) -> Option<Guarded> {
        // SAFETY: by contract nobody needs what is in it.
        unsafe { forget(ptr, len) };
        Some(Guarded::ByAccess)
    }

    unsafe fn unguard(&self, ptr: NonNull<u8>, len: usize, _: Guarded) -> bool {
        // SAFETY: by contract a range of our own.
        unsafe { self.commit(ptr, len) }
    }

    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &CStr) -> bool {
        true
    }

    fn resident(&self, _: NonNull<u8>, _: usize) -> Option<usize> {
        None
    }

    fn read(&self, _: &CStr, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn yield_now(&self) {
        std::thread::yield_now();
    }

    fn now(&self) -> u64 {
        coarse_millis()
    }
}
