//! Buddy: which pages of an arena are free. Lock-free, and safe code: it hands out numbers, never addresses.
//!
//! # Algorithm
//! Each chunk keeps its free pages in one word (`chunk`). A chunk that is wholly free is *parked*: a bit in its
//! region's `whole` word, where runs of chunks are taken by one CAS just as runs of pages are taken inside a chunk. A
//! chunk that is partly free has a bit in one of the region's `bins`, by its longest run of free pages.
//! One summary word per bin says which regions have a bit set. Bins and summaries are *hints*: they may name a chunk
//! that has nothing, or longer runs by now (it is then retired from the bin), but when all is quiet they miss none (`hints`).
//!
//! One or two pages, and what must be aligned, come from the lowest bin that fits, there from the lowest address, and in
//! that chunk from the smallest block. A whole chunk is opened only when no partly free one has any, which leaves whole
//! chunks for the system and for huge pages, the first key of Temeraire's filler (Hunter et al., OSDI 2021).
//!
//! More pages are a *row*: the first so many free pages that follow each other in the arena, across the edges of blocks
//! and, unless they are so few that a slab may be wanted, of chunks. Most requests are no power of two, and two fifths of the
//! memory under large blocks were the rests of others when these came from blocks as well (`docs/speed.md`). Address-ordered
//! first fit is what Wilson et al. (*Dynamic Storage Allocation*, 1995) recommend. Only chunks whose bin says that a
//! row may begin or end there are looked at, and no more than [`ROW_TRIES`] of them; then the lowest bin will do whose chunks
//! have it for certain (`rows`).
//!
//! A purge takes the pages that it purges, so nobody else needs to know of it. Pages on their way between two words are
//! *in transit*; a word counts how many threads have some, and how many had some before, so that whoever is about to be
//! refused can tell whether a look at all words saw everything.
//!
//! # Invariants (each is a line of [`Buddy::validate`])
//! - Bu1: a chunk's bit in `whole` is set ⇒ its word of free pages is zero (Ch2).
//! - Bu2: at rest, a chunk with free pages has its bit in the bin of its longest run of them.
//! - Bu3: at rest, a word of a region that is not zero has its bit in the summary.
//! - Bu4: at rest, nothing is in transit.
//!
//! # Memory ordering
//! | step                            | order             | so that                                                    |
//! |---------------------------------|-------------------|------------------------------------------------------------|
//! | take chunks: CAS on `whole`     | Acquire / Relaxed | we see the writes of all who had these chunks              |
//! | give chunks back: fetch_or      | Release           | the next owner sees ours                                   |
//! | `transit` begins, then a fence  | Release           | who sees the pages gone (and a fence Acquire) sees it      |
//! | `transit` ends, looks at it     | Release / Acquire | who sees that it has ended sees the pages given back       |
//!
//! `hints` has those of the hints, and why Bu2 and Bu3 hold.
//!
//! Why a sure look is right: say that pages went from word A to word B during it, and it found them in neither. It saw
//! them gone from A, so it sees at its end that their transit had begun. At its beginning, either that had not begun,
//! and the word of transits differs; or it had not ended, and somebody was in transit; or it had ended, and then B was
//! seen.

mod hints;
mod rows;

