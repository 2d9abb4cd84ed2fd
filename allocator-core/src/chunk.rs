//! Chunk: as many pages as a word has bits, free or not, in that word.
//!
//! # Algorithm
//! Bit `p` of `free` is set while page `p` is free. A block of `2^k` pages is free when its aligned bits are all set,
//! so the free list of every order is a function of the word ([`PageSet`]): `take` clears a run by one CAS,
//! `give_back` sets it by one `fetch_or`, and buddies merge by lying side by side. `park` trades a chunk that is
//! wholly free for its bit in `Buddy`'s word of whole chunks. `dirty` marks the pages that may hold anything but zeros.
//! `idle` marks free pages that kswapd has seen free before: whoever takes one clears its mark, so a page that is still
//! marked at the next look has been free all the time. It is a hint: a mark that comes too late for a page that was just
//! taken lets that page be purged once too early.
//!
//! The form is the row of LLFree (Wrenger et al., USENIX ATC 2023), made so long that no block ever spans two words.
//!
//! # Invariants (what one word can tell of them is a line of [`Chunk::validate`] or of `Buddy::validate`; the models have the rest)
//! - Ch1: a page has one owner: its bit in `free`, the chunk's bit among the whole ones, a client, or a thread in
//!   transit.
//! - Ch2: while the chunk is parked, or owned as a whole, `free` is zero.
//! - Ch3: only the owner of a page touches its bit of `dirty`; a clear bit is a proof that the page reads as zeros.
//!   `idle` proves nothing.
//!
//! # Memory ordering
//! | step                      | order             | so that                                              |
//! |---------------------------|-------------------|------------------------------------------------------|
//! | `take`, `claim` CAS       | Acquire / Relaxed | we see the writes of all who freed these pages       |
//! | `give_back` fetch_or      | Release           | the next owner sees ours                             |
//! | `open` store              | Release           | as `give_back`: the chunk was ours as a whole        |
//! | `park` CAS                | Acquire / Relaxed | others' pages are taken; `Buddy` passes them on      |
//! | `dirty`                   | Relaxed           | it changes hands with the page, ordered by the above |
//! | first look at `free`      | Relaxed           | a stale value costs one failed CAS                   |
//! | `idle`                    | Relaxed           | a hint; no model watches it                          |
//!
//! `give_back` may be Release only: it takes nothing. RMWs of others in between continue the release sequence, so the
//! CAS that takes a page synchronises with every earlier `give_back` of it.
//!
//! # Not here
//! Which chunk to try, and the hints that say so (`buddy`); when to purge (`kswapd`).

use crate::config::PAGES_PER_CHUNK;
use crate::error::Misuse;
use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{const_unless_loom, UnwatchedU64, Zeroed};
use crate::units::{Order, PageCount};
use core::num::NonZeroU64;

/// Pages of one chunk as a set: a plain value on which the buddy arithmetic is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSet(u64);

/// `STARTS[k]`: every page that is a multiple of `2^k`.
const STARTS: [u64; 7] = {
    let mut starts = [u64::MAX; 7];
    let mut k = 1;
    while k < 7 {
        let s = 1u32 << (k - 1);
        // Of the multiples of 2^(k-1), every other one.
        let mut bits = 0;
        let mut p = 0;
        while p < 64 {
            bits |= 1 << p;
            p += 2 * s;
        }
        starts[k] = bits;
        k += 1;
    }
    starts
};

impl PageSet {
    /// No page.
    pub const EMPTY: Self = Self(0);

    /// The first `n` pages, at most 64.
    pub const fn first(n: u32) -> Self {
        Self(if n >= 64 { u64::MAX } else { (1 << n) - 1 })
    }

    /// `n` pages from `start` on; both within the chunk, `n` above zero.
    pub const fn run(start: u32, n: u32) -> Self {
        Self(Self::first(n).0 << start)
    }

    /// The set with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Number of pages.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// True without pages.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if it has every page of `other`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The pages of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The pages that `other` lacks.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Starts of the aligned runs of `2^k` pages.
    pub const fn aligned_runs(self, k: u32) -> Self {
        let mut runs = self.0;
        let mut i = 0;
        while i < k {
            runs = Self::pairs(runs, i);
            i += 1;
        }
        Self(runs)
    }

    /// From the starts of aligned runs of `2^k` pages to those of twice the length: two that are buddies make one.
    const fn pairs(runs: u64, k: u32) -> u64 {
        runs & runs >> (1u32 << k) & STARTS[k as usize + 1]
    }

