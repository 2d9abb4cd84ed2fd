//! figures: what a heap has, whether that can be, and whether nothing is lost. Looks only; each holds kswapd still, since pages
//! in transit would be missed.

use super::Heap;
use crate::cache::Usage;
use crate::config::{CHECKED, CHUNK_SIZE, PAGES_PER_CHUNK, PAGE_SIZE, PCP_PAGES};
use crate::live;
use crate::page::Kind;
use crate::size_class::SizeClass;
use crate::thread::Thread;
use crate::units::PageCount;
use crate::zone::Caller;

/// Figures of a heap, in bytes unless a name says otherwise; exact while no other thread is in the allocator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Address space of the arenas; those that are being unmapped are none any more.
    pub reserved: usize,
    /// Part of it that is readable and writable.
    pub committed: usize,
    /// Arenas.
    pub arenas: usize,
    /// Objects that the program has from the caches.
    pub slab_objects: usize,
    /// Bytes of those objects.
    pub slab_bytes: usize,
    /// Free objects that threads hold in their sheaves.
    pub cached_objects: usize,
    /// Pages (32 KiB) of slabs.
    pub slab_pages: usize,
    /// Pages (32 KiB) of runs that threads keep for themselves, until a tick of kswapd.
    pub pcp_pages: usize,
    /// Page runs that the program has.
    pub runs: usize,
    /// Bytes of those runs.
    pub run_bytes: usize,
    /// vmalloc areas that the program has.
    pub areas: usize,
    /// Bytes mapped for them.
    pub area_bytes: usize,
    /// Bytes of areas that were freed, kept for the next one until a tick of kswapd gives them back.
    pub aside_bytes: usize,
    /// Free pages (32 KiB) in the arenas.
    pub free_pages: usize,
    /// Those of them that may be resident.
    pub free_dirty_pages: usize,
    /// Those of the committed bytes for whose chunks huge pages were asked.
    pub huge: usize,
    /// Threads of the program that have a thread block now.
    pub threads: usize,
    /// Elements that the reclamation scheme has for itself.
    pub internal_objects: usize,
    /// Bytes that count towards a limit: pages that may be resident, and areas.
    pub charged: usize,
    /// Bytes that the system refused to take back, kept for later use.
    pub kept: usize,
    /// Bytes mapped for what the heap needs itself: descriptors, the address table, thread blocks.
    pub own: usize,
}

impl Stats {
    /// Bytes that the program has, rounded up to classes and pages: of objects, runs and areas.
    pub const fn allocated(&self) -> usize {
        self.slab_bytes + self.run_bytes + self.area_bytes
    }
}

impl Heap {
    /// What the cache of a class has, with what threads hold in their sheaves counted as not in use.
    pub fn usage(&self, thread: Option<&Thread>, class: SizeClass) -> Usage {
        let thread = self.own(thread);
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        let mut usage = self.parts.caches.usage(self.caller(thread), class);
        usage.out = usage.out.saturating_sub(self.parts.registry.cached(class));
        usage
    }

    /// Adds the free blocks of each order in all arenas: orders of pages, the last counting longer runs too.
    pub fn count_blocks(&self, thread: Option<&Thread>, blocks: &mut [usize]) {
        let thread = self.own(thread);
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        self.parts.zone.each_arena(self.caller(thread), &mut |arena| {
            arena.buddy().count_blocks(blocks);
            true
        });
    }

    /// Figures of the heap. Walks the memmap of every arena.
    pub fn stats(&self, thread: Option<&Thread>) -> Stats {
        let thread = self.own(thread);
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        self.figures(thread)
    }

    /// As [`Heap::stats`]. `None`: the calling thread is inside already, or nobody may enter.
    pub fn try_stats(&self, thread: Option<&Thread>) -> Option<Stats> {
        let thread = self.own(thread);
        let _inside = self.parts.gate.enter(self.os(), thread.map(Thread::presence)).ok()?;
        let _still = self.kswapd().hold_still(self.os());
        Some(self.figures(thread))
    }

    fn figures(&self, thread: Option<&Thread>) -> Stats {
        let (caller, os) = (self.caller(thread), self.os());
        let registry = &self.parts.registry;
        let mut stats = Stats { threads: registry.live(os), pcp_pages: registry.kept_pages(), ..Stats::default() };
        (stats.areas, stats.area_bytes) = self.parts.vmalloc.usage(os);
        stats.aside_bytes = self.parts.vmalloc.aside_bytes(os);
        for class in SizeClass::all() {
            let usage = self.parts.caches.usage(caller, class);
            let cached = self.parts.registry.cached(class).min(usage.out);
            stats.slab_objects += usage.out - cached;
            stats.slab_bytes += (usage.out - cached) * class.size();
            stats.cached_objects += cached;
            stats.slab_pages += usage.slabs * class.slab_pages() as usize;
        }
        self.parts.zone.each_arena(caller, &mut |arena| {
            let (free, dirty) = arena.buddy().free_pages();
            stats.arenas += 1;
            stats.reserved += arena.bytes();
            stats.own += arena.own_bytes();
            stats.free_pages += free;
            stats.free_dirty_pages += dirty;
            stats.committed += PageCount::new(arena.committed() * PAGES_PER_CHUNK).bytes();
            for c in 0..arena.committed() {
                let map = arena.map(c);
                stats.huge += if map.is_huge() { CHUNK_SIZE } else { 0 };
                for page in 0..PAGES_PER_CHUNK as usize {
                    if let Kind::Run(pages) = map.tag(page).kind() {
                        stats.runs += 1;
                        stats.run_bytes += pages.bytes();
                    }
                }
            }
            true
        });
        // The walk may have asked for memory for the reclamation scheme.
        stats.internal_objects = self.parts.mempool.in_use(os);
        stats.charged = self.parts.zone.counter.usage();
        stats.kept = self.parts.zone.kept.bytes(os) + self.parts.vmalloc.closed_bytes(os);
        stats.own += self.parts.zone.table.own_bytes() + self.parts.vmalloc.own_bytes(os);
        stats.own += self.parts.mempool.own_bytes(os) + self.parts.registry.own_bytes(os);
        stats
    }

