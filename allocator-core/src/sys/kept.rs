//! Kept: mappings that the system did not take back, to be used again.
//!
//! `munmap` may fail (at the limit of mappings it needs a new one to cut an old one). Then the range stays ours: it is
//! discarded, remembered in a list threaded through the first words of the ranges themselves, and handed out before the
//! system is asked for a new mapping of this length, or of a quarter of it at least; what is left of it stays in the list.
//! A range without access has no first word: it needs a [`Place`] in a table, which whoever may come to give one back
//! holds from before it is mapped. Without a place one does without such a mapping, so none is ever lost.

use super::{Discard, Os};
use crate::sync::{const_unless_loom, Mutex, Rank, Ranked};
use core::ptr::{null_mut, NonNull};

struct Range {
    next: *mut Range,
    len: usize,
}

struct List {
    head: *mut Range,
    /// Ranges that cannot be touched, so that nothing can be written into them.
    closed: [(*mut u8, usize); CLOSED],
    /// Those in the table and those held.
    places: usize,
}

/// Ranges without access that can be remembered.
const CLOSED: usize = 32;

// SAFETY: the ranges belong to the list, and the list to the lock around it.
unsafe impl Send for List {}

/// Ranges, readable and writable, that the system refused to take back.
pub struct Kept {
    list: Mutex<List>,
    discard: Discard,
}

impl Ranked for List {
    const RANK: Rank = Rank::Kept;
}

impl Kept {
    const_unless_loom! {
        /// None.
        pub fn new() -> Self {
            let none = List { head: null_mut(), closed: [(null_mut(), 0); CLOSED], places: 0 };
            Self { list: Mutex::new(none), discard: Discard::new() }
        }
    }

    /// Maps `len` bytes of zeros, in whole pages of the system: the begin of a kept range that is long enough but no
    /// more than four times as long, or a new mapping, or the begin of whichever kept range is long enough.
    pub fn map(&self, os: &dyn Os, len: usize) -> Option<NonNull<u8>> {
        let len = os.whole_pages(len);
        self.take(os, len, 4).or_else(|| os.map(len)).or_else(|| self.take(os, len, usize::MAX))
    }

    /// The begin of a kept range that is no more than `times` as long.
    fn take(&self, os: &dyn Os, len: usize, times: usize) -> Option<NonNull<u8>> {
        let ptr = self.unlink(os, len, times)?;
        // SAFETY: the range is ours alone, and all of it is mapped.
        if !unsafe { self.discard.discard(os, ptr, len) } {
            // SAFETY: as above.
            unsafe { ptr.as_ptr().write_bytes(0, len) };
        }
        Some(ptr)
    }

    fn unlink(&self, os: &dyn Os, len: usize, times: usize) -> Option<NonNull<u8>> {
        let mut list = self.list.lock(os);
        let mut link: *mut *mut Range = &mut list.head;
        loop {
            // SAFETY: `link` is the head or the `next` of a range in the list.
            let range = NonNull::new(unsafe { *link })?;
            // SAFETY: ranges in the list are mapped and begin with a `Range`.
            let Range { next, len: has } = unsafe { range.as_ptr().read() };
            if has >= len && has <= len.saturating_mul(times) {
                let ptr = range.cast::<u8>();
                let mut rest = next;
                if has > len {
                    // SAFETY: inside the range, and a whole page of the system away from its end.
                    rest = unsafe { ptr.add(len) }.cast::<Range>().as_ptr();
                    // SAFETY: mapped and page-aligned.
                    unsafe { rest.write(Range { next, len: has - len }) };
                }
                // SAFETY: as above; the range leaves the list, or its rest takes its place.
                unsafe { *link = rest };
                return Some(ptr);
            }
            // SAFETY: the field of a range in the list.
            link = unsafe { &mut (*range.as_ptr()).next };
        }
    }

