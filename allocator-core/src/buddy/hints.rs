//! hints: which chunks may have free pages, and how many in a row.
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
//! that the bit is set already, so `publish` never skips; it is called only when the bin of the longest run changes. The same
//! argument, one level up, holds Bu3.

use super::{Buddy, Region, BINS};
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
    Bin(u32),
    Whole,
}

impl<'m, const PAGES: u32> Buddy<'m, PAGES> {
    /// What `look` finds first, of the chunks that a bin names, lowest first.
    #[inline(always)]
    pub(super) fn find_in<T>(&self, bin: u32, look: impl FnMut(ChunkIndex) -> Option<T>) -> Option<T> {
        let kind = Kind::Bin(bin);
        let chunks = |r| {
            let chunks = Self::word(&self.regions[r], kind).load(Relaxed);
            if chunks == 0 {
                self.retire_summary(r, kind);
            }
            chunks
        };
        Self::find(self.sum(kind).load(Relaxed), chunks, look)
    }

    /// The same of the chunks in this bin and those above it, and the whole ones.
    #[inline(always)]
    pub(super) fn find_from<T>(&self, bin: u32, look: impl FnMut(ChunkIndex) -> Option<T>) -> Option<T> {
        let bins = bin as usize..Self::BINS as usize;
        let all = |whole: &AtomicU64, of: &[AtomicU64; BINS]| {
            of[bins.clone()].iter().fold(whole.load(Relaxed), |all, word| all | word.load(Relaxed))
        };
        let chunks = |r| {
            let region: &Region = &self.regions[r];
            all(&region.whole, &region.bins)
        };
        Self::find(all(&self.summary.whole, &self.summary.bins), chunks, look)
    }

    #[inline(always)]
    fn find<T>(
        regions: u64,
        chunks: impl Fn(usize) -> u64,
        mut look: impl FnMut(ChunkIndex) -> Option<T>,
    ) -> Option<T> {
        for r in PageSet::from_bits(regions).iter() {
            for c in PageSet::from_bits(chunks(r as usize)).iter() {
                let found = look(ChunkIndex::new(r * CHUNKS_PER_REGION + c));
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Enters `chunk` in the bin of its longest run, if `change` changed that.
    #[inline]
    pub(super) fn publish(&self, chunk: ChunkIndex, change: Change) {
        if let Some(bin) = change.new_bin() {
            self.set_hint(chunk, Kind::Bin(bin));
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
    pub(super) fn retire(&self, chunk: ChunkIndex, bin: u32) {
        let kind = Kind::Bin(bin);
        let word = Self::word(self.region(chunk), kind);
        let after = word.fetch_and(!Self::bit(chunk), Acquire) & !Self::bit(chunk);
        if recheck("the chunk is in the bin after all", Self::bin_of(self.chunk(chunk).free_pages()) == Some(bin)) {
            self.set_hint(chunk, kind);
        } else if after == 0 {
            self.retire_summary(Self::region_of(chunk), kind);
        }
    }

    /// As `retire`, in every bin from this one on that names the chunk.
    #[cold]
    pub(super) fn retire_all(&self, chunk: ChunkIndex, bin: u32) {
        for bin in bin..Self::BINS {
            if Self::word(self.region(chunk), Kind::Bin(bin)).load(Relaxed) & Self::bit(chunk) != 0 {
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

    /// The bin where a chunk belongs with these free pages: the last one also for a moment before it is parked.
    #[inline]
    pub(super) fn bin_of(free: PageSet) -> Option<u32> {
        free.bin().map(|bin| bin.min(Self::BINS - 1))
    }

    fn sum(&self, kind: Kind) -> &'m AtomicU64 {
        match kind {
            Kind::Bin(bin) => &self.summary.bins[bin as usize],
            Kind::Whole => &self.summary.whole,
        }
    }

    fn word(region: &Region, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Bin(bin) => &region.bins[bin as usize],
            Kind::Whole => &region.whole,
        }
    }
}
