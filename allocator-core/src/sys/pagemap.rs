//! pagemap: what the system knows of the pages of this process (`/proc/thread-self/pagemap`, Linux since 6.7).

use super::file::File;
use core::mem::size_of;
use core::ptr::NonNull;
use static_assertions::const_assert;

/// The kernel's `struct page_region`: pages in a row of which the same is true.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
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

/// Ranges that the kernel tells of at a time.
const REGIONS: usize = 64;

/// As [`Os::written`](super::Os::written), by this file.
pub(super) fn written(file: &File, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
    let start = ptr.as_ptr() as u64;
    let mut regions = [PageRegion::default(); REGIONS];
    let mut scan = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        flags: 0,
        start,
        end: start + len as u64,
        walk_end: 0,
        vec: 0,
        vec_len: REGIONS as u64,
        max_pages: 0,
        category_inverted: IS_PFNZERO,
        category_mask: IS_PFNZERO,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_PRESENT | IS_SWAPPED,
    };
    let mut told_to = start;
    while told_to < scan.end {
        (scan.start, scan.vec) = (told_to, regions.as_mut_ptr() as u64);
        // SAFETY: the request, which leads to room for the answer.
        let told = unsafe { file.ask(PAGEMAP_SCAN, &mut scan) };
        let told = told.and_then(|told| regions.get(..told));
        let Some(told) = told.filter(|_| scan.walk_end > told_to) else { break };
        for region in told {
            let within = ptr.as_ptr().wrapping_add((region.start - start) as usize);
            // SAFETY: in the range, so not null.
            show(unsafe { NonNull::new_unchecked(within) }, (region.end - region.start) as usize);
        }
        told_to = scan.walk_end.min(scan.end);
    }
    (told_to - start) as usize
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use crate::sys::{Os, Unix};
    use core::ptr::NonNull;
    use std::vec::Vec;

    const PAGE: usize = 4096;

    /// The pages of a mapping that are told to be written, and how many it is told of.
    fn told(ptr: NonNull<u8>, pages: usize) -> (Vec<usize>, usize) {
        let mut written = Vec::new();
        let told = Unix.written(ptr, pages * PAGE, &mut |page, len| {
            let first = (page.as_ptr() as usize - ptr.as_ptr() as usize) / PAGE;
            written.extend(first..first + len / PAGE);
        });
        (written, told / PAGE)
    }

    #[test]
    fn pages_that_were_written_are_told_and_no_others() {
        // More ranges than are told at a time.
        const PAGES: usize = 3 * 2 * super::REGIONS + 1;
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
        assert_eq!(Unix.written(odd, PAGE, &mut |_, _| panic!("nothing is shown")), 0);
    }
}
