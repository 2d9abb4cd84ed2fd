//! pagemap: what the system knows of the pages of this process (`/proc/thread-self/pagemap`, Linux since 6.7).

use super::{file::File, Ranges};
use core::mem::size_of;
use core::ptr::NonNull;
use static_assertions::const_assert;

/// The kernel's `struct page_region`: pages in a row of which the same is true.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct PageRegion {
    /// The address of the first byte.
    pub start: u64,
    /// The address behind the last one.
    pub end: u64,
    categories: u64,
}

impl PageRegion {
    /// None.
    pub const NONE: Self = Self { start: 0, end: 0, categories: 0 };
}

/// The kernel's `struct pm_scan_arg`.
#[repr(C)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const_assert!(size_of::<PmScanArg>() == 96);

/// `_IOWR('f', 16, struct pm_scan_arg)`, where directions have two bits at the top; elsewhere no such request is known.
const PAGEMAP_SCAN: u32 = 3 << 30 | (size_of::<PmScanArg>() as u32) << 16 | (b'f' as u32) << 8 | 16;

const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
/// Zeros that the system has one page of: read and never written, or found to be zeros since.
const IS_PFNZERO: u64 = 1 << 5;

/// As [`Os::written`](super::Os::written), by this file.
pub(super) fn written(file: &File, ptr: NonNull<u8>, len: usize, ranges: &mut Ranges) -> usize {
    let start = ptr.as_ptr() as u64;
    let mut scan = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        flags: 0,
        start,
        end: start + len as u64,
        walk_end: 0,
        vec: ranges.as_mut_ptr() as u64,
        vec_len: ranges.len() as u64,
        max_pages: 0,
        category_inverted: IS_PFNZERO,
        category_mask: IS_PFNZERO,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_PRESENT | IS_SWAPPED,
    };
    // SAFETY: the request, which leads to room for the answer.
    if unsafe { file.ask(PAGEMAP_SCAN, &mut scan) }.is_none() {
        return 0;
    }
    scan.walk_end.min(scan.end).saturating_sub(start) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use crate::sys::{Os, PageRegion, Unix, RANGES};
    use core::ptr::NonNull;
    use std::vec::Vec;

    const PAGE: usize = 4096;

    /// The pages of a mapping that are told to be written, and how many it is told of.
    fn told(ptr: NonNull<u8>, pages: usize) -> (Vec<usize>, usize) {
        let (mut written, mut told) = (Vec::new(), 0);
        loop {
            let mut ranges = [PageRegion::NONE; RANGES];
            // SAFETY: in the mapping, or behind it.
            let rest = unsafe { ptr.add(told) };
            let now = Unix.written(rest, pages * PAGE - told, &mut ranges);
            for range in ranges.into_iter().filter(|range| *range != PageRegion::NONE) {
                let page = |address: u64| (address as usize - ptr.as_ptr() as usize) / PAGE;
                written.extend(page(range.start)..page(range.end));
            }
            told += now;
            if now == 0 || told == pages * PAGE {
                return (written, told / PAGE);
            }
        }
    }

    #[test]
    fn pages_that_were_written_are_told_and_no_others() {
        // More ranges than are told at a time.
        const PAGES: usize = 3 * 2 * RANGES + 1;
        if Unix.page_size() != PAGE {
            return;
        }
        let ptr = Unix.map(PAGES * PAGE).unwrap();
        // SAFETY: the whole mapping. One page that is written is to bring in no other.
        assert!(unsafe { Unix.advise_huge(ptr, PAGES * PAGE, false) });
        // SAFETY: in the mapping.
        let at = |page: usize| unsafe { ptr.add(page * PAGE) };
        let (written, all) = told(ptr, PAGES);
        if all == 0 {
            return; // an older system
        }
        assert_eq!((written, all), (Vec::new(), PAGES), "nothing is there yet");
        for page in (0..PAGES).step_by(2) {
            // SAFETY: mapped.
            unsafe { at(page).as_ptr().write_volatile(1) };
        }
        for page in (1..PAGES).step_by(2) {
            // SAFETY: as above.
            assert_eq!(unsafe { at(page).as_ptr().read_volatile() }, 0, "to read does not count");
        }
        assert_eq!(told(ptr, PAGES), ((0..PAGES).step_by(2).collect(), PAGES));
        assert_eq!(told(at(3), 4), (Vec::from([1, 3]), 4), "of a part, what is in it");
        // SAFETY: pages of the mapping.
        assert!(unsafe { Unix.discard(at(2), PAGE) });
        assert_eq!(told(ptr, 5), (Vec::from([0, 4]), 5), "what was discarded holds zeros");
        // SAFETY: the whole mapping.
        assert!(unsafe { Unix.unmap(ptr, PAGES * PAGE) });
    }

    #[test]
    fn what_is_no_page_is_told_nothing_of() {
        let odd = NonNull::new(0x1001 as *mut u8).unwrap();
        let mut ranges = [PageRegion::NONE; RANGES];
        assert_eq!((Unix.written(odd, PAGE, &mut ranges), ranges), (0, [PageRegion::NONE; RANGES]));
    }
}