    /// Gives a mapping back to the system, or keeps it if the system refuses. True if it was taken back.
    ///
    /// # Safety
    /// `ptr` and `len`, in whole pages of the system, are a readable and writable mapping of ours that nobody uses any
    /// more.
    pub unsafe fn unmap(&self, os: &dyn Os, ptr: NonNull<u8>, len: usize) -> bool {
        let len = os.whole_pages(len);
        // SAFETY: by contract.
        if unsafe { os.unmap(ptr, len) } {
            return true;
        }
        // SAFETY: by contract. A refusal costs memory, nothing else: the range is zeroed when it is taken again.
        unsafe { os.discard(ptr, len) };
        // SAFETY: as above. It may be used for something else.
        unsafe { os.advise_huge(ptr, len, false) };
        let range = ptr.cast::<Range>();
        let mut list = self.list.lock(os);
        // SAFETY: the range is ours, mapped, page-aligned and longer than a `Range`.
        unsafe { range.as_ptr().write(Range { next: list.head, len }) };
        list.head = range.as_ptr();
        false
    }

    /// A place for a mapping without access, to be held from before it is made. `None` if too many were not taken back.
    pub fn place<'a>(&'a self, os: &'a dyn Os) -> Option<Place<'a>> {
        let mut list = self.list.lock(os);
        let free = list.places < CLOSED;
        list.places += usize::from(free);
        // Made only now: a place that is dropped takes the lock.
        free.then(|| Place { kept: self, os })
    }

    /// Frees the memory behind a range. True if it reads as zeros now.
    ///
    /// # Safety
    /// As for [`Os::discard`]; the range is not empty.
    pub unsafe fn discard(&self, os: &dyn Os, ptr: NonNull<u8>, len: usize) -> bool {
        // SAFETY: by contract.
        unsafe { self.discard.discard(os, ptr, len) }
    }

    /// Unmaps what was refused, one by one: a copy of the table would be a lot of stack. What is refused again goes to a
    /// place that this has passed.
    fn retry_closed(&self, os: &dyn Os) {
        let mut passed = 0;
        while let Some((ptr, len)) = self.next_closed(os, &mut passed) {
            let place = Place { kept: self, os };
            // SAFETY: remembered as such a mapping, and taken out of the table; its place is counted still.
            unsafe { place.unmap(ptr, len) };
        }
    }

    /// Takes the first mapping out of the table that is not among the places passed, and passes it.
    fn next_closed(&self, os: &dyn Os, passed: &mut usize) -> Option<(NonNull<u8>, usize)> {
        let closed = &mut self.list.lock(os).closed;
        while let Some(place) = closed.get_mut(*passed) {
            let (ptr, len) = core::mem::replace(place, (null_mut(), 0));
            *passed += 1;
            if let Some(ptr) = NonNull::new(ptr) {
                return Some((ptr, len));
            }
        }
        None
    }

    /// Offers every kept range to the system again. Returns the bytes of memory that it took.
    pub fn shrink(&self, os: &dyn Os) -> usize {
        self.retry_closed(os);
        let mut range = core::mem::replace(&mut self.list.lock(os).head, null_mut());
        let mut bytes = 0;
        while let Some(r) = NonNull::new(range) {
            // SAFETY: a range that was in the list, and is ours alone now.
            let Range { next, len } = unsafe { r.as_ptr().read() };
            // SAFETY: as above.
            if unsafe { self.unmap(os, r.cast(), len) } {
                bytes += len;
            }
            range = next;
        }
        bytes
    }

    /// Bytes kept.
    pub fn bytes(&self, os: &dyn Os) -> usize {
        let list = self.list.lock(os);
        let (mut range, mut bytes) = (list.head, list.closed.iter().map(|(_, len)| len).sum());
        while let Some(r) = NonNull::new(range) {
            // SAFETY: ranges in the list are mapped and begin with a `Range`; we hold the lock.
            let Range { next, len } = unsafe { r.as_ptr().read() };
            bytes += len;
            range = next;
        }
        bytes
    }
}

/// A place in the table of mappings without access; dropping it gives it up.
#[must_use = "a place is held for a mapping"]
pub struct Place<'a> {
    kept: &'a Kept,
    os: &'a dyn Os,
}

