//! backing: which chunks of an arena are backed by huge pages, by what `huge` says and what lies in them.
//!
//! # Algorithm
//! A chunk has small pages (*usual*) from when its arena is reserved. When it is opened and nothing of it is resident, huge pages are
//! asked for or not (`warm`); a tick asks for those of a chunk that is full of what lives long (`ripen`). Whoever frees the memory
//! behind a part of it breaks it up first: it is *small* from then on, or *broken* if it was huge, until all of it went back and
//! it is opened again.
//!
//! What the system says of the chunks below tells whether a program writes what it asks for (`is_dense_below`).
//!
//! # Invariants
//! - Bk1: who breaks a chunk up notes it before telling the system. A tick, which owns nothing of the chunk, notes it as huge before,
//!   and looks at the note again afterwards; so a break has the last word. (What is touched before that word may be in a huge page all
//!   the same, and the rest of it is counted only when that is used.) Between note and advice it looks at the pages, too: the chunk may
//!   have gone back meanwhile as a whole, which breaks nothing up, and who opens such a one has all of it counted only if it is huge by
//!   then.
//! - Bk2: `borders` is how many there are, unless two threads have changed chunks beside each other at the same moment: then from
//!   the next tick on.
//!
//! # Memory ordering
//! Relaxed: a note orders nothing but itself. But for one pair of fences, between a tick's note and its look at the pages, and between
//! what an opener's pages were before and its look at the note: one of the two sees what the other one did.

use super::Arena;
use crate::buddy::Warm;
use crate::chunk::PageSet;
use crate::config::{CHUNK_SIZE, PAGES_PER_CHUNK};
use crate::huge::HugePages;
use crate::page::{Backing, ChunkMap, Kind};
use crate::size_class::SizeClass;
use crate::sync::atomic::{
    fence,
    Ordering::{Relaxed, SeqCst},
};
use crate::sync::recheck;
use crate::units::{ChunkIndex, Order, PageCount, PageIndex};
use core::cell::Cell;
use core::ops::Range;
use core::ptr::NonNull;

/// Borders in one arena, at most, between chunks that are backed by huge pages and others: each splits a mapping for the system
/// (which may keep others apart that are alike by now), and it bounds their number for a process (65 530): arenas that are divided
/// as far as that are 64 at most.
const MAX_BORDERS: i32 = 1024;

/// Chunks about which the system is asked in one look, at most.
const ASKED: u32 = 64;

