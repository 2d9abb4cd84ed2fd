//! The buddy against a plain model (`model`): every reachable state of tiny ones, random steps on large ones, and the
//! policy.

extern crate std;

use super::model::*;
use super::*;
use core::sync::atomic::Ordering::Relaxed as Plain;
use proptest::prelude::*;
use std::collections::HashSet;
use std::{vec, vec::Vec};

/// The words of a buddy of at most 64 tiny chunks: all that a later step can depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    free: u64,
    dirty: u64,
    whole: u64,
    bins: [u64; BINS],
    sum_whole: u64,
    sum_bins: [u64; BINS],
}

impl Checked<4> {
    fn save(&self) -> State {
        let word = |pages: &dyn Fn(&Chunk<4>) -> PageSet| {
            self.chunks.iter().rev().fold(0, |word, chunk| word << 4 | pages(chunk).bits())
        };
        State {
            free: word(&|c| c.free_pages()),
            dirty: word(&|c| c.dirty_pages()),
            whole: self.regions[0].whole.load(Plain),
            bins: core::array::from_fn(|b| self.regions[0].bins[b].load(Plain)),
            sum_whole: self.summary.whole.load(Plain),
            sum_bins: core::array::from_fn(|b| self.summary.bins[b].load(Plain)),
        }
    }