    /// Starts of the blocks on the buddy free list of order `k`, below the top order `top`: aligned runs of `2^k` that
    /// are no half of a longer one.
    pub const fn free_list(self, k: u32, top: u32) -> Self {
        let runs = self.aligned_runs(k).0;
        Self(Self::unpaired(runs, Self::longer(runs, k, top), k))
    }

    /// As `pairs`; of the top order nothing is longer.
    const fn longer(runs: u64, k: u32, top: u32) -> u64 {
        if k == top {
            0
        } else {
            Self::pairs(runs, k)
        }
    }

    /// Those of the runs of `2^k` that are no half of a run of twice the length.
    const fn unpaired(runs: u64, longer: u64, k: u32) -> u64 {
        if longer == 0 {
            return runs; // and at the top order there is no second half to shift to
        }
        runs & !(longer | longer << (1u32 << k))
    }

    /// The bin of its longest run.
    pub const fn bin(self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        // A bit stands for so many pages from there on.
        let two = self.0 & self.0 >> 1;
        let four = two & two >> 2;
        let eight = four & four >> 4;
        if eight != 0 {
            let sixteen = eight & eight >> 8;
            let thirty_two = sixteen & sixteen >> 16;
            let all = self.0 == u64::MAX;
            return Some(Self::bin_of(8) + (sixteen != 0) as u32 + (thirty_two != 0) as u32 + all as u32);
        }
        let (mut runs, mut n) = if four == 0 { (u64::MAX, 0) } else { (four, 4) };
        if runs & two >> n != 0 {
            (runs, n) = (runs & two >> n, n + 2);
        }
        if runs & self.0 >> n != 0 {
            n += 1;
        }
        Some(n - 1)
    }

    /// The bin of runs of `n` pages: each length up to seven has its own, longer ones share one up to the next power of two.
    pub const fn bin_of(n: u32) -> u32 {
        if n < 8 {
            n.saturating_sub(1)
        } else {
            n.ilog2() + 4
        }
    }

    /// Pages of the shortest runs of a bin.
    pub const fn shortest_of(bin: u32) -> u32 {
        if bin < 7 {
            bin + 1
        } else {
            8 << (bin - 7)
        }
    }

    /// The first run of pages in the set: its start and length.
    pub const fn first_run(self) -> Option<(u32, u32)> {
        if self.0 == 0 {
            return None;
        }
        let start = self.0.trailing_zeros();
        Some((start, (!(self.0 >> start)).trailing_zeros()))
    }

    /// Its runs of pages, lowest first.
    pub fn runs(self) -> impl Iterator<Item = Self> {
        let mut left = self;
        core::iter::from_fn(move || {
            let (start, n) = left.first_run()?;
            let run = Self::run(start, n);
            left = left.minus(run);
            Some(run)
        })
    }

    /// Its pages, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let page = (left != 0).then(|| left.trailing_zeros());
            left &= left.wrapping_sub(1);
            page
        })
    }

    /// Only whole groups of `2^k` aligned pages.
    pub const fn whole_groups(self, k: u32) -> Self {
        let mut bits = self.aligned_runs(k).0;
        let mut i = 0;
        while i < k {
            bits |= bits << (1u32 << i);
            i += 1;
        }
        Self(bits)
    }

    /// Where `n` pages aligned to `align` are best taken: from the smallest block that holds them, if one can be had
    /// from one that begins in `resident`, lowest first; if no block does, the first of them.
    const fn best_fit(self, n: u32, align: u32, resident: Self, top: u32) -> Option<u32> {
        let fits = n.next_power_of_two().trailing_zeros();
        let mut k = if fits > align { fits } else { align };
        let mut runs = self.aligned_runs(k).0;
        while runs != 0 {
            let longer = Self::longer(runs, k, top);
            let list = Self::unpaired(runs, longer, k);
            if list != 0 {
                let warm = list & resident.0;
                return Some(if warm == 0 { list } else { warm }.trailing_zeros());
            }
            runs = longer;
            k += 1;
        }
        self.first_aligned_run_of(n, align)
    }

    /// Pages in a row from the first one on.
    pub const fn head(self) -> u32 {
        self.0.trailing_ones()
    }

    /// Pages in a row up to the last one of `pages`.
    pub const fn tail(self, pages: u32) -> u32 {
        (self.0 << (64 - pages)).leading_ones()
    }

    /// Start of the first `n` pages in a row, wherever that is.
    pub const fn first_run_of(self, n: u32) -> Option<u32> {
        self.first_aligned_run_of(n, 0)
    }

    /// The same, of those that are multiples of `2^k`.
    pub const fn first_aligned_run_of(self, n: u32, k: u32) -> Option<u32> {
        if n > u64::BITS {
            return None;
        }
        // After the loop a bit stands for `n` set bits from there on; each step doubles what a bit stands for.
        let (mut runs, mut have) = (self.0, 1);
        while have < n && runs != 0 {
            let step = if have < n - have { have } else { n - have };
            runs &= runs >> step;
            have += step;
        }
        runs &= STARTS[k as usize];
        if runs == 0 {
            None
        } else {
            Some(runs.trailing_zeros())
        }
    }
}

