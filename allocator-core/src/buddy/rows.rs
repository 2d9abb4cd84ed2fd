//! rows: the first so many free pages that follow each other in an arena.
//!
//! # Algorithm
//! Chunks are looked at from the lowest address on, each with the free pages that end right before it. Of a row that lies in
//! one chunk or in two, one part is a half of it at least, and has a block of the order that is just no longer than that half:
//! the hints lead there. The other part may be in the chunk before, or in the one behind, to which no hint need lead.
//! Nothing is taken here; who claims a row that was found may find that somebody was faster.

use super::{Buddy, ROW_TRIES};
use crate::chunk::{Chunk, PageSet};
use crate::units::{ChunkIndex, Order, PageCount, PageIndex};

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

    /// Where a row begins that ends in `chunk`, if one does; its free pages are `free`.
    #[inline]
    fn look<const PAGES: u32>(
        &mut self,
        buddy: &Buddy<'_, PAGES>,
        chunk: ChunkIndex,
        free: PageSet,
    ) -> Option<PageIndex> {
        let first = Buddy::<PAGES>::first_page(chunk).get();
        let alone = self.n <= Buddy::<PAGES>::IN_A_CHUNK;
        if alone {
            self.before = 0;
        } else if chunk != self.next {
            self.before = chunk.get().checked_sub(1).map_or(0, |c| buddy.free_in(ChunkIndex::new(c)).tail(PAGES));
        }
        let start = if self.before + free.head() >= self.n {
            Some(first - self.before)
        } else {
            (self.n <= PAGES).then(|| free.first_run_of(self.n)).flatten().map(|start| first + start)
        };
        let all = free == Chunk::<PAGES>::ALL;
        self.before = if all { self.before + PAGES } else { free.tail(PAGES) };
        self.next = ChunkIndex::new(chunk.get() + 1);
        start.map(PageIndex::new)
    }

    /// The same for the chunk behind the last one.
    #[inline]
    fn ends_behind<const PAGES: u32>(&self, buddy: &Buddy<'_, PAGES>) -> Option<PageIndex> {
        let ends = self.n > Buddy::<PAGES>::IN_A_CHUNK
            && self.before > 0
            && (self.next.get() as usize) < buddy.chunks.len()
            && self.before + buddy.free_in(self.next).head() >= self.n;
        ends.then(|| PageIndex::new(Buddy::<PAGES>::first_page(self.next).get() - self.before))
    }
}

impl<const PAGES: u32> Buddy<'_, PAGES> {
    /// The first row of `n` pages, as far as the hints lead to it.
    #[inline(always)]
    pub(super) fn first_row(&self, n: PageCount) -> Option<PageIndex> {
        // Of a row in one chunk or two, one part at least is a half of it, and has a block of this order.
        // `max` is for the compiler, which is to see that no logarithm is taken of nothing.
        let order = n.get().div_ceil(2).max(1).ilog2().min(Self::TOP);
        let (mut search, mut tries) = (Row::new(n), ROW_TRIES);
        for chunk in self.with_blocks(order) {
            let free = self.free_in(chunk);
            if free.max_order(Self::TOP).map_or(true, |is| is < order) {
                self.retire_all(chunk, order);
                continue;
            }
            let found = search.look(self, chunk, free).or_else(|| search.ends_behind(self));
            tries -= 1;
            if found.is_some() || tries == 0 {
                return found;
            }
        }
        None
    }

    /// The first row of `n` pages, by all words.
    pub(super) fn first_row_by_words(&self, n: PageCount) -> Option<PageIndex> {
        let mut search = Row::new(n);
        (0..self.chunks.len() as u32).map(ChunkIndex::new).find_map(|c| search.look(self, c, self.free_in(c)))
    }

    /// The first `n` pages of one chunk that begin with such an alignment, by all words.
    pub(super) fn first_aligned_by_words(&self, n: PageCount, align: Order) -> Option<PageIndex> {
        (0..self.chunks.len() as u32).map(ChunkIndex::new).find_map(|chunk| {
            let start = self.free_in(chunk).first_aligned_run_of(n.get(), align.get())?;
            Some(Self::first_page(chunk) + PageCount::new(start))
        })
    }
}