    /// Puts the words and the model back to where they were.
    fn load(&mut self, state: &State) {
        for (c, chunk) in self.chunks.iter().enumerate() {
            let part = |word: u64| PageSet::from_bits(word >> (4 * c) & 15);
            self.counter.charge_pages(chunk.open(part(state.free)).0.len());
            self.counter.uncharge_pages(chunk.cleanse(Chunk::<4>::ALL).len());
            self.counter.charge_pages(chunk.soil(part(state.dirty)).len());
            for p in 0..4 {
                let (free, dirty) = (part(state.free).bits() >> p & 1 == 1, part(state.dirty).bits() >> p & 1 == 1);
                self.model[4 * c + p] = match (free || state.whole >> c & 1 == 1, dirty) {
                    (false, _) => Page::Owned,
                    (true, false) => Page::Zero,
                    (true, true) => Page::Dirty,
                };
            }
        }
        self.regions[0].whole.store(state.whole, Plain);
        self.summary.whole.store(state.sum_whole, Plain);
        for b in 0..BINS {
            self.regions[0].bins[b].store(state.bins[b], Plain);
            self.summary.bins[b].store(state.sum_bins[b], Plain);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Take(u32, u32),
    TakeByWords(u32, u32),
    GiveBack(usize, usize),
    Extend(usize, usize, usize),
    Purge(u32, u64),
    TakeAll,
}

/// Every operation that `chunks` tiny chunks allow from here, misuse included.
fn every_op(at: &Checked<4>, purge: bool) -> Vec<Op> {
    let (pages, mut ops) = (at.model.len(), vec![Op::TakeAll]);
    for align in 0..=2 {
        ops.extend([1, 2, 3].map(|n| Op::Take(n, align)));
        ops.extend([1, 2, 3, 4, 8].map(|n| Op::TakeByWords(n, align)));
        ops.extend((4..=pages as u32 + 1).map(|n| Op::Take(n, align)));
    }
    for start in 0..=pages {
        ops.extend((1..=pages - start + 1).map(|n| Op::GiveBack(start, n)));
    }
    for (start, n) in at.owned_runs() {
        for end in start + 1..=start + n {
            // Of the length of the run only its first region matters, and there is but one.
            ops.extend((1..=pages - end + 1).map(|more| Op::Extend(end - 1, 1, more)));
        }
    }
    if purge {
        for group in 0..=2 {
            ops.extend([0, 1, 2, u64::MAX].map(|successes| Op::Purge(group, successes)));
        }
    }
    ops
}

/// Walks through every state that can be reached, with every operation from each. Returns how many states of the pages
/// there were; each comes with several states of the hints.
fn explore(chunks: usize, purge: bool, root: impl Fn(&mut Checked<4>)) -> usize {
    let mut checked = Checked::<4>::new(chunks);
    root(&mut checked);
    checked.compare();
    let mut reached = HashSet::from([checked.save()]);
    let mut unvisited: Vec<State> = reached.iter().copied().collect();
    while let Some(state) = unvisited.pop() {
        checked.load(&state);
        debug_assert_eq!(checked.save(), state);
        for op in every_op(&checked, purge) {
            checked.load(&state);
            let sound = match op {
                Op::Take(n, align) => {
                    checked.take(n, align);
                    true
                }
                Op::TakeByWords(n, align) => {
                    checked.take_by_words(n, align);
                    true
                }
                Op::GiveBack(start, n) => checked.give_back(start, n),
                Op::Extend(start, n, more) => {
                    checked.extend(start, n, more);
                    true
                }
                Op::Purge(group, successes) => {
                    checked.purge(group, false, 0, successes);
                    true
                }
                Op::TakeAll => {
                    checked.take_all();
                    true
                }
            };
            if !sound {
                continue;
            }
            let next = checked.save();
            if next != state && reached.insert(next) {
                checked.compare();
                unvisited.push(next);
            }
        }
    }
    let pages: HashSet<_> = reached.iter().map(|state| (state.free, state.whole, state.dirty)).collect();
    pages.len()
}

#[test]
fn every_reachable_state_of_two_tiny_chunks_follows_the_model_and_finds_every_double_free() {
    let states = explore(2, true, |buddy| buddy.add_chunks(0, 2));
    assert_eq!(states, 3usize.pow(8), "each of eight pages is owned, zero or dirty");
}

#[test]
fn every_reachable_state_of_three_tiny_chunks_without_zero_pages_follows_the_model() {
    let states = explore(3, false, |buddy| {
        buddy.add_chunks(0, 3);
        assert_eq!(buddy.take(12, 0), Some(0));
        assert!(buddy.give_back(0, 12));
    });
    assert_eq!(states, 2usize.pow(12), "each of twelve pages is owned or dirty");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn three_regions_of_the_real_geometry_follow_the_model(
        start: [u8; 2],
        script in proptest::collection::vec(any::<[u8; 6]>().prop_map(Step::decode), 1..80),
    ) {
        play(start, script);
    }
}

/// A buddy of whole and zero chunks.
fn fresh<const P: u32>(chunks: usize) -> Checked<P> {
    let mut checked = Checked::new(chunks);
    checked.add_chunks(0, chunks);
    checked
}

/// A buddy of which every page is out.
fn all_out(chunks: usize) -> Checked<64> {
    let mut checked = fresh(chunks);
    (0..chunks).for_each(|chunk| assert_eq!(checked.take(64, 0), Some(64 * chunk)));
    checked
}

// In the tests of policy the places are written out; that the rest follows the model is checked on the way.

#[test]
fn a_run_is_taken_at_the_lowest_address_of_the_smallest_block_that_fits() {
    let mut buddy = fresh::<64>(2);
    assert_eq!(buddy.take(3, 0), Some(0));
    assert_eq!(buddy.take(1, 0), Some(3), "the page that the three left, not a part of a longer block");
    assert_eq!(buddy.take(4, 0), Some(4));
    assert!(buddy.give_back(1, 1));
    assert!(buddy.give_back(4, 4));
    assert_eq!(buddy.take(2, 0), Some(4), "the four pages at 4 come before the eight at 8");
}

#[test]
fn a_run_is_taken_from_the_lowest_bin_that_fits_even_at_a_higher_address() {
    let mut buddy = fresh::<64>(2);
    assert_eq!(buddy.take(128, 0), Some(0));
    assert!(buddy.give_back(126, 2));
    assert!(buddy.give_back(0, 16));
    assert_eq!(buddy.take(2, 0), Some(126), "chunk 1 can give nothing longer; chunk 0 can");
    assert_eq!(buddy.take(2, 0), Some(0));
}

#[test]
fn a_chunk_whose_free_runs_have_grown_keeps_them_for_those_who_need_them() {
    let mut buddy = fresh::<64>(2);
    assert_eq!(buddy.take(128, 0), Some(0));
    for page in 0..32 {
        assert!(buddy.give_back(page, 1), "it goes through every bin");
    }
    assert!(buddy.give_back(100, 1));
    assert_eq!(buddy.take(1, 0), Some(100), "the only page of chunk 1, at a higher address");
    assert_eq!(buddy.take(32, 5), Some(0));
}

#[test]
fn a_whole_chunk_is_opened_only_when_no_part_of_an_open_one_fits() {
    let mut buddy = fresh::<64>(3);
    assert_eq!(buddy.take(64, 0), Some(0));
    assert_eq!(buddy.take(1, 0), Some(64));
    assert!(buddy.give_back(0, 64));
    assert_eq!(buddy.take(32, 5), Some(96), "the open chunk has them, though a whole one lies lower");
    assert_eq!(buddy.take(32, 5), Some(0), "it has them no more");
}

#[test]
fn a_request_that_no_block_holds_is_served_across_the_edges_of_blocks() {
    let mut buddy = fresh::<64>(2);
    assert_eq!(buddy.take(1, 0), Some(0));
    assert_eq!(buddy.take(33, 1), Some(2), "63 pages are free at 1, but no block of 64");
    assert_eq!(buddy.take(33, 0), Some(35), "a start that is no multiple of anything will do");
    assert_eq!(buddy.take(2, 0), Some(68), "one page is free at 1, and no block of two is as short as the four at 68");
    assert!(buddy.give_back(2, 1));
    assert_eq!(buddy.take(2, 0), Some(1), "two pages that are no block");
}

/// Class of bug: whoever wants pages that are aligned is refused although there are such.
#[test]
fn aligned_pages_that_are_no_block_are_found_before_a_refusal() {
    for (free, len, n, align, start) in [(1, 63, 40, 1, 2), (64 + 8, 5, 5, 3, 64 + 8), (9, 7, 5, 3, usize::MAX)] {
        let mut at = all_out(2);
        at.give_back(free, len);
        at.take_by_words(n, align);
        let is_out = |page: usize| !at.model[page].is_free();
        assert_eq!((free..free + len).find(|page| is_out(*page)).unwrap_or(usize::MAX), start);
    }
}

#[test]
fn warm_pages_come_before_lower_ones_that_are_zero() {
    let mut buddy = fresh::<64>(1);
    assert_eq!(buddy.take(8, 3), Some(0));
    assert_eq!(buddy.take(1, 0), Some(8));
    assert!(buddy.give_back(2, 1));
    buddy.purge(0, false, 0, u64::MAX);
    assert!(buddy.give_back(4, 1));
    assert_eq!(buddy.take(1, 0), Some(4), "2 is lower, but would have to be faulted in");
    assert_eq!(buddy.take(1, 0), Some(2), "a block of one page comes before the two at 10");
}

#[test]
fn more_than_two_pages_are_the_first_row_that_is_long_enough() {
    let mut buddy = fresh::<64>(2);
    assert_eq!(buddy.take(64, 0), Some(0));
    for (start, n) in [(8, 8), (21, 3), (40, 4)] {
        assert!(buddy.give_back(start, n));
    }
    assert_eq!(buddy.take(3, 0), Some(8), "not from the block of four, nor from the three at 21");
    assert_eq!(buddy.take(4, 0), Some(11), "across the edge of a block");
    assert_eq!(buddy.take(3, 0), Some(21), "no block holds them");
    assert_eq!(buddy.take(5, 0), Some(64));
}

#[test]
fn a_row_goes_on_in_the_next_chunk_unless_it_may_be_a_slab() {
    let mut buddy = fresh::<64>(4);
    assert_eq!(buddy.take(128, 0), Some(0));
    assert!(buddy.give_back(60, 20));
    assert_eq!(buddy.take(8, 0), Some(64), "four pages lie before it");
    assert!(buddy.give_back(64, 8));
    assert_eq!(buddy.take(9, 0), Some(60));
    assert_eq!(buddy.take(64 + 48, 0), Some(128), "eleven pages are free below, but none behind them");
    assert!(buddy.give_back(120, 8));
    assert!(buddy.give_back(128, 64));
    assert_eq!(buddy.take(70, 0), Some(120), "the rest of one chunk and most of a whole one");
    assert_eq!(buddy.take(18, 0), None, "two pages of that chunk are left, and sixteen behind the next run");
}

#[test]
fn of_a_row_each_whole_chunk_is_shown_before_it_is_used() {
    let mut buddy = fresh::<64>(4);
    assert_eq!(buddy.take(50, 0), Some(0));
    let shown = core::cell::RefCell::new(Vec::new());
    let warm = |first: PageIndex, n: PageCount, wanted: PageCount| {
        shown.borrow_mut().push((first.get(), n.get(), wanted.get()));
        true
    };
    let run = buddy.buddy().take_warming(PageCount::new(14 + 64 + 10), Order::ZERO, warm).unwrap();
    assert_eq!((run.start.get(), run.content.is_zeros()), (50, true));
    assert_eq!(*shown.borrow(), [(64, 64, 64), (128, 64, 10)]);
    assert_eq!(buddy.counter.usage(), PageCount::new(3 * 64).bytes(), "the last one is resident as a whole");
    assert_eq!(buddy.buddy().dirty_pages(), 3 * 64);
    buddy.buddy().give_back(PageIndex::new(0), PageCount::new(138)).unwrap();
    buddy.buddy().validate().unwrap();
    assert_eq!(buddy.buddy().free_pages(), (4 * 64, 3 * 64));
}

#[test]
fn a_row_begins_in_one_region_and_ends_in_another() {
    let mut buddy = fresh::<64>(68);
    assert_eq!(buddy.take(64 * 62, 0), Some(0));
    assert_eq!(buddy.take(64 * 3, 6), Some(64 * 64), "one that is aligned to a chunk does not");
    assert!(buddy.give_back(64 * 64, 64 * 3));
    assert_eq!(buddy.take(64 * 3, 0), Some(64 * 62));
    buddy.extend(64 * 64, 64, 64);
    assert_eq!(buddy.model[64 * 65], Page::Owned);
}

#[test]
fn where_many_chunks_have_too_little_the_shortest_run_is_taken_and_not_the_first() {
    for more in [0, 1] {
        let mut buddy = all_out(ROW_TRIES + 3);
        let all = buddy.model.len();
        // Each of them has two runs of eight pages, which is a half of sixteen.
        for chunk in 0..ROW_TRIES - 1 + more {
            assert!(buddy.give_back(64 * chunk + 1, 8) && buddy.give_back(64 * chunk + 16, 8));
        }
        let row = 64 * (ROW_TRIES + 1) + 3;
        assert!(buddy.give_back(row, 40) && buddy.give_back(all - 17, 16));
        assert_eq!(buddy.take(16, 0), Some(if more == 0 { row } else { all - 17 }));
    }
}

/// Class of bug: in a fragmented heap a search takes ever longer, or opens a chunk although an open one has room.
#[test]
fn few_pages_in_a_row_are_found_however_many_chunks_have_one_less() {
    for n in 3..=8 {
        let mut buddy = all_out(ROW_TRIES + 3);
        for chunk in 0..=ROW_TRIES {
            assert!(buddy.give_back(64 * chunk, n - 1) && buddy.give_back(64 * chunk + n, n - 1));
        }
        let row = 64 * (ROW_TRIES + 1) + 3;
        assert!(buddy.give_back(row, n) && buddy.give_back(64 * (ROW_TRIES + 2), 64));
        assert_eq!(buddy.take(n as u32, 0), Some(row));
    }
}

/// Class of bug: a chunk is opened for each request although runs that are long enough are free, behind many that are not.
#[test]
fn many_chunks_that_have_too_little_hide_none_that_has_enough() {
    // Of a row, a half is in each of them; of what is aligned, so many pages, but not where they should begin.
    for (too_short, at, n, align) in
        [(16, 0, 17, 0), (9, 3, 10, 0), (2, 1, 2, 1), (8, 1, 8, 3), (15, 1, 3, 3), (40, 1, 32, 5)]
    {
        let mut buddy = all_out(ROW_TRIES + 3);
        for chunk in 0..=ROW_TRIES {
            assert!(buddy.give_back(64 * chunk + at, too_short));
        }
        let long = 64 * (ROW_TRIES + 1);
        assert!(buddy.give_back(long, 40) && buddy.give_back(64 * (ROW_TRIES + 2), 64));
        let taken = buddy.take(n, align).unwrap();
        assert!(taken < 64 * (ROW_TRIES + 2), "a chunk was opened for {n} aligned to 2^{align}");
    }
}

/// Class of bug: a chunk is wholly free for a moment, as one gives the last pages back and another takes some before it is parked;
/// and then no hint leads to what is left.
#[test]
fn who_takes_of_a_chunk_that_is_about_to_be_parked_enters_the_rest() {
    for rest in [1, 5, 31, 32, 33, 50, 63] {
        let checked = all_out(1);
        let (buddy, chunk) = (checked.buddy(), &checked.chunks[0]);
        buddy.give_back(PageIndex::new(0), PageCount::new(12)).unwrap();
        // As `give_back` does before it parks the chunk.
        chunk.give_back(PageSet::run(12, 52)).unwrap();
        let taken = buddy.take_by_words(PageCount::new(64 - rest), Order::ZERO, |_, _, _| false).unwrap();
        assert_eq!(taken.start.get(), 0);
        assert!(!chunk.park());
        buddy.validate().unwrap();
    }
}

#[test]
fn hints_that_are_stale_do_not_count_as_looks() {
    let mut buddy = all_out(ROW_TRIES + 3);
    let all = buddy.model.len();
    for chunk in 0..ROW_TRIES + 1 {
        assert!(buddy.give_back(64 * chunk + 4, 7));
        buddy.extend(64 * chunk + 3, 1, 7); // the bin of seven pages keeps the chunk's bit
    }
    let named = |buddy: &Checked<64>| buddy.regions.iter().map(|r| r.bins[6].load(Plain).count_ones()).sum::<u32>();
    assert_eq!(named(&buddy) as usize, ROW_TRIES + 1);
    assert!(buddy.give_back(all - 7, 7));
    assert_eq!(buddy.take(7, 0), Some(all - 7));
    assert_eq!(named(&buddy), 1, "but for the last, which had them until now");
}

#[test]
fn a_look_for_a_row_of_chunks_that_is_not_there_is_sure() {
    let mut buddy = fresh::<64>(3);
    assert_eq!(buddy.take(64, 0), Some(0));
    assert_eq!(buddy.take(64, 0), Some(64));
    assert!(buddy.give_back(0, 64));
    for n in [65, 100, 128, 200] {
        buddy.take_by_words(n, 0); // the model knows that nothing is in transit
    }
}

/// Class of bug: memory that is in use all the time is given back and faulted in again (jemalloc, decay of zero).
#[test]
fn a_page_that_was_taken_since_the_mark_is_not_idle() {
    let mut buddy = fresh::<64>(3);
    for chunk in 0..3 {
        assert_eq!(buddy.take(64, 0), Some(64 * chunk));
    }
    assert!(buddy.give_back(0, 8) && buddy.give_back(64, 64));
    buddy.mark_idle();
    assert_eq!(buddy.take(2, 0), Some(0));
    assert!(buddy.give_back(0, 2) && buddy.give_back(128, 4));
    buddy.purge(0, true, 0, u64::MAX);
    let dirty = |buddy: &Checked<64>| (0..192).filter(|p| buddy.model[*p] == Page::Dirty).collect::<Vec<_>>();
    assert_eq!(dirty(&buddy), [0, 1, 128, 129, 130, 131]);
    buddy.mark_idle();
    buddy.purge(1, true, 8, u64::MAX);
    assert_eq!(dirty(&buddy), [128, 129, 130, 131], "of that chunk not even eight pages are free");
}

#[test]
fn a_purge_stops_when_it_has_enough() {
    let mut buddy = fresh::<4>(3);
    for chunk in 0..3 {
        assert_eq!(buddy.take(4, 0), Some(4 * chunk));
    }
    for chunk in 0..3 {
        assert!(buddy.give_back(4 * chunk, 4));
    }
    let purge = |most| buddy.buddy().purge(Purge { most, ..Purge::ALL }, |_, _| true);
    assert_eq!((purge(0), purge(1), purge(5), purge(1)), (0, 4, 8, 0));
}

#[test]
fn a_purge_enters_what_it_leaves_in_the_right_bin() {
    // Guards against a lost hint: page 0 is being purged, somebody takes page 1, and only page 2 was there all the
    // time.
    let mut checked = Checked::<4>::new(1);
    let bins = core::array::from_fn(|b| (b == 2) as u64);
    checked.load(&State { free: 0b0111, dirty: 0b1001, whole: 0, bins, sum_whole: 0, sum_bins: bins });
    checked.compare();
    let buddy = checked.buddy();
    let mut taken = None;
    let purged = buddy.purge(Purge::ALL, |_, _| {
        taken = buddy.take(PageCount::new(1), Order::ZERO);
        true
    });
    assert_eq!((purged, taken.map(|run| run.start.get())), (1, Some(1)));
    buddy.validate().unwrap();
    assert_eq!(buddy.free_pages(), (2, 0));
}

#[test]
fn a_chunk_that_was_completed_page_by_page_is_whole_again() {
    let mut buddy = fresh::<4>(1);
    for page in 0..4 {
        assert_eq!(buddy.take(1, 0), Some(page));
    }
    for page in [2, 0, 3, 1] {
        assert!(buddy.give_back(page, 1));
        buddy.compare();
    }
    assert_eq!(buddy.take(4, 2), Some(0));
}

#[test]
fn a_double_free_is_told_from_a_foreign_page() {
    let misuse = |prepare: &dyn Fn(&Buddy<'_>), start: u32, n: u32| {
        let (chunks, regions, summary) = ([const { Chunk::new() }; 2], [Region::new()], Summary::new());
        let counter = PageCounter::new();
        let buddy = Buddy::new(&chunks, &regions, &summary, &counter);
        buddy.add_chunks(ChunkIndex::new(0), 2);
        let run = buddy.take(PageCount::new(16), Order::ZERO).unwrap();
        assert_eq!(run.start.get(), 0);
        prepare(&buddy);
        buddy.give_back(PageIndex::new(start), PageCount::new(n))
    };
    let nothing = |_: &Buddy<'_>| {};
    let again = |buddy: &Buddy<'_>| buddy.give_back(PageIndex::new(0), PageCount::new(16)).unwrap();
    let part = |buddy: &Buddy<'_>| buddy.give_back(PageIndex::new(4), PageCount::new(4)).unwrap();
    assert_eq!(misuse(&nothing, 0, 16), Ok(()));
    assert_eq!(misuse(&again, 0, 16), Err(Misuse::DoubleFree), "its chunk is parked");
    assert_eq!(misuse(&part, 0, 16), Err(Misuse::DoubleFree), "a part of it is free");
    assert_eq!(misuse(&part, 7, 1), Err(Misuse::DoubleFree), "the page itself is free");
    assert_eq!(misuse(&nothing, 0, 64), Err(Misuse::DoubleFree), "a chunk that is partly free, as a whole");
    assert_eq!(misuse(&nothing, 64, 64), Err(Misuse::DoubleFree), "a whole chunk twice");
    assert_eq!(misuse(&nothing, 128, 1), Err(Misuse::Foreign));
    assert_eq!(misuse(&nothing, 64, 65), Err(Misuse::Foreign));
}

#[test]
fn a_row_of_chunks_is_found_where_it_first_begins() {
    proptest!(|(bits: u64, dense: bool, n in 1u32..=64)| {
        let bits = if dense { bits | bits.rotate_left(7) | bits.rotate_left(22) } else { bits };
        let naive = (0..=64 - n).find(|s| (*s..s + n).all(|b| bits >> b & 1 == 1));
        prop_assert_eq!(PageSet::from_bits(bits).first_run_of(n), naive);
        prop_assert_eq!(PageSet::from_bits(bits).first_run_of(n + 64), None);
    });
    assert_eq!(PageSet::from_bits(u64::MAX).first_run_of(128), None);
}
