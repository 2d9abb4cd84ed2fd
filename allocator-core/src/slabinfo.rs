//! slabinfo: read-only reports in the text formats of Linux, written without allocating.
//!
//! Both are values that implement `Display`; each line is read off the heap when it is written. The columns are those
//! of `/proc/slabinfo` (version 2.1) and `/proc/buddyinfo`; pages are pages of the heap, 32 KiB.

use crate::config::{PAGE_SIZE, VMALLOC_THRESHOLD};
use crate::heap::Heap;
use crate::size_class::SizeClass;
use crate::thread::Thread;
use core::fmt;

/// Orders in `/proc/buddyinfo`: one page up to the longest run that an arena serves.
pub const ORDERS: usize = (VMALLOC_THRESHOLD / PAGE_SIZE).trailing_zeros() as usize + 1;

/// The caches of a heap, as `/proc/slabinfo` shows them. The second part is the calling thread's block.
#[derive(Clone, Copy)]
pub struct SlabInfo<'a>(pub &'a Heap, pub Option<&'a Thread>);

/// The free blocks of a heap, as `/proc/buddyinfo` shows them. The second part as above.
#[derive(Clone, Copy)]
pub struct BuddyInfo<'a>(pub &'a Heap, pub Option<&'a Thread>);

impl fmt::Display for SlabInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "slabinfo - version: 2.1")?;
        writeln!(
            f,
            "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> \
             <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>"
        )?;
        for class in SizeClass::all() {
            let usage = self.0.usage(self.1, class);
            writeln!(
                f,
                "{:17} {:6} {:6} {:6} {:4} {:4} : tunables {:4} {:4} {:4} : slabdata {:6} {:6} {:6}",
                class,
                usage.out,
                usage.objects,
                class.size(),
                class.slab_objects(),
                class.slab_pages(),
                class.sheaf_limit(),
                class.sheaf_capacity().div_ceil(2),
                0,
                usage.active_slabs,
                usage.slabs,
                0,
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for BuddyInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blocks = [0; ORDERS];
        self.0.count_blocks(self.1, &mut blocks);
        write!(f, "Node 0, zone {:>8} ", "Normal")?;
        for count in blocks {
            write!(f, "{count:6} ")?;
        }
        writeln!(f)
    }
}