impl Place<'_> {
    /// Gives a mapping without access back to the system, or remembers it here to offer it again.
    ///
    /// # Safety
    /// `ptr` and `len` are whole pages of a reservation of ours that nobody uses.
    pub unsafe fn unmap(self, ptr: NonNull<u8>, len: usize) {
        // SAFETY: by contract.
        if unsafe { self.os.unmap(ptr, len) } {
            return;
        }
        if let Some(free) = self.kept.list.lock(self.os).closed.iter_mut().find(|(_, len)| *len == 0) {
            *free = (ptr.as_ptr(), len);
        }
        core::mem::forget(self); // the place is the range's now
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.kept.list.lock(self.os).places -= 1;
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    use super::*;
    use crate::sys::{Call, FaultyOs, Plan, Reservation, Unix};

    #[test]
    fn a_range_that_was_not_taken_back_is_used_again_and_reads_as_zeros() {
        let (os, kept) = (FaultyOs::new(Unix), Kept::new());
        for refused in [Call::Unmap, Call::Discard] {
            let len = 64 << 10;
            let ptr = kept.map(&os, len).unwrap();
            // SAFETY: ours.
            unsafe { ptr.as_ptr().write_bytes(0xa5, len) };
            os.plan(Plan::Kind(Call::Unmap));
            // SAFETY: nobody uses it any more.
            assert!(!unsafe { kept.unmap(&os, ptr, len) });
            assert_eq!(kept.bytes(&os), len);
            os.plan(Plan::Kind(Call::Map));
            let part = kept.map(&os, 8 << 10).unwrap();
            assert_eq!(kept.bytes(&os), len - (8 << 10), "nothing else is to be had");
            os.plan(Plan::Kind(Call::Unmap));
            // SAFETY: nobody uses it any more.
            assert!(!unsafe { kept.unmap(&os, part, 8 << 10) });
            os.plan(Plan::Never);
            assert_eq!(kept.shrink(&os), len);
            let ptr = kept.map(&os, len).unwrap();
            // SAFETY: ours.
            unsafe { ptr.as_ptr().write_bytes(0xa5, len) };
            os.plan(Plan::Kind(Call::Unmap));
            // SAFETY: nobody uses it any more.
            assert!(!unsafe { kept.unmap(&os, ptr, len) });
            os.plan(Plan::Kind(refused));
            let other = kept.map(&os, 8 << 10).unwrap();
            assert_eq!(kept.bytes(&os), len, "far too long a range is left alone");
            let again = kept.map(&os, len - 4096).unwrap();
            assert_eq!((again, kept.bytes(&os)), (ptr, 4096), "the rest is kept");
            let rest = kept.map(&os, 4096).unwrap();
            assert_eq!(rest.as_ptr(), ptr.as_ptr().wrapping_add(len - 4096));
            // SAFETY: mapped, `len` bytes.
            assert!(unsafe { core::slice::from_raw_parts(again.as_ptr(), len) }.iter().all(|b| *b == 0));
            os.plan(Plan::Never);
            // SAFETY: nobody uses it any more.
            assert!(unsafe { kept.unmap(&os, again, len) });
            // SAFETY: nobody uses it any more.
            assert!(unsafe { kept.unmap(&os, other, 8 << 10) });
            assert_eq!((kept.bytes(&os), kept.shrink(&os), os.mapped()), (0, 0, 0));
        }
    }

    #[test]
    fn no_mapping_without_access_is_lost_however_many_are_not_taken_back() {
        let (os, kept) = (FaultyOs::new(Unix), Kept::new());
        os.plan(Plan::Kind(Call::Unmap));
        let len = os.page_size();
        let ranges = [(); 3 * CLOSED].map(|()| Reservation::new(&os, &kept, len, 1 << 32, false).unwrap());
        let held: usize = ranges.iter().map(|range| range.map_len).sum();
        assert_eq!(held + kept.bytes(&os), os.mapped());
        assert_eq!(kept.bytes(&os), CLOSED * len, "no answer of the system is aligned like that by chance");
        assert!(kept.place(&os).is_none());
        os.plan(Plan::Never);
        kept.shrink(&os);
        for range in ranges {
            // SAFETY: the whole mapping, and nobody uses it.
            assert!(unsafe { os.unmap(range.map, range.map_len) });
        }
        assert_eq!((kept.bytes(&os), os.mapped()), (0, 0));
        assert!(kept.place(&os).is_some());
    }
}