/// What an operation did to the word of free pages: `Buddy` keeps its hints by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The pages free before.
    pub before: PageSet,
    /// The pages free after.
    pub after: PageSet,
}

impl Change {
    /// The bin of its longest run now, if it is another one than before. A word that was wholly free for a moment was in none: whoever
    /// takes a part of it enters the rest.
    pub fn new_bin(self) -> Option<u32> {
        self.after.bin().filter(|bin| self.before.bin() != Some(*bin))
    }
}

/// What pages hold that were handed out, added up piece by piece in any order. One word that is never zero, so that an
/// `Option` of a run is passed in two registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content(NonZeroU64);

impl Content {
    /// Beside the lowest bit, which is always set.
    const FRESH: u64 = 2;
    const STALE_SHIFT: u32 = 32;

    /// Of no pages.
    pub const NONE: Self = Self(NonZeroU64::MIN);

    /// Some pages are `fresh`, known to read as zeros and so not resident, or none: among others all behind the first
    /// `stale` ones.
    #[inline(always)]
    pub fn of(fresh: bool, stale: u32) -> Self {
        Self(NonZeroU64::MIN | if fresh { Self::FRESH } else { 0 } | u64::from(stale) << Self::STALE_SHIFT)
    }

    /// The same with some pages of one chunk that follow each other, before which so many of the run lie; `fresh` of them
    /// are.
    #[inline(always)]
    pub fn with(self, before: u32, pages: PageSet, fresh: PageSet) -> Self {
        let stale = pages.minus(fresh).bits();
        let mut end = self.stale().get();
        if stale != 0 {
            end = end.max(before + u64::BITS - stale.leading_zeros() - pages.bits().trailing_zeros());
        }
        Self::of(!self.is_anything() || !fresh.is_empty(), end)
    }

    /// So many pages, from the first one on, may hold anything; all behind them are known to read as zeros.
    #[inline(always)]
    pub fn stale(self) -> PageCount {
        PageCount::new((self.0.get() >> Self::STALE_SHIFT) as u32)
    }

    /// True if all of them are known to read as zeros, and so not resident.
    #[inline(always)]
    pub fn is_zeros(self) -> bool {
        self.stale().get() == 0
    }

    /// True if none is: they may be resident, and hold anything.
    #[inline(always)]
    pub fn is_anything(self) -> bool {
        self.0.get() & Self::FRESH == 0
    }
}

/// Pages taken from a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "pages that are dropped are lost"]
pub struct Taken {
    /// The first page.
    pub start: u32,
    /// Those of its pages that were known to read as zeros.
    pub fresh: PageSet,
    /// What it did to the word.
    pub change: Change,
}

/// The state of one chunk of `PAGES` pages: 64, or fewer in a model. 24 bytes.
pub struct Chunk<const PAGES: u32 = PAGES_PER_CHUNK> {
    free: AtomicU64,
    dirty: AtomicU64,
    idle: UnwatchedU64,
}

#[cfg(not(kmalloc_loom))]
static_assertions::assert_eq_size!(Chunk, [u64; 3]);

impl<const PAGES: u32> Chunk<PAGES> {
    /// Every page of the chunk.
    pub const ALL: PageSet = PageSet::first(PAGES);
    /// The order of the whole chunk.
    pub const TOP: u32 = PAGES.trailing_zeros();

    const_unless_loom! {
        /// A chunk whose pages belong to whoever made it, and are known to be zero. All zeros is the same state.
        pub fn new() -> Self {
            Self { free: AtomicU64::new(0), dirty: AtomicU64::new(0), idle: UnwatchedU64::new(0) }
        }
    }

