//! huge: which memory is to be backed by huge pages.
//!
//! A huge page spares the processor misses of its address cache, and the system 512 faults; and makes 2 MiB resident where
//! perhaps little of it is used. `auto` asks for them where that little is little beside all the rest: for chunks that lie
//! *high*, above the first few of the first arena, and for runs longer than a chunk and areas that will be used as a whole,
//! before they are touched (not for what was asked for as zeros, unless it is a run and such blocks were found to be written as a
//! whole: `zeroing`); and for a chunk that has small pages once it has been full from one tick of kswapd to the next (seven eighths of
//! it are in use, and all was touched), and nothing of it ever went back.
//!
//! A program whose blocks have *room*, as they are longer than what it writes into them, would have the rest resident as
//! well. Two signs tell of such blocks before anything of them is written: one grows and is a run of pages or an area then,
//! or a long one is asked for as zeros. Before the first sign the fifth chunk of the first arena lies high enough, and each of
//! the others; after it four more chunks of the first arena have small pages, and one of each other, behind those that had huge
//! ones before it.
//!
//! And the chunks below in the same arena are asked before each second one is backed by huge pages for where it lies, before
//! each of the first eight, and less often where very many lie below, once: unless three quarters of what was given out of them
//! is resident, the heap is *sparse*, and its new chunks have small pages. Long runs, which may be about to be written, are
//! left out, and so are chunks that have or had huge pages; what is left must be a quarter of those chunks, or of so many as
//! have small pages at first, and a half of one. If there was no sign before, such an answer is only a sign: the heap is not
//! called sparse yet, since few chunks were asked. It is a sign, too, if seven eighths of the shorter runs, and of objects longer
//! than a page of the system, lie in chunks with huge pages, since then nothing would be told of them.
//!
//! Long runs and areas are judged by themselves, each by those before it: unless three quarters of what was opened for runs of one
//! arena a while ago, and is in use, is resident, long runs are sparse, and have small pages wherever they lie, until a later look
//! says otherwise or finds nothing ([`Openings`]); and areas if the last but one is. Who reserves room for the worst case would have it
//! resident by 2 MiB.
//!
//! A chunk of which all went back is asked for anew when it is opened again, whatever it was before.
//!
//! A tick looks at each chunk with small pages that has filled up since the last one, but for those of long runs alone: unless seven eighths of it are
//! resident, the heap is sparse, until one that fills up is dense. The holes that a tick makes in slabs count as if they
//! had never been written: to be called sparse for a while costs a program some time, and one that is and was not would
//! keep what it does not need for good.

use crate::config::{
    CHUNKS_PER_REGION, CHUNK_SIZE, HUGE_FROM_CHUNK, LATER_SMALL_CHUNKS, MAX_ARENA_CHUNKS, PAGES_PER_CHUNK, SMALL_CHUNKS,
};
use crate::sync::{atomic::Ordering::Relaxed, const_unless_loom, UnwatchedU32};
use static_assertions::const_assert;

/// What is backed by huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Nothing, even where the system would do so by itself.
    Never,
    /// What is large and long-lived.
    #[default]
    Auto,
    /// All that can be.
    Always,
}

impl HugePages {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "never" => Some(Self::Never),
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            _ => None,
        }
    }
}

/// Before one in so many chunks is opened those below are asked.
const LOOK_EACH: u32 = 2;

/// And in a long arena so seldom that each time it has become longer by a thirty-second.
const LOOK_PART: u32 = 32;

/// The policy of a zone. All zeros: [`HugePages::Auto`], all is dense, and no block has room.
pub struct Policy {
    policy: UnwatchedU32,
    /// One since a block may have room.
    roomy: UnwatchedU32,
    /// Of chunks for where they lie.
    pub places: Density,
    /// Of runs longer than a chunk, for themselves.
    pub runs: Density,
    /// Of areas.
    pub areas: Density,
}

/// Whether blocks of a kind are written as a whole, as far as somebody has looked. All zeros: they are.
pub struct Density {
    sparse: UnwatchedU32,
}

impl Density {
    const_unless_loom! {
        fn new() -> Self {
            Self { sparse: UnwatchedU32::new(0) }
        }
    }

    /// True if they seem to be longer than what is written into them.
    pub fn is_sparse(&self) -> bool {
        self.sparse.load(Relaxed) != 0
    }

    /// Notes what a look has found.
    pub fn note(&self, dense: bool) {
        self.sparse.store(u32::from(!dense), Relaxed);
    }

    /// Notes what a look has found: so many bytes of `all` are resident. Less than a chunk tells nothing, and so no more than what was
    /// thought at first: else who frees what it has, each time before the next look, would be held to what was found once.
    pub fn note_resident(&self, resident: usize, all: usize) {
        self.note(all < CHUNK_SIZE || resident >= all / 4 * 3);
    }
}