use self::hints::Kind;
use crate::chunk::{Chunk, Content, PageSet, Taken};
use crate::config::{CHUNKS_PER_REGION, PAGES_PER_CHUNK, REGIONS_PER_ARENA};
use crate::error::Misuse;
use crate::page_counter::PageCounter;
use crate::sync::atomic::{
    fence, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{array_of, const_unless_loom, recheck, Zeroed};
use crate::units::{ChunkIndex, Order, PageCount, PageIndex};

/// Up to 64 chunks: which of them are whole, and hints to those that are partly free.
pub struct Region {
    whole: AtomicU64,
    bins: [AtomicU64; BINS],
}

/// Which regions have a chunk for each bin, and who has pages in transit.
pub struct Summary {
    whole: AtomicU64,
    bins: [AtomicU64; BINS],
    /// Lower half: threads that have pages in transit. Upper half: how often one had.
    transit: AtomicU64,
}

/// One thread in the lower half of `Summary::transit`.
const BEGUN: u64 = 1;
/// One time in the upper half.
const ENDED: u64 = 1 << 32;

/// Bins of partly free chunks.
const BINS: usize = PageSet::bin_of(PAGES_PER_CHUNK - 1) as usize + 1;

/// Chunks that are looked at for a row before one surely has it, and in each bin for pages that are aligned.
pub const ROW_TRIES: usize = 16;
/// So few pages come from the chunk whose longest run is shortest, and there from the smallest block: they are the rest of
/// another request as often as not.
pub const MAX_BLOCK: u32 = 2;

impl Region {
    const_unless_loom! {
        /// No chunk is whole. All zeros is the same state.
        pub fn new() -> Self {
            Self { whole: AtomicU64::new(0), bins: array_of!(BINS, AtomicU64, AtomicU64::new(0)) }
        }
    }
}

impl Summary {
    const_unless_loom! {
        /// Nothing free. All zeros is the same state.
        pub fn new() -> Self {
            Self { whole: AtomicU64::new(0), bins: array_of!(BINS, AtomicU64, AtomicU64::new(0)), transit: AtomicU64::new(0) }
        }
    }
}

// SAFETY: words of zero are what `new` makes.
unsafe impl Zeroed for Region {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        Self::new()
    }
}

/// A run of pages that was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a run that is dropped leaks its pages"]
pub struct Run {
    /// Its first page.
    pub start: PageIndex,
    /// What its pages hold.
    pub content: Content,
}

/// What `Buddy::take_warming` shows chunks to.
pub trait Warm: Fn(PageIndex, PageCount, PageCount) -> bool {}
impl<F: Fn(PageIndex, PageCount, PageCount) -> bool> Warm for F {}

/// Which free pages [`Buddy::purge`] takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purge {
    /// Whole groups of `2^group` pages: a page of the system is so long.
    pub group: u32,
    /// Only those that are idle ([`Buddy::mark_idle`]).
    pub idle: bool,
    /// Only of chunks with so many free pages or more.
    pub least: u32,
    /// No further chunk once so many were discarded.
    pub most: u32,
}

impl Purge {
    /// All of them.
    pub const ALL: Self = Self { group: 0, idle: false, least: 0, most: u32::MAX };
}

/// Why a look at all words found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotFound {
    /// Nothing that was free all the time would do.
    Sure,
    /// Pages may have gone from one word to another behind its back.
    InTransit,
}

/// The free pages of one arena, laid over storage that somebody else provides.
pub struct Buddy<'m, const PAGES: u32 = PAGES_PER_CHUNK> {
    chunks: &'m [Chunk<PAGES>],
    regions: &'m [Region],
    summary: &'m Summary,
    counter: &'m PageCounter,
}

impl<'m, const PAGES: u32> Buddy<'m, PAGES> {
    /// So few pages lie in one chunk: a slab, which has one memmap, and what is not much longer.
    const IN_A_CHUNK: u32 = if PAGES / 8 > MAX_BLOCK { PAGES / 8 } else { MAX_BLOCK };
    const TOP: u32 = Chunk::<PAGES>::TOP;
    const BINS: u32 = PageSet::bin_of(PAGES - 1) + 1;

    /// A buddy over this storage: one region for every 64 chunks. Nothing is free until [`Buddy::add_chunks`].
    /// What may be resident of it is counted by `counter`.
    pub fn new(
        chunks: &'m [Chunk<PAGES>],
        regions: &'m [Region],
        summary: &'m Summary,
        counter: &'m PageCounter,
    ) -> Self {
        debug_assert!(regions.len() <= REGIONS_PER_ARENA as usize && Self::BINS as usize <= BINS);
        debug_assert!(chunks.len() <= regions.len() * CHUNKS_PER_REGION as usize);
        Self { chunks, regions, summary, counter }
    }

    /// Hands chunks that were never used to the buddy. Their pages are known to be zero.
    pub fn add_chunks(&self, first: ChunkIndex, n: u32) {
        for c in first.get()..first.get() + n {
            self.give_back_chunk(ChunkIndex::new(c)).ok();
        }
    }

    /// Takes `n` pages whose start is a multiple of `2^align`; so few as a slab has, or a little more, lie in one chunk.
    /// `None`: no room now. Lock-free, but for what `warm` does.
    pub fn take(&self, n: PageCount, align: Order) -> Option<Run> {
        self.take_warming(n, align, |_, _, _| false)
    }

