//! rows: the first so many free pages that follow each other in an arena.
//!
//! # Algorithm
//! Chunks are looked at from the lowest address on, each with the free pages that end right before it. Few pages lie in one
//! chunk, and the hints lead to the first that has them. Of a longer row one part is a half of it at least, in one of its
//! chunks, and the hints lead there. The other part may be in the chunk before, or in the one behind, to which no hint need lead.
//! Nothing is taken here; who claims a row that was found may find that somebody was faster.

use super::{Buddy, ROW_TRIES};
use crate::chunk::{Chunk, PageSet};
use crate::units::{ChunkIndex, PageCount, PageIndex};

/// A search for pages in a row, from chunk to chunk.
struct Row {
    /// Pages that are wanted.
    n: u32,
    /// The chunk behind the last one that was looked at, and the free pages in a row right before it.
    next: ChunkIndex,
    before: u32,
}

impl Row {
    fn new(n: PageCount) -> Self {
        Self { n: n.get(), next: ChunkIndex::new(0), before: 0 }
    }

    /// Where a row begins that lies in `chunk`, or in part there and before it or behind it; its free pages are `free`.
    #[inline(always)]
    fn look<const PAGES: u32>(
        &mut self,
        buddy: &Buddy<'_, PAGES>,
        chunk: ChunkIndex,
        free: PageSet,
    ) -> Option<PageIndex> {
        let first = Buddy::<PAGES>::first_page(chunk);
        let inside = |free: PageSet| free.first_run_of(self.n).map(|start| first + PageCount::new(start));
        if self.n <= Buddy::<PAGES>::IN_A_CHUNK {
            return inside(free);
        }
        let (head, mut before) = (free.head(), 0);
        if head > 0 {
            before = self.before;
            if chunk != self.next {
                before = chunk.get().checked_sub(1).map_or(0, |c| buddy.free_in(ChunkIndex::new(c)).tail(PAGES));
            }
            if before + head >= self.n {
                return Some(PageIndex::new(first.get() - before));
            }
        }
        if free.bin() >= Some(PageSet::bin_of(self.n)) {
            let found = inside(free);
            if found.is_some() {
                return found;
            }
        }
        self.before = if free == Chunk::<PAGES>::ALL { before + PAGES } else { free.tail(PAGES) };
        self.next = ChunkIndex::new(chunk.get() + 1);
        self.ends_behind(buddy)
    }

    /// Where one begins that ends in the chunk behind.
    #[inline(always)]
    fn ends_behind<const PAGES: u32>(&self, buddy: &Buddy<'_, PAGES>) -> Option<PageIndex> {
        let ends = self.before > 0
            && (self.next.get() as usize) < buddy.chunks.len()
            && self.before + buddy.free_in(self.next).head() >= self.n;
        ends.then(|| PageIndex::new(Buddy::<PAGES>::first_page(self.next).get() - self.before))
    }
}

impl<const PAGES: u32> Buddy<'_, PAGES> {
    /// The first row of `n` pages, as far as the hints lead to it.
    #[inline(always)]
    pub(super) fn first_row(&self, n: PageCount) -> Option<PageIndex> {
        let part = if n.get() <= Self::IN_A_CHUNK { n.get() } else { n.get().div_ceil(2) };
        let bin = if part < PAGES { PageSet::bin_of(part) } else { Self::BINS };
        let (mut search, mut tries) = (Row::new(n), ROW_TRIES);
        self.find_from(bin, |chunk| {
            let free = self.free_in(chunk);
            if free != Chunk::<PAGES>::ALL && free.bin() < Some(bin) {
                self.retire_all(chunk, bin);
                return None;
            }
            let found = search.look(self, chunk, free);
            tries -= 1;
            (found.is_some() || tries == 0).then_some(found)
        })?
    }

    /// The first row of `n` pages, by all words.
    pub(super) fn first_row_by_words(&self, n: PageCount) -> Option<PageIndex> {
        let mut search = Row::new(n);
        (0..self.chunks.len() as u32).map(ChunkIndex::new).find_map(|c| search.look(self, c, self.free_in(c)))
    }
}