    /// Checks every invariant of every layer; for a moment when no other thread is in the allocator.
    pub fn validate(&self, thread: Option<&Thread>) -> Result<(), &'static str> {
        let thread = self.own(thread);
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        self.validated(thread).map(|_| ())
    }

    /// The figures of a heap whose invariants all hold.
    fn validated(&self, thread: Option<&Thread>) -> Result<Stats, &'static str> {
        let caller = self.caller(thread);
        self.parts.caches.validate(caller, |slab, class| live::validate(&self.parts.zone, slab, class))?;
        self.parts.vmalloc.validate(self.os())?;
        if let Some(thread) = thread {
            // SAFETY: a block is not `Sync`, so who has a reference to it is its thread.
            unsafe { thread.validate(&self.parts.caches, &self.parts.zone, caller) }?;
        }
        let mut found = Ok(());
        self.parts.zone.each_arena(caller, &mut |arena| {
            found = found.and_then(|()| arena.validate());
            found.is_ok()
        });
        found?;
        // Every page is free, in a slab, in a run, or kept by a thread: none is lost, none is counted twice.
        let stats = self.figures(thread);
        if CHECKED {
            let apart = self.live_objects(caller).abs_diff(stats.slab_objects);
            if apart > self.parts.registry.lost(self.os()) {
                return Err("heap: objects that are out are not the live ones (Lv2)");
            }
        }
        let areas = self.parts.vmalloc.charged_bytes(self.os());
        let all_is_walked = !self.parts.zone.awaits_an_arena(caller);
        let mut dirty = 0;
        self.parts.zone.each_arena(caller, &mut |arena| {
            dirty += arena.buddy().dirty_pages() as usize;
            true
        });
        if all_is_walked && self.parts.zone.counter.usage() != dirty * PAGE_SIZE + areas {
            return Err("heap: what may be resident is not what is counted (Pc1)");
        }
        let pages = stats.free_pages + stats.slab_pages + stats.pcp_pages + stats.run_bytes / PAGE_SIZE;
        // A thread that a fork has stopped may have had a run in its hands.
        let in_hands = self.parts.registry.lost(self.os()) * PCP_PAGES as usize;
        if !(pages..=pages + in_hands).contains(&(stats.committed / PAGE_SIZE)) {
            return Err("heap: pages are lost, or have two owners");
        }
        Ok(stats)
    }

    /// Objects that the program has, by their bits.
    fn live_objects(&self, caller: Caller<'_>) -> usize {
        let mut objects = 0;
        self.parts.zone.each_arena(caller, &mut |arena| {
            for map in (0..arena.committed()).map(|c| arena.map(c)) {
                for page in 0..PAGES_PER_CHUNK as usize {
                    let Kind::Slab { class, first, .. } = map.tag(page).kind() else { continue };
                    let class = SizeClass::new(class).filter(|_| first == page);
                    objects += class.map_or(0, |class| live::count(map, page, class));
                }
            }
            true
        });
        objects
    }

    /// Proves that nothing is handed out and nothing lost: [`Heap::validate`], and every object, run and area back,
    /// no slab left, every arena's buddy whole. After a [`Heap::reclaim`] by the only thread that has a block.
    pub fn audit(&self, thread: Option<&Thread>) -> Result<(), &'static str> {
        let thread = self.own(thread);
        let _inside = self.enter(thread);
        let _still = self.kswapd().hold_still(self.os());
        let stats = self.validated(thread)?;
        let Stats { slab_objects, cached_objects, runs, areas, slab_pages, pcp_pages, .. } = stats;
        if slab_objects != 0 {
            return Err("audit: objects are out");
        }
        if runs != 0 {
            return Err("audit: page runs are out");
        }
        if areas != 0 {
            return Err("audit: areas are out");
        }
        if cached_objects != 0 {
            return Err("audit: objects are in sheaves");
        }
        if pcp_pages != 0 {
            return Err("audit: threads keep page runs");
        }
        if slab_pages != 0 {
            return Err("audit: slabs are left");
        }
        let mut whole = true;
        self.parts.zone.each_arena(self.caller(thread), &mut |arena| {
            let mut blocks = [0; PAGES_PER_CHUNK.trailing_zeros() as usize + 1];
            arena.buddy().count_blocks(&mut blocks);
            whole &= blocks[PAGES_PER_CHUNK.trailing_zeros() as usize] == arena.committed() as usize;
            whole
        });
        if !whole {
            return Err("audit: a buddy is not whole");
        }
        Ok(())
    }
}