    /// The pages free at some moment about now.
    pub fn free_pages(&self) -> PageSet {
        PageSet(self.free.load(Relaxed))
    }

    /// The pages that may hold anything but zeros. Only bits of owned pages mean anything for long.
    pub fn dirty_pages(&self) -> PageSet {
        PageSet(self.dirty.load(Relaxed))
    }

    /// The pages that were free at the last [`Chunk::mark_idle`], and that nobody has taken since.
    pub fn idle_pages(&self) -> PageSet {
        PageSet(self.idle.load(Relaxed))
    }

    /// Marks pages that are free at about this moment as idle. Returns those that were not.
    pub fn mark_idle(&self, pages: PageSet) -> PageSet {
        let new = pages.minus(self.idle_pages());
        if !new.is_empty() {
            self.idle.fetch_or(new.0, Relaxed);
        }
        new
    }

    /// Takes `n` pages aligned to `align`, from a block that holds them if there is one. Lock-free.
    pub fn take(&self, n: u32, align: Order) -> Option<Taken> {
        let mut before = self.free_pages();
        loop {
            let start = before.best_fit(n, align.get(), self.dirty_pages(), Self::TOP)?;
            let pages = PageSet::run(start, n);
            let after = before.minus(pages);
            // Acquire meets `give_back`'s Release: the last owner's writes come before ours.
            match self.free.compare_exchange_weak(before.0, after.0, Acquire, Relaxed) {
                Ok(_) => return Some(Taken { start, fresh: self.soil(pages), change: Change { before, after } }),
                Err(now) => before = PageSet(now),
            }
        }
    }

    /// Takes exactly these pages, if all of them are free; to mark them as dirty is left to the caller. Lock-free.
    pub fn claim(&self, pages: PageSet) -> Option<Change> {
        let mut before = self.free_pages();
        loop {
            if !before.contains(pages) {
                return None;
            }
            let after = before.minus(pages);
            match self.free.compare_exchange_weak(before.0, after.0, Acquire, Relaxed) {
                Ok(_) => return Some(Change { before, after }),
                Err(now) => before = PageSet(now),
            }
        }
    }

    /// Those of `pages` whose memory can be freed: not known to be zero, in whole groups of `2^group`, and if `idle` says
    /// so, in groups without a dirty page that is not idle. The words are hints until the pages are the caller's.
    pub fn purgeable(&self, pages: PageSet, group: u32, idle: bool) -> PageSet {
        let dirty = self.dirty_pages();
        let busy = if idle { dirty.minus(self.idle_pages()) } else { PageSet::EMPTY };
        pages.whole_groups(group).and(dirty.spread(group)).minus(busy.spread(group))
    }

    /// Takes every free page that is [`Chunk::purgeable`], to purge it.
    pub fn take_purgeable(&self, group: u32, idle: bool) -> Option<(PageSet, Change)> {
        let mut before = self.free_pages();
        loop {
            let pages = self.purgeable(before, group, idle); // pages taken for nothing do no harm
            if pages.is_empty() {
                return None;
            }
            let after = before.minus(pages);
            match self.free.compare_exchange_weak(before.0, after.0, Acquire, Relaxed) {
                Ok(_) => return Some((pages, Change { before, after })),
                Err(now) => before = PageSet(now),
            }
        }
    }

    /// Gives pages back. Wait-free. Buddies need no merging: two free neighbours are two set bits. The caller has seen
    /// that the chunk is not parked: of a parked chunk the word says nothing (Ch2).
    pub fn give_back(&self, pages: PageSet) -> Result<Change, Misuse> {
        let before = PageSet(self.free.fetch_or(pages.0, Release));
        if before.0 & pages.0 != 0 {
            return Err(Misuse::DoubleFree);
        }
        Ok(Change { before, after: PageSet(before.0 | pages.0) })
    }

    /// Trades a wholly free chunk for the right to mark it as whole. False if somebody was faster.
    pub fn park(&self) -> bool {
        // Acquire: pages that others freed are taken here. They are passed on by the bit among the whole chunks, and
        // from the zero here nobody takes anything.
        self.free.compare_exchange(Self::ALL.0, 0, Acquire, Relaxed).is_ok()
    }