/// Which chunks of one arena lie high.
pub struct Height {
    /// Chunks that do not in any case.
    low: u32,
    /// Chunks more that do not since a block may have room.
    more: u32,
    /// Up to this chunk those below were asked.
    looked: UnwatchedU32,
    /// Behind the highest chunk that had huge pages for where it lies before a block may have had room, or would have had
    /// them. Even.
    high: UnwatchedU32,
}

impl Policy {
    const_unless_loom! {
        /// The usual one.
        pub fn new() -> Self {
            let [policy, roomy] = [const { UnwatchedU32::new(0) }; 2];
            Self { policy, roomy, places: Density::new(), runs: Density::new(), areas: Density::new() }
        }
    }

    /// What it is.
    pub fn get(&self) -> HugePages {
        match self.policy.load(Relaxed) {
            1 => HugePages::Never,
            2 => HugePages::Always,
            _ => HugePages::Auto,
        }
    }

    /// Another one, for memory that is asked for from now on.
    pub fn set(&self, policy: HugePages) {
        let word = match policy {
            HugePages::Auto => 0,
            HugePages::Never => 1,
            HugePages::Always => 2,
        };
        self.policy.store(word, Relaxed);
    }

    /// Notes that a block may have room.
    #[inline]
    pub fn note_room(&self) {
        // Read first, so that the line stays with whoever reads it.
        if !self.has_room() {
            self.roomy.store(1, Relaxed);
        }
    }

    /// True if a block may have room.
    pub fn has_room(&self) -> bool {
        self.roomy.load(Relaxed) != 0
    }
}

impl Height {
    /// Of a new arena: the `first` one of its zone, or another.
    pub fn new(first: bool) -> Self {
        let (low, more) =
            if first { (HUGE_FROM_CHUNK, SMALL_CHUNKS - HUGE_FROM_CHUNK) } else { (0, LATER_SMALL_CHUNKS) };
        Self { low, more, looked: UnwatchedU32::new(0), high: UnwatchedU32::new(0) }
    }

    /// Chunks from this one on lie high enough for huge pages.
    pub fn from_chunk(&self, policy: &Policy) -> u32 {
        if policy.has_room() {
            self.high.load(Relaxed).max(self.low) + self.more
        } else {
            self.low
        }
    }

    /// Chunks with small pages below this one, if none had huge pages before a block may have had room: at most.
    pub fn small_below(&self, chunk: u32) -> u32 {
        chunk.min(self.low + self.more)
    }

    /// Notes that chunks below this one have huge pages for where they lie, or would have had them.
    pub fn note_high(&self, policy: &Policy, chunk: u32) {
        if !policy.has_room() {
            let even = chunk.div_ceil(LOOK_EACH) * LOOK_EACH;
            self.high.store(self.high.load(Relaxed).max(even), Relaxed);
        }
    }

    /// Whether the chunks below this one are to be asked: once, but for threads that come at the same time, and for chunks that
    /// went back.
    pub fn looks_below(&self, chunk: u32) -> bool {
        let each = LOOK_EACH.max(chunk.next_power_of_two() / LOOK_PART);
        let looks = chunk > self.looked.load(Relaxed) && (chunk < SMALL_CHUNKS || chunk & (each - 1) == 0);
        if looks {
            self.looked.store(chunk, Relaxed);
        }
        looks
    }

    /// Notes that all of a chunk went back: before it is opened again those below may be asked again.
    pub fn note_purged(&self, chunk: u32) {
        if chunk <= self.looked.load(Relaxed) {
            self.looked.store(chunk.saturating_sub(1), Relaxed);
        }
    }
}

/// Openings that are remembered: the last one, the one before it, and as many as are asked about at once, at most.
const OPENINGS: usize = 8;

/// Before less is known of, nobody is asked, unless it is so many openings.
const ASKED_PAGES: u32 = 8 * PAGES_PER_CHUNK;

// One word is enough for one: half of it for the chunk, half of it for pages.
const_assert!(MAX_ARENA_CHUNKS <= 1 << 16 && CHUNKS_PER_REGION * PAGES_PER_CHUNK < 1 << 16);

/// The chunks of one arena that were opened for long runs, of late: for each run the first chunk, and the pages from there on that
/// are its own. Threads that come at the same time may lose one. A few are *witnesses*, which have small pages if the run is short: one
/// chunk of which little is written tells as little as one of which all is, while both are huge pages.
#[derive(Default)]
pub struct Openings {
    ring: [UnwatchedU32; OPENINGS],
    made: UnwatchedU32,
    /// Those before it were asked about.
    asked: UnwatchedU32,
}

impl Openings {
    /// Forgets what is known of `n` chunks from this one on: they are opened again, or something of them goes back.
    pub fn forget(&self, chunk: u32, n: u32) {
        for place in &self.ring {
            let word = place.load(Relaxed);
            let (first, pages) = (word >> 16, word & 0xffff);
            if first < chunk + n && chunk < first + pages.div_ceil(PAGES_PER_CHUNK) {
                place.store(0, Relaxed);
            }
        }
    }

