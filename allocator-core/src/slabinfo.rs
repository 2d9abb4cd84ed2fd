//! slabinfo: read-only reports in the text formats of Linux, written without allocating.
//!
//! All are values that implement `Display`; each line is read off the heap when it is written. The columns are those of
//! `/proc/slabinfo` (version 2.1) and `/proc/buddyinfo`, the fields those of `/proc/zoneinfo` and `/proc/vmstat`, as far as
//! they mean something here; pages are pages of the heap, 32 KiB.

use crate::config::{CHUNK_SIZE, PAGE_SIZE, VMALLOC_THRESHOLD};
use crate::heap::Heap;
use crate::size_class::SizeClass;
use crate::thread::Thread;
use core::fmt;

/// Orders in `/proc/buddyinfo`: one page up to the longest run that an arena serves.
pub const ORDERS: usize = (VMALLOC_THRESHOLD / PAGE_SIZE).trailing_zeros() as usize + 1;

/// The caches of a heap, as `/proc/slabinfo` shows them. The second part is the calling thread's block.
#[derive(Clone, Copy)]
pub struct SlabInfo<'a>(pub &'a Heap, pub Option<&'a Thread>);

/// The free blocks of a heap, as `/proc/buddyinfo` shows them, and how many of its chunks are backed by huge pages. The second
/// part as above.
#[derive(Clone, Copy)]
pub struct BuddyInfo<'a>(pub &'a Heap, pub Option<&'a Thread>);

/// What is free, and how much of that may stay resident, as `/proc/zoneinfo` shows it. The second part as above.
#[derive(Clone, Copy)]
pub struct ZoneInfo<'a>(pub &'a Heap, pub Option<&'a Thread>);

/// What pages are used for, and what has been given back, as `/proc/vmstat` shows it. The second part as above.
#[derive(Clone, Copy)]
pub struct VmStat<'a>(pub &'a Heap, pub Option<&'a Thread>);

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
        writeln!(f)?;
        let stats = self.0.stats(self.1);
        writeln!(f, "Node 0, huge pages {} of {} chunks", stats.huge / CHUNK_SIZE, stats.committed / CHUNK_SIZE)
    }
}

impl fmt::Display for ZoneInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.0.stats(self.1);
        let bounds = self.0.watermarks(
            stats.free_dirty_pages * PAGE_SIZE,
            stats.committed.saturating_sub(stats.free_pages * PAGE_SIZE),
        );
        writeln!(f, "Node 0, zone {:>8}", "Normal")?;
        writeln!(f, "  pages free     {}", stats.free_pages)?;
        for (name, bytes) in [
            ("boost", 0),
            ("min", bounds.min),
            ("low", bounds.low),
            ("high", bounds.high),
            ("spanned", stats.reserved),
            ("present", stats.committed),
            ("managed", stats.committed),
        ] {
            writeln!(f, "        {name:8} {}", bytes / PAGE_SIZE)?;
        }
        writeln!(f, "      nr_free_pages {}", stats.free_pages)?;
        writeln!(f, "      nr_free_resident {}", stats.free_dirty_pages)
    }
}

impl fmt::Display for VmStat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stats, done) = (self.0.stats(self.1), self.0.kswapd().done());
        let huge = (stats.huge / CHUNK_SIZE) as u64;
        let pages = |bytes: u64| bytes / PAGE_SIZE as u64;
        for (name, count) in [
            ("nr_free_pages", stats.free_pages as u64),
            ("nr_free_resident", stats.free_dirty_pages as u64),
            ("nr_slab_pages", stats.slab_pages as u64),
            ("nr_run_pages", pages(stats.run_bytes as u64)),
            ("nr_pcp_pages", stats.pcp_pages as u64),
            ("nr_vmalloc_pages", pages(stats.area_bytes as u64)),
            ("nr_vmalloc_aside", pages(stats.aside_bytes as u64)),
            ("nr_cached_objects", stats.cached_objects as u64),
            ("nr_charged", pages(stats.charged as u64)),
            ("nr_anon_transparent_hugepages", huge),
            ("pgsteal_kswapd", pages(done.by_ticks)),
            ("pgsteal_direct", pages(done.by_calls)),
            ("limit_failures", self.0.counter().failures()),
            ("kswapd_ticks", done.ticks),
            ("kswapd_wakeups", done.wakeups),
        ] {
            writeln!(f, "{name} {count}")?;
        }
        Ok(())
    }
}