    /// Frees `rest` of a chunk that the caller owns as a whole, and keeps the other pages; tells those of them that were
    /// known to be zero.
    pub fn open(&self, rest: PageSet) -> (PageSet, Change) {
        let fresh = self.soil(Self::ALL.minus(rest));
        // Release: as `give_back`. Nobody else writes the word: taking needs a set bit, and no page is out (Ch2).
        self.free.store(rest.0, Release);
        (fresh, Change { before: PageSet::EMPTY, after: rest })
    }

    /// Marks pages that the caller owns as dirty, and in use; tells those that were known to be zero.
    pub fn soil(&self, pages: PageSet) -> PageSet {
        if !self.idle_pages().and(pages).is_empty() {
            self.idle.fetch_and(!pages.0, Relaxed);
        }
        // The bits of our own pages are not written by others (Ch3), so a plain look is exact.
        let fresh = pages.minus(self.dirty_pages());
        if !fresh.is_empty() {
            self.dirty.fetch_or(pages.0, Relaxed);
        }
        fresh
    }

    /// Marks pages that the caller owns as known to be zero; tells those that were not.
    pub fn cleanse(&self, pages: PageSet) -> PageSet {
        PageSet(self.dirty.fetch_and(!pages.0, Relaxed)).and(pages)
    }

    /// Checks what can be seen of one chunk at a quiet point; `parked`: its bit among the whole chunks.
    pub fn validate(&self, parked: bool) -> Result<(), &'static str> {
        let free = self.free_pages();
        if !Self::ALL.contains(free) || !Self::ALL.contains(self.dirty_pages()) {
            return Err("chunk: a bit beyond the last page");
        }
        if parked && !free.is_empty() {
            return Err("chunk: parked with free pages (Ch2)");
        }
        if free == Self::ALL {
            return Err("chunk: wholly free but not parked");
        }
        Ok(())
    }
}

impl PageSet {
    /// Every page of the groups of `2^k` that have at least one.
    const fn spread(self, k: u32) -> Self {
        let mut bits = self.0;
        let mut i = 0;
        while i < k {
            bits |= bits >> (1u32 << i);
            i += 1;
        }
        Self(bits & STARTS[k as usize]).fill(k)
    }

    const fn fill(self, k: u32) -> Self {
        let mut bits = self.0;
        let mut i = 0;
        while i < k {
            bits |= bits << (1u32 << i);
            i += 1;
        }
        Self(bits)
    }
}

// SAFETY: words of zero are what `new` makes.
unsafe impl Zeroed for Chunk {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        Self::new()
    }
}