    /// As `take`. Whole chunks that are known to be zero, so not resident, are shown to `warm` before anybody else can
    /// have a page of them: the first page, how many, and how many of those are asked for. It says whether the first
    /// touch will make a chunk resident as a whole.
    pub fn take_warming(&self, n: PageCount, align: Order, warm: impl Warm) -> Option<Run> {
        debug_assert!(align.get() <= Self::TOP);
        if align == Order::ZERO && n.get() > MAX_BLOCK {
            if let Some(run) = self.take_row(n, || self.first_row(n), &warm) {
                return Some(run);
            }
        }
        if n.get() >= PAGES {
            return self.take_whole(n, self.summary.whole.load(Relaxed), &warm);
        }
        let aligned = 1 << align.get();
        for bin in PageSet::bin_of(n.get().max(aligned))..Self::BINS {
            // Runs so long have them for certain. Of others the search for a row has seen the first ones.
            let surely = PageSet::shortest_of(bin) >= n.get() + aligned - 1;
            if !surely && align == Order::ZERO {
                continue;
            }
            // If none of the longest has them, a chunk is opened.
            let mut tries = if surely || bin == Self::BINS - 1 { usize::MAX } else { ROW_TRIES };
            let look = |chunk| {
                let run = self.take_by_hint(chunk, bin, n, align);
                tries -= usize::from(run.is_none());
                (run.is_some() || tries == 0).then_some(run)
            };
            if let Some(Some(run)) = self.find_in(bin, look) {
                return Some(run);
            }
        }
        self.take_whole(n, self.summary.whole.load(Relaxed), &warm)
    }

    /// Takes pages of a chunk that a bin names, if it is the right one.
    #[inline]
    fn take_by_hint(&self, chunk: ChunkIndex, bin: u32, n: PageCount, align: Order) -> Option<Run> {
        match Self::bin_of(self.chunk(chunk).free_pages()) {
            // It belongs there, but may have no run that is so long or so aligned.
            Some(same) if same == bin => return self.take_in(chunk, n, align),
            // Its free runs have grown since: they are for those who need them. Its hint may not be there yet.
            Some(higher) if higher > bin => {
                let higher = Kind::Bin(higher);
                self.set_hint(chunk, higher);
                // Whoever set that hint first may not have come to the summary yet.
                self.set_summary(Self::region_of(chunk), higher);
            }
            _ => {}
        }
        self.retire(chunk, bin);
        None
    }

    /// Takes the last `n` of `row` pages that are free in a row, as far as hints lead to some: what is before them is room for
    /// whoever lies there. Of a whole chunk the first ones. `warm` as for `take_warming`.
    pub fn take_with_room(&self, n: PageCount, row: PageCount, warm: impl Warm) -> Option<Run> {
        debug_assert!(n <= row);
        let look = || {
            let start = self.first_row(row)? + (row - n);
            let chunk = ChunkIndex::new(start.get() / PAGES);
            Some(if self.is_whole(chunk) { Self::first_page(chunk) } else { start })
        };
        self.take_row(n, look, &warm)
    }

    /// Takes the row that `look` finds. If somebody else has a page of it meanwhile, another one: who fails here has been
    /// overtaken by somebody who did not, or by one who was.
    fn take_row(&self, n: PageCount, look: impl Fn() -> Option<PageIndex>, warm: &impl Warm) -> Option<Run> {
        loop {
            let start = look()?;
            if let Some(content) = self.claim_pages(start, n, warm) {
                return Some(Run { start, content });
            }
        }
    }

    /// Takes `n` pages of whole chunks in a row, in one of these regions; the last chunk is opened if not all of it is asked
    /// for.
    fn take_whole(&self, n: PageCount, regions: u64, warm: &impl Warm) -> Option<Run> {
        let (whole, rest) = (n.get() / PAGES, n.get() % PAGES);
        let chunks = n.get().div_ceil(PAGES);
        let has_row = |r: usize| PageSet::from_bits(self.regions[r].whole.load(Relaxed)).first_run_of(chunks).is_some();
        if !PageSet::from_bits(regions).iter().any(|r| has_row(r as usize)) {
            return None; // a transit for nothing would make a look less sure
        }
        let _transit = (rest > 0).then(|| self.transit());
        let first = self.take_chunks(chunks, regions)?;
        let mut content = self.warm_chunks(first, whole, warm, 0);
        if rest > 0 {
            let fresh = self.open(ChunkIndex::new(first.get() + whole), rest, warm);
            content = content.with(whole * PAGES, PageSet::first(rest), fresh);
        }
        Some(Run { start: Self::first_page(first), content })
    }

