//! hints: which chunks may have free pages, and how many in a block.
//!
//! # Algorithm
//! A chunk with free pages has a bit in one of the bins of its region, and a region with such a chunk one in the summary. Bits
//! may be set where nothing is free any more: whoever finds one retires it. When all is quiet, none is missing (Bu2, Bu3).
//!
//! # Memory ordering
//! | step                            | order             | so that                                                    |
//! |---------------------------------|-------------------|------------------------------------------------------------|
//! | `publish`: fetch_or on a hint   | Release           | who clears the bit after us sees our change of the word    |
//! | `retire`: fetch_and on a hint   | Acquire           | we see the change of whoever set the bit that we clear     |
//! | looks at hints                  | Relaxed           | a stale hint costs a failed attempt                        |
//!
//! Why Bu2 holds: T1 {clear hint, look at word} races with T2 {change word, set hint}. Both are RMWs of the hint word:
//! if T1's is first, the bit ends set; if T2's is first, T1 acquires it (RMWs of others in between continue the release
//! sequence) and its second look sees T2's word, and sets the bit again. Neither needs more than its half: T1 has
//! nothing to tell, and T2 looks at nothing afterwards. The argument dies if T2 skips its RMW because a plain load says
//! that the bit is set already, so `publish` never skips; it is called only when the largest free run changes. The same
//! argument, one level up, holds Bu3.

use super::{Buddy, Region};
use crate::chunk::{Change, PageSet};
use crate::config::CHUNKS_PER_REGION;
use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::recheck;
use crate::units::ChunkIndex;

/// The word of one kind, a bin or the whole chunks, in a region or in the summary.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bin(usize),
    Whole,
}

impl<'m, const PAGES: u32> Buddy<'m, PAGES> {
    /// The chunk of lowest address that a bin names.
    #[inline]
    pub(super) fn find(&self, kind: Kind) -> Option<ChunkIndex> {
        loop {
            let regions = self.sum(kind).load(Relaxed);
            if regions == 0 {
                return None;
            }
            let region = regions.trailing_zeros() as usize;
            let chunks = Self::word(&self.regions[region], kind).load(Relaxed);
            if chunks != 0 {
                return Some(ChunkIndex::new(region as u32 * CHUNKS_PER_REGION + chunks.trailing_zeros()));
            }
            self.retire_summary(region, kind);
        }
    }

    /// The chunks with blocks of `2^order` pages or more, whole ones as well, as the hints have it; lowest first.
    #[inline]
    pub(super) fn with_blocks(&self, order: u32) -> impl Iterator<Item = ChunkIndex> + '_ {
        let kinds = move || (order as usize..Self::BINS as usize).map(Kind::Bin).chain([Kind::Whole]);
        let regions = kinds().fold(0, |regions, kind| regions | self.sum(kind).load(Relaxed));
        PageSet::from_bits(regions).iter().flat_map(move |r| {
            let region = &self.regions[r as usize];
            let chunks = kinds().fold(0, |chunks, kind| chunks | Self::word(region, kind).load(Relaxed));
            PageSet::from_bits(chunks).iter().map(move |c| ChunkIndex::new(r * CHUNKS_PER_REGION + c))
        })
    }

    /// Enters `chunk` in the bin of its largest free run, if `change` changed that.
    #[inline]
    pub(super) fn publish(&self, chunk: ChunkIndex, change: Change) {
        if let Some(order) = change.new_max_order(Self::TOP) {
            self.set_hint(chunk, Kind::Bin((order as usize).min(Self::BINS as usize - 1)));
        }
    }

    #[inline]
    pub(super) fn set_hint(&self, chunk: ChunkIndex, kind: Kind) {
        if Self::word(self.region(chunk), kind).fetch_or(Self::bit(chunk), Release) == 0 {
            self.set_summary(Self::region_of(chunk), kind);
        }
    }

    #[inline]
    pub(super) fn set_summary(&self, region: usize, kind: Kind) {
        self.sum(kind).fetch_or(1 << region, Release);
    }

    /// Clears the hint of `chunk` in `bin`, and sets it again if the chunk belongs there after all.
    pub(super) fn retire(&self, chunk: ChunkIndex, bin: usize) {
        let word = &self.region(chunk).bins[bin];
        let after = word.fetch_and(!Self::bit(chunk), Acquire) & !Self::bit(chunk);
        if recheck("the chunk is in the bin after all", Self::bin_of(self.chunk(chunk).free_pages()) == Some(bin)) {
            self.set_hint(chunk, Kind::Bin(bin));
        } else if after == 0 {
            self.retire_summary(Self::region_of(chunk), Kind::Bin(bin));
        }
    }

    /// As `retire`, in every bin from this order on that names the chunk.
    #[cold]
    pub(super) fn retire_all(&self, chunk: ChunkIndex, order: u32) {
        for bin in order as usize..Self::BINS as usize {
            if self.region(chunk).bins[bin].load(Relaxed) & Self::bit(chunk) != 0 {
                self.retire(chunk, bin);
            }
        }
    }

    #[inline]
    pub(super) fn retire_summary(&self, region: usize, kind: Kind) {
        self.sum(kind).fetch_and(!(1 << region), Acquire);
        if recheck("the region has some after all", Self::word(&self.regions[region], kind).load(Relaxed) != 0) {
            self.set_summary(region, kind);
        }
    }

    fn sum(&self, kind: Kind) -> &'m AtomicU64 {
        match kind {
            Kind::Bin(bin) => &self.summary.bins[bin],
            Kind::Whole => &self.summary.whole,
        }
    }

    fn word(region: &Region, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Bin(bin) => &region.bins[bin],
            Kind::Whole => &region.whole,
        }
    }

    #[inline]
    pub(super) fn bin_of(free: PageSet) -> Option<usize> {
        free.max_order(Self::TOP).map(|order| (order as usize).min(Self::BINS as usize - 1))
    }
}