impl<const PAGES: u32> Default for Chunk<PAGES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    type Small = Chunk<4>;

    /// The buddy system in so many words: split the chunk in halves until a half is wholly free or one page long.
    fn naive_free_list(bits: u64, start: u32, order: u32, want: u32, out: &mut Vec<u32>) {
        if PageSet(bits).contains(PageSet::run(start, 1 << order)) {
            if order == want {
                out.push(start);
            }
        } else if order > 0 {
            let half = 1 << (order - 1);
            naive_free_list(bits, start, order - 1, want, out);
            naive_free_list(bits, start + half, order - 1, want, out);
        }
    }

    fn pages(set: PageSet) -> Vec<u32> {
        (0..64).filter(|p| set.0 >> p & 1 == 1).collect()
    }

    /// Words of every kind: dense, sparse, of long runs, and the two that chance does not meet.
    fn words() -> impl Strategy<Value = u64> {
        let two = || (any::<u64>(), any::<u64>());
        let runs = (any::<u64>(), 1u32..=6)
            .prop_map(|(bits, k)| (0..64).map(|p| (bits >> (p >> k) & 1) << p).fold(0, |word, bit| word | bit));
        prop_oneof![
            1 => Just(0),
            1 => Just(u64::MAX),
            4 => two().prop_map(|(a, b)| a | b),
            4 => two().prop_map(|(a, b)| a & b),
            4 => runs,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn free_lists_are_those_of_a_buddy_system(bits in words()) {
            for k in 0..=6 {
                let mut naive = Vec::new();
                naive_free_list(bits, 0, 6, k, &mut naive);
                prop_assert_eq!(pages(PageSet(bits).free_list(k, 6)), naive);
            }
        }

        #[test]
        fn a_bin_is_that_of_the_longest_run(bits in words(), part: u64) {
            for set in [PageSet(bits), PageSet(bits & part)] {
                let longest = set.runs().map(PageSet::len).max();
                prop_assert_eq!(set.bin(), longest.map(PageSet::bin_of));
                if let (Some(bin), Some(longest)) = (set.bin(), longest) {
                    prop_assert!((PageSet::shortest_of(bin)..PageSet::shortest_of(bin + 1)).contains(&longest));
                }
                let change = Change { before: PageSet::first(64), after: set };
                prop_assert_eq!(change.new_bin(), set.bin().filter(|_| set != change.before));
            }
        }

        #[test]
        fn best_fit_takes_free_aligned_pages_from_the_smallest_block_if_there_is_one(
            bits in words(), resident: u64, n in 1u32..=64, align in 0u32..=6,
        ) {
            let free = PageSet(bits);
            let k = align.max(n.next_power_of_two().trailing_zeros());
            let fits = |start: &u32| free.contains(PageSet::run(*start, n));
            let first = (0..=64 - n).step_by(1 << align).find(fits);
            let best = free.best_fit(n, align, PageSet(resident), 6);
            match (k..=6).map(|k| pages(free.free_list(k, 6))).find(|list| !list.is_empty()) {
                Some(list) => {
                    let warm = list.iter().find(|start| resident >> **start & 1 == 1);
                    prop_assert_eq!(best.as_ref(), warm.or(list.first()));
                    prop_assert!(best.filter(fits).is_some_and(|start| start % (1 << align) == 0));
                }
                None => prop_assert_eq!(best, first),
            }
        }

        #[test]
        fn groups_are_whole_or_absent(bits in words(), k in 0u32..=3) {
            let whole = PageSet(bits).whole_groups(k);
            prop_assert!(PageSet(bits).contains(whole));
            for group in 0..64 >> k {
                let all = PageSet::run(group << k, 1 << k);
                prop_assert_eq!(whole.contains(all), PageSet(bits).contains(all));
                prop_assert_eq!(PageSet(bits).spread(k).contains(all), PageSet(bits).and(all) != PageSet::EMPTY);
            }
        }
    }

    #[test]
    fn give_back_merges_neighbours_and_refuses_free_pages() {
        let chunk = Small::new();
        let _ = chunk.open(PageSet::EMPTY);
        assert!(chunk.give_back(PageSet::run(0, 1)).is_ok());
        assert!(chunk.take(2, Order::ZERO).is_none());
        assert!(chunk.give_back(PageSet::run(1, 1)).is_ok());
        assert_eq!(chunk.take(2, Order::ZERO).unwrap().start, 0);
        assert!(chunk.give_back(PageSet::run(0, 3)).is_ok());
        assert_eq!(chunk.give_back(PageSet::run(2, 2)), Err(Misuse::DoubleFree));
    }

    #[test]
    fn only_a_wholly_free_chunk_parks() {
        let chunk = Small::new();
        let _ = chunk.open(PageSet::run(1, 3));
        assert!(!chunk.park());
        chunk.give_back(PageSet::run(0, 1)).unwrap();
        assert!(chunk.park() && !chunk.park());
        assert!(chunk.validate(true).is_ok());
    }

    #[test]
    fn pages_are_known_to_be_zero_until_they_were_handed_out() {
        let chunk = Small::new();
        assert_eq!(chunk.open(PageSet::run(1, 3)).0, PageSet::run(0, 1), "fresh pages are zero");
        assert_eq!(chunk.take(1, Order::ZERO).unwrap().fresh, PageSet::run(1, 1));
        chunk.give_back(PageSet::run(0, 2)).unwrap();
        assert!(chunk.take(2, Order::ZERO).unwrap().fresh.is_empty(), "both were out");
        assert_eq!(chunk.cleanse(PageSet::run(0, 2)), PageSet::run(0, 2));
        chunk.give_back(PageSet::run(0, 2)).unwrap();
        assert_eq!(chunk.take(4, Order::ZERO).unwrap().fresh, Small::ALL, "purged and fresh ones alike");
    }

    #[test]
    fn a_claim_takes_all_or_nothing() {
        let chunk = Small::new();
        let _ = chunk.open(PageSet::run(1, 2));
        assert!(chunk.claim(PageSet::run(1, 3)).is_none());
        assert_eq!(chunk.free_pages(), PageSet::run(1, 2));
        assert_eq!(chunk.claim(PageSet::run(1, 2)).unwrap().before, PageSet::run(1, 2));
        assert!(chunk.free_pages().is_empty());
    }
}