    /// Marks whole chunks that the caller owns as dirty, and shows each stretch of those that were known to be zero to
    /// `warm`. Returns what they hold, as a part of a run with so many pages `before` them.
    fn warm_chunks(&self, first: ChunkIndex, n: u32, warm: &impl Warm, before: u32) -> Content {
        let (end, mut cold, mut fresh, mut content) = (first.get() + n, 0, 0, Content::NONE);
        for c in first.get()..=end {
            if c < end {
                let pages = self.chunk(ChunkIndex::new(c)).soil(Chunk::<PAGES>::ALL);
                content = content.with(before + (c - first.get()) * PAGES, Chunk::<PAGES>::ALL, pages);
                fresh += pages.len();
                if pages == Chunk::<PAGES>::ALL {
                    cold += 1;
                    continue;
                }
            }
            if cold > 0 {
                let pages = PageCount::new(cold * PAGES);
                warm(Self::first_page(ChunkIndex::new(c - cold)), pages, pages);
                cold = 0;
            }
        }
        if fresh > 0 {
            self.counter.charge_pages(fresh);
        }
        content
    }

    /// Opens a chunk that the caller owns as a whole, keeps its first `n` pages and frees the others. Returns those kept that
    /// are known to be zero. The caller is in transit.
    fn open(&self, chunk: ChunkIndex, n: u32, warm: &impl Warm) -> PageSet {
        let state = self.chunk(chunk);
        let all = PageCount::new(PAGES);
        // What will be resident as a whole must not be passed over by a purge.
        let warm = state.dirty_pages().is_empty() && warm(Self::first_page(chunk), all, PageCount::new(n));
        // Counted before anybody else can have them, and purge them.
        if warm {
            self.counter.charge_pages(state.soil(Chunk::<PAGES>::ALL).len());
        }
        let (fresh, change) = state.open(Chunk::<PAGES>::ALL.minus(PageSet::first(n)));
        self.charge(fresh);
        self.publish(chunk, change);
        if warm {
            PageSet::first(n)
        } else {
            fresh
        }
    }

    /// Counts pages that were known to be zero, and may be resident from now on. Returns them.
    #[inline(always)]
    fn charge(&self, fresh: PageSet) -> PageSet {
        if !fresh.is_empty() {
            self.counter.charge_pages(fresh.len());
        }
        fresh
    }

    /// As `take`, but asks every word and trusts no hint: for whoever is about to be refused. Between the change of a
    /// word and that of its hints, or between the two steps of clearing a hint in vain, `take` can miss pages of which
    /// nothing is in transit; the words never lie. But a chunk may go from one word to another behind our back: the
    /// error says whether one did. Slow: it looks at every chunk. `warm` as for `take_warming`.
    pub fn take_by_words(&self, n: PageCount, align: Order, warm: impl Warm) -> Result<Run, NotFound> {
        // Acquire meets the Release of a transit's end: its pages are back where the search sees them.
        let before = self.summary.transit.load(Acquire);
        if let Some(run) = self.search_words(n, align, &warm) {
            return Ok(run);
        }
        // The fence meets that of `transit`: who has read a word without the pages sees that they went.
        fence(Acquire);
        let moved = before % ENDED != 0 || self.summary.transit.load(Relaxed) != before;
        Err(if recheck("what is missing may be in transit", moved) { NotFound::InTransit } else { NotFound::Sure })
    }

    fn search_words(&self, n: PageCount, align: Order, warm: &impl Warm) -> Option<Run> {
        if align == Order::ZERO {
            return self.take_row(n, || self.first_row_by_words(n), warm);
        }
        if n.get() < PAGES {
            let mut chunks = (0..self.chunks.len() as u32).map(ChunkIndex::new);
            if let Some(run) = chunks.find_map(|chunk| self.take_in(chunk, n, align)) {
                return Some(run);
            }
        }
        // Every region, whatever the summary says of it.
        self.take_whole(n, PageSet::first(self.regions.len() as u32).bits(), warm)
    }