    /// Notes another one. Returns whether it is to be a witness, and those that are to be asked about now, if some are: those before the
    /// last one, which may be about to be written.
    pub fn note(&self, chunk: u32, pages: u32) -> (bool, Option<impl Iterator<Item = (u32, u32)> + '_>) {
        let this = self.made.fetch_add(1, Relaxed);
        self.place(this).store(chunk << 16 | pages, Relaxed);
        let before = this.wrapping_sub(self.asked.load(Relaxed)).min(OPENINGS as u32 - 1);
        let (first, n) = (this.wrapping_sub(before), before.saturating_sub(1));
        let old = (0..n).map(move |i| first.wrapping_add(i));
        let at = |opening| {
            let word = self.place(opening).load(Relaxed);
            (word >> 16, word & 0xffff)
        };
        let pages: u32 = old.clone().map(|opening| at(opening).1).sum();
        let due = pages >= ASKED_PAGES || n as usize == OPENINGS - 2;
        if due {
            self.asked.store(this.wrapping_sub(1), Relaxed);
        }
        // The third, then each time that there are twice as many more. Each costs five hundred faults.
        let is_witness = this >= 2 && this.wrapping_add(14).is_power_of_two();
        (is_witness, due.then(|| old.map(at)))
    }

    fn place(&self, opening: u32) -> &UnwatchedU32 {
        &self.ring[opening as usize % OPENINGS]
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn long_runs_are_asked_about_once_and_when_two_have_come_since() {
        let openings = Openings::default();
        let asked = |chunk, pages| {
            openings.note(chunk, pages).1.into_iter().flatten().map(|(chunk, _)| chunk).collect::<Vec<_>>()
        };
        let half = ASKED_PAGES / 2;
        assert_eq!([0, 1, 2].map(|chunk| asked(chunk, half)), [[]; 3], "two are enough, but for the last");
        assert_eq!(asked(3, half), [0, 1]);
        assert_eq!((asked(4, half), asked(5, half)), (Vec::new(), std::vec![2, 3]));
        assert_eq!((asked(6, ASKED_PAGES), asked(7, 1), asked(8, 1)), (Vec::new(), std::vec![4, 5], std::vec![6]));
        // So many that little is known of each, and no more than there is room for.
        for chunk in 9..14 {
            assert!(asked(chunk, 1).is_empty(), "{chunk}");
        }
        assert_eq!(asked(14, 1), [7, 8, 9, 10, 11, 12]);
        assert!(openings.note(4095, 4096).1.is_none());
        assert_eq!(openings.place(15).load(Relaxed), 4095 << 16 | 4096);
    }

    #[test]
    fn what_is_opened_again_is_forgotten_and_few_are_witnesses() {
        let openings = Openings::default();
        for chunk in [0, 4, 8, 12, 16, 20, 24] {
            openings.forget(chunk, 2);
            assert!(openings.note(chunk, 1 + PAGES_PER_CHUNK).1.is_none());
        }
        for (chunk, n) in [(1, 2), (3, 2), (8, 1), (13, 1), (14, 2), (18, 2)] {
            openings.forget(chunk, n);
        }
        let asked: Vec<_> =
            openings.note(28, 1).1.unwrap().filter(|(_, pages)| *pages > 0).map(|(chunk, _)| chunk).collect();
        assert_eq!(asked, [16, 20]);
        let openings = Openings::default();
        let witnesses: Vec<_> = (0..100).filter(|chunk| openings.note(*chunk, 1).0).collect();
        assert_eq!(witnesses, [2, 18, 50]);
    }

    fn looks(height: &Height, chunks: core::ops::Range<u32>) -> Vec<u32> {
        chunks.filter(|chunk| height.looks_below(*chunk)).collect()
    }

    #[test]
    fn those_below_are_asked_once_and_again_when_a_chunk_comes_back() {
        let height = Height::new(false);
        assert_eq!(looks(&height, 0..13), [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]);
        assert!(looks(&height, 0..13).is_empty());
        height.note_purged(10);
        assert_eq!(looks(&height, 0..15), [10, 12, 14]);
        height.note_purged(20);
        assert_eq!(looks(&height, 0..17), [16], "it was not asked about");
    }

    #[test]
    fn in_a_long_arena_they_are_asked_seldom() {
        let height = Height::new(false);
        assert_eq!(looks(&height, 64..71), [64, 68]);
        assert_eq!(looks(&height, 2048..2300), [2048, 2176]);
        let all = looks(&Height::new(true), 0..4096).len();
        assert!((100..200).contains(&all), "{all} times");
    }

    #[test]
    fn small_pages_are_below_and_behind_what_had_huge_ones_before_a_sign() {
        for (first, high, before, after) in [(true, 0, 4, 8), (true, 9, 4, 14), (false, 0, 0, 1), (false, 3, 0, 5)] {
            let (height, policy) = (Height::new(first), Policy::new());
            height.note_high(&policy, high);
            assert_eq!(height.from_chunk(&policy), before);
            policy.note_room();
            height.note_high(&policy, 40);
            assert_eq!(height.from_chunk(&policy), after);
        }
    }
}
