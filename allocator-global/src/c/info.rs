//! info: what a C program may ask of its heap, in the forms of glibc.

use super::{export, fail};
use crate::Kmalloc;
use allocator_core::heap::Stats;
use allocator_core::sys::warn;
use core::fmt::{self, Write};
use libc::{c_int, EINVAL, FILE};

/// As `keep` of the module above.
#[inline(never)]
pub(super) fn keep() {}

/// A text in place. What does not fit is an error.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.len..).and_then(|rest| rest.get_mut(..text.len())).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// Bytes from the system, and of those, bytes in use.
fn bytes(stats: &Stats) -> (usize, usize) {
    let used = stats.allocated();
    (stats.committed + stats.area_bytes + stats.aside_bytes, used)
}

fn info() -> libc::mallinfo2 {
    let stats = Kmalloc::stats();
    let (system, used) = bytes(&stats);
    libc::mallinfo2 {
        arena: system.saturating_sub(stats.area_bytes),
        ordblks: stats.free_pages,
        smblks: stats.cached_objects,
        hblks: stats.areas,
        hblkhd: stats.area_bytes,
        usmblks: 0,
        fsmblks: 0,
        uordblks: used.saturating_sub(stats.area_bytes),
        fordblks: system.saturating_sub(used),
        keepcost: stats.free_dirty_pages * allocator_core::config::PAGE_SIZE,
    }
}

export! {
    fn mallinfo2() -> libc::mallinfo2 {
        info()
    }

    fn mallinfo, __libc_mallinfo() -> libc::mallinfo {
        let info = info();
        // What does not fit is cut off, as glibc does it.
        let int = |bytes: usize| bytes as c_int;
        libc::mallinfo {
            arena: int(info.arena),
            ordblks: int(info.ordblks),
            smblks: int(info.smblks),
            hblks: int(info.hblks),
            hblkhd: int(info.hblkhd),
            usmblks: int(info.usmblks),
            fsmblks: int(info.fsmblks),
            uordblks: int(info.uordblks),
            fordblks: int(info.fordblks),
            keepcost: int(info.keepcost),
        }
    }

    // Nothing that it sets is here to be set; to say that it was is what programs expect.
    fn mallopt, __libc_mallopt(_what: c_int, _value: c_int) -> c_int {
        1
    }

    fn malloc_trim(_keep: usize) -> c_int {
        c_int::from(Kmalloc::reclaim() > 0)
    }

    fn malloc_stats() {
        let stats = Kmalloc::stats();
        let (system, used) = bytes(&stats);
        warn(format_args!("system bytes = {system}, in use bytes = {used}, areas = {}, their bytes = {}", stats.areas, stats.area_bytes));
    }

    fn malloc_info(options: c_int, stream: *mut FILE) -> c_int {
        if options != 0 {
            fail(EINVAL);
            return EINVAL;
        }
        let stats = Kmalloc::stats();
        let (system, used) = bytes(&stats);
        let mut text = Text { bytes: [0; 512], len: 0 };
        let fits = write!(
            text,
            "<malloc version=\"1\">\n<heap nr=\"0\">\n<total type=\"rest\" count=\"{}\" size=\"{}\"/>\n\
             <total type=\"mmap\" count=\"{}\" size=\"{}\"/>\n<system type=\"current\" size=\"{system}\"/>\n\
             <inuse type=\"current\" size=\"{used}\"/>\n</heap>\n</malloc>\n",
            stats.free_pages,
            system.saturating_sub(used), stats.areas, stats.area_bytes,
        );
        // At once, so that nobody else's comes in between. It may allocate, and nothing of the heap is held.
        // SAFETY: by contract an open stream, and bytes that are there.
        let written = unsafe { libc::fwrite(text.bytes.as_ptr().cast(), 1, text.len, stream) };
        if fits.is_ok() && written == text.len { 0 } else { -1 }
    }
}