    fn take_in(&self, chunk: ChunkIndex, n: PageCount, align: Order) -> Option<Run> {
        let Taken { start, fresh, change } = self.chunk(chunk).take(n.get(), align)?;
        self.charge(fresh);
        self.publish(chunk, change);
        let content = Content::NONE.with(0, PageSet::run(start, n.get()), fresh);
        Some(Run { start: Self::first_page(chunk) + PageCount::new(start), content })
    }

    /// Gives a run back, or part of one: any pages that the caller owns. Wait-free but for parking a whole chunk.
    pub fn give_back(&self, start: PageIndex, n: PageCount) -> Result<(), Misuse> {
        let (mut page, end) = (start.get(), start.get() + n.get());
        if end as usize > self.chunks.len() * PAGES as usize {
            return Err(Misuse::Foreign);
        }
        if page / PAGES == (end - 1) / PAGES && n.get() < PAGES {
            return self.give_back_in(ChunkIndex::new(page / PAGES), PageSet::run(page % PAGES, n.get()));
        }
        while page < end {
            let chunk = ChunkIndex::new(page / PAGES);
            let first = page % PAGES;
            let here = (PAGES - first).min(end - page);
            if here == PAGES {
                self.give_back_chunk(chunk)?;
            } else {
                self.give_back_in(chunk, PageSet::run(first, here))?;
            }
            page += here;
        }
        Ok(())
    }

    fn give_back_in(&self, chunk: ChunkIndex, pages: PageSet) -> Result<(), Misuse> {
        // The caller owns a page of this chunk, so nobody can park it meanwhile: a bit seen here decides.
        if self.is_whole(chunk) {
            return Err(Misuse::DoubleFree);
        }
        let change = self.chunk(chunk).give_back(pages)?;
        if change.after == Chunk::<PAGES>::ALL {
            let _transit = self.transit();
            if self.chunk(chunk).park() {
                return self.give_back_chunk(chunk);
            }
            // Somebody took pages of it or parked it: that operation publishes what it left.
            return Ok(());
        }
        self.publish(chunk, change);
        Ok(())
    }

    /// Claims the `more` pages right behind the run of `n` pages at `start`, if all of them are free. Returns what they
    /// hold. `warm` as for `take_warming`.
    pub fn extend(&self, start: PageIndex, n: PageCount, more: PageCount, warm: impl Warm) -> Option<Content> {
        let from = start + n;
        let is_free = |(chunk, pages)| self.free_in(chunk).contains(pages);
        // A look at all of them first, so that little is claimed in vain.
        if (from + more).get() as usize > self.chunks.len() * PAGES as usize || !Self::pieces(from, more).all(is_free) {
            return None;
        }
        self.claim_pages(from, more, &warm)
    }

    /// Takes exactly the `n` pages from `start` on, if all of them are free. Returns what they hold.
    fn claim_pages(&self, start: PageIndex, n: PageCount, warm: &impl Warm) -> Option<Content> {
        let (first, part) = Self::pieces(start, n).next()?;
        if !self.free_in(first).contains(part) {
            return None; // a transit for nothing would make a look less sure
        }
        let _transit = (part.len() < n.get()).then(|| self.transit());
        // The words alone, so that others who need a part of it fail for a moment only, and nothing else is to be undone.
        let (mut had, mut to_open) = (0, None);
        for (chunk, pages) in Self::pieces(start, n) {
            let Some(claimed) = self.claim(chunk, pages) else {
                if had > 0 {
                    self.give_back(start, PageCount::new(had)).ok();
                }
                return None;
            };
            to_open = claimed;
            had += pages.len();
        }
        let soil = |chunk, pages| self.charge(self.chunk(chunk).soil(pages));
        // A part of the first chunk, whole ones, and a part of the last, which is the one that has to be opened. That of the first
        // comes last: `warm` may look at what is dirty below, and nobody has written this yet.
        let head = if part == Chunk::<PAGES>::ALL { 0 } else { part.len() };
        let body = start + PageCount::new(head);
        let (whole, tail) = ((n.get() - head) / PAGES, (n.get() - head) % PAGES);
        let mut content = Content::NONE;
        if whole > 0 {
            content = self.warm_chunks(ChunkIndex::new(body.get() / PAGES), whole, warm, head);
        }
        let last = ChunkIndex::new(((start + n).get() - 1) / PAGES);
        if let Some(_transit) = &to_open {
            let pages = if tail > 0 { tail } else { head };
            content = content.with(n.get() - pages, PageSet::first(pages), self.open(last, pages, warm));
        } else if tail > 0 {
            content = content.with(n.get() - tail, PageSet::first(tail), soil(last, PageSet::first(tail)));
        }
        if head > 0 && (first != last || to_open.is_none()) {
            content = content.with(0, part, soil(first, part));
        }
        Some(content)
    }