impl Arena {
    /// What is done with chunks of which nothing is resident before they become part of a run of `n` pages.
    pub(super) fn warm(&self, n: PageCount, align: Order, dense: bool) -> impl Warm + '_ {
        // Of all the chunks that a run opens, which may be shown one by one, the first ones tell, and are told.
        let judged = Cell::new(None);
        move |page, pages, wanted| {
            // What these pages were is read before the notes of their chunks (Bk1).
            fence(SeqCst);
            // Opened for the sake of where it begins: with many of those, little of each chunk is used.
            let is_apart = n.get() * 4 <= 1 << align.get();
            let (first, row) = (page.get() / PAGES_PER_CHUNK, pages.get() / PAGES_PER_CHUNK);
            let chunks = || (first..first + row).map(|c| self.map(c));
            let wants = |quarters| wanted.get() >= pages.get() / 4 * quarters;
            self.openings.forget(first, row);
            // One that is as long as a chunk says as little of it by being resident.
            let is_judged = dense && n.get() >= PAGES_PER_CHUNK;
            let may_be_a_witness = row == 1 && n.get() < 2 * PAGES_PER_CHUNK;
            let judge = || self.are_runs_dense(first, wanted, may_be_a_witness);
            let may_be_written = || {
                judged.set(judged.get().or_else(|| is_judged.then(judge)));
                judged.get().unwrap_or(true)
            };
            let by_run = dense && wants(3) && n.get() > PAGES_PER_CHUNK;
            let by_place = || !is_apart && (dense || !wants(1)) && self.is_high(first) && self.is_dense_below(first);
            let all_huge = chunks().all(ChunkMap::is_huge);
            // Near a limit, nothing is resident that nobody asked for.
            let may = (wanted == pages || !self.ground.counter.is_tight())
                && (all_huge || self.may_have(self.more_borders(first, row, true)));
            let asks = match self.ground.huge.get() {
                HugePages::Never => false,
                HugePages::Auto => may_be_written() && may && (by_run || by_place()),
                HugePages::Always => may,
            };
            if !asks {
                // The advice outlives the purge of a whole chunk.
                chunks().filter(|map| map.is_huge()).for_each(|map| self.break_up(map));
                // What could not be broken up is resident as a whole all the same.
                return chunks().any(ChunkMap::is_huge);
            }
            if all_huge {
                return true;
            }
            // SAFETY: pages of the buddy are pages of the range.
            let ptr = unsafe { self.base().add(page.byte_offset()) };
            // SAFETY: whole chunks, and committed.
            let huge = unsafe { self.ground.os.advise_huge(ptr, pages.bytes(), true) };
            if huge {
                (first..first + row).for_each(|c| self.note_huge(c));
                if !by_run {
                    self.height.note_high(self.ground.huge, first + 1);
                }
            }
            huge
        }
    }

    /// Whether long runs are written as a whole, as far as those say that came before. This one opens chunks from `first` on, of
    /// which it has so many pages.
    fn are_runs_dense(&self, first: u32, pages: PageCount, may_be_a_witness: bool) -> bool {
        if !self.ground.os.has_huge_pages() {
            return false; // and nobody need be asked
        }
        let runs = &self.ground.huge.runs;
        let (is_witness, old) = self.openings.note(first, pages.get());
        if let Some(old) = old {
            let [resident, all] = self.resident_of(old);
            runs.note_resident(resident, all);
        }
        !(is_witness && may_be_a_witness || runs.is_sparse())
    }

    /// How many bytes are resident, and of how many, of what was opened: of the chunks with small pages, if they are long
    /// enough, and else of huge pages, too, of which one that is resident says little.
    fn resident_of(&self, opened: impl Iterator<Item = (u32, u32)>) -> [usize; 2] {
        let (mut exactly, mut roughly) = ([0, 0], [0, 0]);
        for (first, pages) in opened {
            for (chunk, here) in (first..).zip((0..pages).step_by(PAGES_PER_CHUNK as usize)) {
                let map = self.map(chunk);
                let (pages, told) = if map.was_never_huge() {
                    (PageSet::first(PAGES_PER_CHUNK), &mut exactly)
                } else {
                    (PageSet::first(PAGES_PER_CHUNK.min(pages - here)), &mut roughly)
                };
                let (buddy, chunk) = (self.buddy(), ChunkIndex::new(chunk));
                // What was freed since may have gone back, and what is not dirty was just claimed.
                for used in pages.minus(buddy.free_in(chunk)).and(buddy.dirty_in(chunk)).runs() {
                    let (start, n) = used.first_run().unwrap_or((0, 0));
                    let len = PageCount::new(n).bytes();
                    let from = map.base().wrapping_add(PageCount::new(start).bytes());
                    told[0] += self.resident(from, len).unwrap_or(len);
                    told[1] += len;
                }
            }
        }
        if exactly[1] >= CHUNK_SIZE {
            exactly
        } else {
            [exactly[0] + roughly[0], exactly[1] + roughly[1]]
        }
    }

    /// Bytes of a part of a chunk that are resident, if the system says so. That it does not is no reason to have small pages.
    fn resident(&self, from: *mut u8, len: usize) -> Option<usize> {
        NonNull::new(from).and_then(|from| self.ground.os.resident(from, len))
    }

    /// Whether a chunk lies so high that the part of it that is never touched is small beside all that lies below.
    fn is_high(&self, chunk: u32) -> bool {
        chunk >= self.height.from_chunk(self.ground.huge)
    }

    /// Notes that chunk `c` is backed by huge pages from now on.
    fn note_huge(&self, c: u32) {
        let (map, more) = (self.map(c), self.more_borders(c, 1, true));
        let is = map.backing();
        if is != Backing::Huge && map.replace_backing(is, Backing::Huge) {
            self.add_borders(more);
        }
    }

    /// What has small pages, and is full of what lives long since the last call: a chunk that was full ([`Buddy::is_full`]) at two calls in a
    /// row. If it is dense, and nothing of it ever went back to the system, it is backed by a huge page from now on,
    /// which makes little resident that was not. Says whether the highest of them that has a slab or a shorter run is dense, if
    /// there is one. One thread at a time.
    pub fn ripen(&self) -> Option<bool> {
        self.borders.store(self.count_borders(), Relaxed);
        if self.ground.huge.get() != HugePages::Auto || self.ground.counter.is_tight() {
            return None;
        }
        let mut told = None;
        for c in 0..self.committed() {
            let map = self.map(c);
            if map.was_never_huge() && map.note_full(self.buddy().is_full(ChunkIndex::new(c))) {
                let dense = self.is_dense(map);
                if dense {
                    self.make_huge(c);
                }
                // Of long runs others tell (`are_runs_dense`).
                if self.has_short_ones(map) {
                    told = Some(dense);
                }
            }
        }
        told
    }

    /// Whether a slab, or a run shorter than a chunk, begins in a chunk.
    fn has_short_ones(&self, map: &ChunkMap) -> bool {
        (0..PAGES_PER_CHUNK).any(|page| match map.tag(page as usize).kind() {
            Kind::Slab { .. } => true,
            Kind::Run(n) => n.get() < PAGES_PER_CHUNK,
            Kind::None => false,
        })
    }

    /// Whether a huge page would add little to what is resident of a chunk, as far as the system says.
    fn is_dense(&self, map: &ChunkMap) -> bool {
        let all = CHUNK_SIZE.saturating_sub(self.rests(map, 0..PAGES_PER_CHUNK));
        self.resident(map.base(), CHUNK_SIZE).map_or(true, |bytes| bytes >= all / 8 * 7)
    }

    /// Bytes of some pages of a chunk that nobody can write: the rests of slabs behind their last objects. At about this
    /// moment.
    fn rests(&self, map: &ChunkMap, pages: Range<u32>) -> usize {
        let page_size = self.ground.os.page_size();
        let of_first = |page| match map.tag(page as usize).kind() {
            Kind::Slab { class, first, .. } if first == page as usize => SizeClass::new(class),
            _ => None,
        };
        pages.filter_map(of_first).map(|class| class.cut().rest(page_size)).sum()
    }

    /// Whether a chunk is backed by huge pages for where it lies: unless the heap is sparse. Those below are asked now and then,
    /// since they may have filled up between two ticks. What they say first is no more than a sign, after which this one has
    /// small pages, and some more have.
    fn is_dense_below(&self, first: u32) -> bool {
        let huge = self.ground.huge;
        if !self.ground.os.has_huge_pages() {
            return false; // and nobody need be asked
        }
        if !huge.places.is_sparse() && self.height.looks_below(first) {
            if huge.has_room() {
                if self.is_sparse_below(first) {
                    huge.places.note(false);
                }
            } else if self.is_blind_below(first) || self.is_sparse_below(first) {
                self.height.note_high(huge, first);
                huge.note_room();
                return false;
            }
        }
        !huge.places.is_sparse()
    }

    /// Whether of what may be a buffer and lies below this chunk, objects longer than a page of the system and runs shorter than a
    /// chunk, seven eighths lie in chunks that have huge pages, or had, where nobody can tell how much of them is written.
    fn is_blind_below(&self, first: u32) -> bool {
        let page_size = self.ground.os.page_size();
        let is_long = |class| SizeClass::new(class).is_some_and(|class| class.size() > page_size);
        let (mut all, mut seen) = (0, 0);
        for map in (0..first).map(|c| self.map(c)) {
            let buffers = (0..PAGES_PER_CHUNK).map(|page| match map.tag(page as usize).kind() {
                Kind::Run(n) if n.get() < PAGES_PER_CHUNK => n.get(),
                Kind::Slab { class, .. } if is_long(class) => 1,
                _ => 0,
            });
            let pages: u32 = buffers.sum();
            all += pages;
            if map.was_never_huge() {
                seen += pages;
            }
        }
        seen < all / 8
    }

    /// Asks the system about the chunks below this one: whether less than three quarters of what can tell how much of its blocks
    /// a program writes is resident. Where little can tell, nothing is known.
    fn is_sparse_below(&self, first: u32) -> bool {
        let enough = (self.height.small_below(first) as usize * CHUNK_SIZE / 4).max(CHUNK_SIZE / 2);
        let (mut all, mut resident) = (0, 0);
        self.each_telling(first, |_, _, given_out| all += given_out);
        if all < enough {
            return false;
        }
        // Once more, since others may not tell any more.
        all = 0;
        self.each_telling(first, |from, len, given_out| {
            all += given_out;
            resident += self.resident(from, len).unwrap_or(given_out);
        });
        all >= enough && resident < all / 4 * 3
    }

    /// Shows that part of each of the lowest chunks below this one, `ASKED` at most, of which what is resident says how much
    /// of its blocks a program writes: its first byte, its length, and how much of it was given out, but for the rests of
    /// slabs. Their holes count as not written. Not those of a chunk that has huge pages, of which all was resident once; nor
    /// those of runs as long as a chunk, which may be about to be written. At about this moment.
    fn each_telling(&self, first: u32, mut show: impl FnMut(*mut u8, usize, usize)) {
        let (mut run_ends, mut left) = (0u32, ASKED);
        for c in 0..first {
            let map = self.map(c);
            let begins = c * PAGES_PER_CHUNK;
            let long = (0..PAGES_PER_CHUNK).find_map(|page| match map.tag(page as usize).kind() {
                Kind::Run(n) if n.get() >= PAGES_PER_CHUNK => Some((page, n.get())),
                _ => None,
            });
            let start = PAGES_PER_CHUNK.min(run_ends.saturating_sub(begins));
            let (end, n) = long.unwrap_or((PAGES_PER_CHUNK, 0));
            run_ends = if n > 0 { begins + end + n } else { run_ends };
            if map.was_never_huge() && start < end && left > 0 {
                left -= 1;
                let pages = PageSet::run(start, end - start);
                let given_out = pages.and(self.buddy().dirty_in(ChunkIndex::new(c)));
                let bytes = |pages| PageCount::new(pages).bytes();
                let writable = bytes(given_out.len()).saturating_sub(self.rests(map, start..end));
                show(map.base().wrapping_add(bytes(start)), bytes(pages.len()), writable);
            }
        }
    }

    /// The caller owns nothing of the chunk, so somebody may break it up meanwhile, or free and open all of it: who is later sees what
    /// the other one has noted (Bk1).
    fn make_huge(&self, c: u32) {
        let (map, more) = (self.map(c), self.more_borders(c, 1, true));
        let Some(base) = NonNull::new(map.base()) else { return };
        if !self.may_have(more) || !map.replace_backing(Backing::Usual, Backing::Huge) {
            return;
        }
        self.add_borders(more);
        fence(SeqCst);
        let went_back = recheck("a chunk went back meanwhile", !self.buddy().may_be_resident(ChunkIndex::new(c)));
        // SAFETY: a chunk of the range, and committed.
        let advised = !went_back && unsafe { self.ground.os.advise_huge(base, CHUNK_SIZE, true) };
        let instead = if went_back { Backing::Usual } else { Backing::Small };
        if !advised && map.replace_backing(Backing::Huge, instead) {
            self.add_borders(-more); // who opened it meanwhile has counted too much of it at most
        }
        if recheck("a chunk was broken up meanwhile", !map.is_huge()) {
            // Even if it was never advised here: it may have been, with others, by who opened it.
            // SAFETY: as above.
            unsafe { self.ground.os.advise_huge(base, CHUNK_SIZE, false) };
        }
    }

    /// The memory behind `n` pages from `start` on, which the caller owns, is about to be freed, unless the system refuses that. Chunks
    /// that have others as well are broken up; of one that goes as a whole, what is known is forgotten.
    pub fn note_going(&self, start: PageIndex, n: PageCount) {
        let (mut page, end) = (start.get(), (start + n).get());
        while page < end {
            let chunk = page / PAGES_PER_CHUNK;
            let next = end.min((chunk + 1) * PAGES_PER_CHUNK);
            self.openings.forget(chunk, 1);
            if next - page < PAGES_PER_CHUNK {
                self.break_up(self.map(chunk));
            } else {
                self.height.note_purged(chunk);
            }
            page = next;
        }
    }

    /// The memory behind a part of a chunk is about to be freed: not to be backed by a huge page any more, since the system
    /// would fill the gap some time. The caller owns something in it.
    pub fn break_up(&self, map: &ChunkMap) {
        let Some(base) = NonNull::new(map.base()) else { return };
        // Kswapd may make it huge meanwhile.
        if map.replace_backing(Backing::Usual, Backing::Small) {
            return;
        }
        let more = self.more_borders(self.page_at(base.as_ptr() as usize).get() / PAGES_PER_CHUNK, 1, false);
        if !self.may_have(more) || !map.replace_backing(Backing::Huge, Backing::Broken) {
            return;
        }
        // SAFETY: a chunk of the range, and committed.
        if unsafe { self.ground.os.advise_huge(base, CHUNK_SIZE, false) } {
            self.add_borders(more);
        } else {
            map.replace_backing(Backing::Broken, Backing::Huge);
        }
    }

    /// How many borders more, or fewer, a row of `n` chunks from `c` on has at its ends once it is backed by huge pages, or not any more.
    fn more_borders(&self, c: u32, n: u32, huge: bool) -> i32 {
        let beside = [c.checked_sub(1), Some(c + n).filter(|c| *c < self.chunks)];
        let differs = |c: u32| if self.map(c).is_huge() == huge { -1 } else { 1 };
        beside.into_iter().flatten().map(differs).sum()
    }

    /// Whether so many more are not too many.
    fn may_have(&self, more: i32) -> bool {
        more <= 0 || (self.borders.load(Relaxed) as i32) < MAX_BORDERS
    }

    fn add_borders(&self, more: i32) {
        self.borders.fetch_add(more as u32, Relaxed);
    }

    /// Counts them.
    fn count_borders(&self) -> u32 {
        let end = self.chunks.min(self.committed() + 1);
        (1..end).filter(|c| self.map(c - 1).is_huge() != self.map(*c).is_huge()).count() as u32
    }

    /// How many are known, and how many there are; from now on so many are known.
    #[cfg(test)]
    pub fn set_borders(&self, to: u32) -> (u32, u32) {
        (self.borders.swap(to, Relaxed), self.count_borders())
    }
}