    /// Marks pages that the caller owns as known to be zero.
    pub fn cleanse(&self, start: PageIndex, n: PageCount) {
        Self::pieces(start, n).for_each(|(chunk, pages)| _ = self.cleanse_in(chunk, pages));
    }

    fn cleanse_in(&self, chunk: ChunkIndex, pages: PageSet) -> u32 {
        let cleansed = self.chunk(chunk).cleanse(pages).len();
        self.counter.uncharge_pages(cleansed);
        cleansed
    }

    /// The chunks that have some of `n` pages from `start` on, and those pages of each.
    fn pieces(start: PageIndex, n: PageCount) -> impl Iterator<Item = (ChunkIndex, PageSet)> {
        let (mut page, end) = (start.get(), (start + n).get());
        core::iter::from_fn(move || {
            let first = page % PAGES;
            let piece = (page < end).then(|| PageSet::run(first, (PAGES - first).min(end - page)))?;
            let chunk = ChunkIndex::new(page / PAGES);
            page += piece.len();
            Some((chunk, piece))
        })
    }

    /// Takes the words of pages of one chunk that were free a moment ago: all of them, the first ones, or, if the chunk is not
    /// parked, any. If it has to be opened for the first ones, it is in transit until the answer is dropped.
    fn claim(&self, chunk: ChunkIndex, pages: PageSet) -> Option<Option<Transit<'m>>> {
        if !self.is_whole(chunk) {
            let change = self.chunk(chunk).claim(pages)?;
            self.publish(chunk, change);
            return Some(None);
        }
        if !pages.contains(PageSet::first(1)) {
            return None; // somebody has parked it since: it was the neighbours of the run's own pages that were free
        }
        let transit = (pages != Chunk::<PAGES>::ALL).then(|| self.transit());
        self.claim_chunk(chunk).then_some(transit)
    }

    /// Takes free pages that may be resident, as `what` says, lets `discard` free the memory behind each run of them, and
    /// gives them back, known to be zero where it succeeded. Returns how many of those were not known to be zero.
    pub fn purge(&self, what: Purge, mut discard: impl FnMut(PageIndex, PageCount) -> bool) -> u32 {
        let mut purged = 0;
        for i in 0..self.chunks.len() as u32 {
            let chunk = ChunkIndex::new(i);
            let state = self.chunk(chunk);
            if purged >= what.most {
                break;
            }
            let free = self.free_in(chunk);
            if free.len() < what.least || state.purgeable(free, what.group, what.idle).is_empty() {
                continue;
            }
            let _transit = self.transit();
            let mut purge = |run: PageSet| {
                let (start, n) = run.first_run().unwrap_or((0, 0));
                if discard(Self::first_page(chunk) + PageCount::new(start), PageCount::new(n)) {
                    purged += self.cleanse_in(chunk, run);
                }
            };
            if self.claim_chunk(chunk) {
                let pages = state.purgeable(Chunk::<PAGES>::ALL, what.group, what.idle);
                // One call for all of them, if none of them must stay.
                let all = !pages.is_empty() && state.dirty_pages().minus(pages).is_empty();
                if all { Chunk::<PAGES>::ALL } else { pages }.runs().for_each(&mut purge);
                self.give_back_chunk(chunk).ok();
            } else if let Some((pages, change)) = state.take_purgeable(what.group, what.idle) {
                self.publish(chunk, change);
                for run in pages.runs() {
                    purge(run);
                    self.give_back_in(chunk, run).ok();
                }
            }
        }
        purged
    }

    /// Marks every free page that may be resident as idle, until somebody takes it. Returns how many were not.
    pub fn mark_idle(&self) -> u32 {
        let resident = |i| self.free_in(ChunkIndex::new(i)).and(self.chunks[i as usize].dirty_pages());
        (0..self.chunks.len() as u32).map(|i| self.chunks[i as usize].mark_idle(resident(i)).len()).sum()
    }

    /// Takes every chunk of an arena of `n` chunks, so that nobody has or will get a page of it; they are in transit
    /// until the answer is dropped. `None`, and nothing changed, if a page is out.
    pub fn take_all(&self, n: u32) -> Option<Transit<'m>> {
        let transit = self.transit();
        for c in 0..n {
            if !self.claim_chunk(ChunkIndex::new(c)) {
                self.add_chunks(ChunkIndex::new(0), c);
                return None;
            }
        }
        Some(transit)
    }

    /// True while threads have pages in transit, at about this moment.
    pub fn in_transit(&self) -> bool {
        self.summary.transit.load(Relaxed) % ENDED != 0
    }

    /// Adds the free blocks of each order at about this moment: orders inside a chunk, then runs of whole chunks,
    /// the last order counting every run that is as long or longer.
    pub fn count_blocks(&self, blocks: &mut [usize]) {
        let (inside, above) = blocks.split_at_mut(blocks.len().min(Self::TOP as usize));
        for chunk in self.chunks {
            for (order, count) in (0..).zip(inside.iter_mut()) {
                *count += chunk.free_pages().free_list(order, Self::TOP).len() as usize;
            }
        }
        let Some(top) = (above.len() as u32).checked_sub(1).map(|top| top.min(CHUNKS_PER_REGION.ilog2())) else {
            return;
        };
        for region in self.regions {
            let whole = PageSet::from_bits(region.whole.load(Relaxed));
            for (order, count) in (0..=top).zip(above.iter_mut()) {
                *count += whole.free_list(order, top).len() as usize;
            }
        }
    }

    /// The free pages of a chunk at about this moment.
    pub fn free_in(&self, chunk: ChunkIndex) -> PageSet {
        if self.is_whole(chunk) {
            Chunk::<PAGES>::ALL
        } else {
            self.chunk(chunk).free_pages()
        }
    }

    /// True if all pages of a chunk may be resident, and seven in eight are in use, at about this moment.
    pub fn is_full(&self, chunk: ChunkIndex) -> bool {
        self.free_in(chunk).len() <= PAGES / 8 && self.may_be_resident(chunk)
    }

    /// True if all pages of a chunk may be resident.
    pub fn may_be_resident(&self, chunk: ChunkIndex) -> bool {
        self.chunk(chunk).dirty_pages() == Chunk::<PAGES>::ALL
    }

    /// Free pages, and those of them that are not known to be zero, at about this moment.
    pub fn free_pages(&self) -> (usize, usize) {
        let (mut free, mut dirty) = (0, 0);
        for (i, chunk) in self.chunks.iter().enumerate() {
            let pages = self.free_in(ChunkIndex::new(i as u32));
            free += pages.len() as usize;
            dirty += pages.and(chunk.dirty_pages()).len() as usize;
        }
        (free, dirty)
    }

    /// Pages of a chunk that are not known to be zero, at about this moment.
    pub fn dirty_in(&self, chunk: ChunkIndex) -> PageSet {
        self.chunk(chunk).dirty_pages()
    }

    /// Pages that are not known to be zero, at about this moment.
    pub fn dirty_pages(&self) -> u32 {
        self.chunks.iter().map(|chunk| chunk.dirty_pages().len()).sum()
    }

    /// Checks every invariant; for a moment when nobody else is here.
    pub fn validate(&self) -> Result<(), &'static str> {
        for (i, chunk) in self.chunks.iter().enumerate() {
            let at = ChunkIndex::new(i as u32);
            chunk.validate(self.is_whole(at))?;
            if let Some(bin) = Self::bin_of(chunk.free_pages()) {
                if self.region(at).bins[bin as usize].load(Relaxed) & Self::bit(at) == 0 {
                    return Err("buddy: a chunk with free pages is in no bin (Bu2)");
                }
            }
        }
        for (r, region) in self.regions.iter().enumerate() {
            let lost = |word: &AtomicU64, sum: &AtomicU64| word.load(Relaxed) != 0 && sum.load(Relaxed) >> r & 1 == 0;
            if lost(&region.whole, &self.summary.whole)
                || region.bins.iter().zip(&self.summary.bins).any(|(word, sum)| lost(word, sum))
            {
                return Err("buddy: a region with free chunks is not in the summary (Bu3)");
            }
        }
        if self.in_transit() {
            return Err("buddy: pages in transit at rest (Bu4)");
        }
        Ok(())
    }

    /// Takes `n` whole chunks in a row in one of these regions, lowest address first.
    fn take_chunks(&self, n: u32, regions: u64) -> Option<ChunkIndex> {
        for r in PageSet::from_bits(regions).iter() {
            let word = &self.regions[r as usize].whole;
            let mut whole = word.load(Relaxed);
            while let Some(start) = PageSet::from_bits(whole).first_run_of(n) {
                let chunks = PageSet::run(start, n).bits();
                // Acquire meets `give_back_chunk`: the last owners' writes come before ours.
                match word.compare_exchange_weak(whole, whole & !chunks, Acquire, Relaxed) {
                    Ok(_) => {
                        self.note_taken(r as usize, whole & !chunks);
                        return Some(ChunkIndex::new(r * CHUNKS_PER_REGION + start));
                    }
                    Err(now) => whole = now,
                }
            }
            if whole == 0 {
                self.retire_summary(r as usize, Kind::Whole);
            }
        }
        None
    }

    /// Takes exactly this chunk, if it is whole.
    fn claim_chunk(&self, chunk: ChunkIndex) -> bool {
        let (word, bit) = (&self.region(chunk).whole, Self::bit(chunk));
        if word.load(Relaxed) & bit == 0 {
            return false;
        }
        // Acquire meets `give_back_chunk`: the last owner's writes come before ours.
        let before = word.fetch_and(!bit, Acquire);
        self.note_taken(Self::region_of(chunk), before & !bit);
        before & bit != 0
    }

    fn note_taken(&self, region: usize, left: u64) {
        if left == 0 {
            self.retire_summary(region, Kind::Whole);
        }
    }

    /// Makes a chunk that the caller owns whole again.
    fn give_back_chunk(&self, chunk: ChunkIndex) -> Result<(), Misuse> {
        if !self.chunk(chunk).free_pages().is_empty() {
            return Err(Misuse::DoubleFree);
        }
        let before = self.region(chunk).whole.fetch_or(Self::bit(chunk), Release);
        if before & Self::bit(chunk) != 0 {
            return Err(Misuse::DoubleFree);
        }
        if before == 0 {
            self.set_summary(Self::region_of(chunk), Kind::Whole);
        }
        Ok(())
    }

    fn is_whole(&self, chunk: ChunkIndex) -> bool {
        self.region(chunk).whole.load(Relaxed) & Self::bit(chunk) != 0
    }

    fn transit(&self) -> Transit<'m> {
        self.summary.transit.fetch_add(BEGUN, Relaxed);
        // The pages leave their word by a CAS that comes after; its readers are to see the count.
        fence(Release);
        Transit(&self.summary.transit)
    }

    fn chunk(&self, chunk: ChunkIndex) -> &'m Chunk<PAGES> {
        &self.chunks[chunk.get() as usize]
    }

    fn region(&self, chunk: ChunkIndex) -> &'m Region {
        &self.regions[Self::region_of(chunk)]
    }

    const fn region_of(chunk: ChunkIndex) -> usize {
        (chunk.get() / CHUNKS_PER_REGION) as usize
    }

    const fn bit(chunk: ChunkIndex) -> u64 {
        1 << (chunk.get() % CHUNKS_PER_REGION)
    }

    const fn first_page(chunk: ChunkIndex) -> PageIndex {
        PageIndex::new(chunk.get() * PAGES)
    }
}

/// Pages are between two words while it lives.
#[must_use = "a transit ends when it is dropped"]
pub struct Transit<'m>(&'m AtomicU64);

impl Drop for Transit<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(ENDED - BEGUN, Release);
    }
}

#[cfg(all(test, kmalloc_loom))]
mod loom_tests;
#[cfg(all(test, not(kmalloc_loom)))]
mod model;
#[cfg(all(test, not(kmalloc_loom)))]
mod tests;
