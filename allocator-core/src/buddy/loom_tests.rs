//! The buddy under loom: the shipped types with four pages to a chunk, over memory that loom watches.
//!
//! Each page is a cell that only its owner may touch: loom fails a model in which two touch it at once, or in which an
//! owner does not see what the last one did. The cell's value is what the page reads as. Every model ends, when all
//! threads are joined, in `validate()` and a count of the free pages.
//!
//! `LOOM_MAX_PREEMPTIONS` (2 if it is not set) and loom's other variables bound the search.

use super::*;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Pages of a chunk in these models.
const PAGES: u32 = 4;

/// What lies under a buddy, and the pages that it speaks of.
struct Storage {
    chunks: Vec<Chunk<PAGES>>,
    regions: Vec<Region>,
    summary: Summary,
    counter: PageCounter,
    memory: Vec<UnsafeCell<u32>>,
}

// SAFETY: the cells are touched through `Storage::touch` and `Storage::discard` only, by the owner of the page; that
// nobody else does is what loom checks.
unsafe impl Sync for Storage {}
// SAFETY: as above.
unsafe impl Send for Storage {}

impl Storage {
    /// `chunks` chunks, all of them whole and zero.
    fn new(chunks: u32) -> Self {
        let storage = Self {
            chunks: (0..chunks).map(|_| Chunk::new()).collect(),
            regions: vec![Region::new()],
            summary: Summary::new(),
            counter: PageCounter::new(),
            memory: (0..chunks * PAGES).map(|_| UnsafeCell::new(0)).collect(),
        };
        storage.buddy().add_chunks(ChunkIndex::new(0), chunks);
        storage
    }

    fn buddy(&self) -> Buddy<'_, PAGES> {
        Buddy::new(&self.chunks, &self.regions, &self.summary, &self.counter)
    }

    /// Writes to pages, as their owner does, which must hold what is said of them.
    fn touch(&self, start: PageIndex, n: u32, content: Content) {
        let stale = content.stale().get();
        for (i, cell) in (0..n).zip(&self.memory[start.get() as usize..]) {
            cell.with_mut(|page| {
                // SAFETY: the caller owns the page, and loom fails the model if anybody else touches it.
                let page = unsafe { &mut *page };
                assert!(i < stale || *page == 0, "the buddy took a page for zero that is not");
                *page += 1;
            });
        }
    }

    /// What `madvise` does to pages.
    fn discard(&self, start: PageIndex, n: u32) {
        for cell in &self.memory[start.get() as usize..][..n as usize] {
            // SAFETY: as in `touch`.
            cell.with_mut(|page| unsafe { *page = 0 });
        }
    }

    /// Takes `n` pages and writes to them.
    fn take(&self, n: u32) -> Option<PageIndex> {
        self.take_aligned(n, Order::ZERO)
    }

    fn take_aligned(&self, n: u32, align: Order) -> Option<PageIndex> {
        let run = self.buddy().take(PageCount::new(n), align)?;
        self.touch(run.start, n, run.content);
        Some(run.start)
    }

    /// As `take`, in the part of a model where nobody else is about.
    fn must_take(&self, n: u32) -> PageIndex {
        self.take(n).expect("nobody else is about")
    }

    /// Writes to pages once more and gives them back.
    fn give_back(&self, start: PageIndex, n: u32) -> i32 {
        self.touch(start, n, Content::of(false, n));
        assert_eq!(self.buddy().give_back(start, PageCount::new(n)), Ok(()));
        -(n as i32)
    }

    /// Takes `n` pages, if they can be had. Returns how many more are out than before, as the other steps do.
    fn try_take(&self, n: u32) -> i32 {
        self.take(n).map_or(0, |_| n as i32)
    }

    /// The same, of whole chunks; the last one is opened if not all of it is wanted.
    fn try_take_chunks(&self, n: u32) -> i32 {
        self.take_aligned(n, Order::new(Chunk::<PAGES>::TOP as u8)).map_or(0, |_| n as i32)
    }

    fn take_and_give_back(&self, n: u32) -> i32 {
        self.take(n).map_or(0, |start| n as i32 + self.give_back(start, n))
    }

    /// Takes `n` pages that are free at every moment as one does who will be refused otherwise. They must be found,
    /// unless the answer is that pages may be in transit; then one would look again.
    fn insist(&self, n: u32) -> i32 {
        match self.try_take(n) {
            0 => self.look(n),
            taken => taken,
        }
    }

    fn look(&self, n: u32) -> i32 {
        match self.buddy().take_by_words(PageCount::new(n), Order::ZERO, |_, _, _| false) {
            Ok(run) => {
                self.touch(run.start, n, run.content);
                n as i32
            }
            Err(NotFound::InTransit) => 0,
            Err(NotFound::Sure) => panic!("a false refusal"),
        }
    }

    fn extend(&self, start: PageIndex, n: u32, more: u32) -> i32 {
        let Some(content) = self.buddy().extend(start, PageCount::new(n), PageCount::new(more), |_, _, _| false) else {
            return 0;
        };
        self.touch(start + PageCount::new(n), more, content);
        more as i32
    }

    /// Purges; the system refuses where `agrees` says so.
    fn purge(&self, group: u32, agrees: impl Fn(PageIndex) -> bool) -> i32 {
        self.buddy().purge(Purge { group, ..Purge::ALL }, |start, n| {
            if agrees(start) {
                self.discard(start, n.get());
            } else {
                self.touch(start, n.get(), Content::of(false, n.get()));
            }
            agrees(start)
        });
        0
    }

    fn free(&self) -> i32 {
        self.buddy().free_pages().0 as i32
    }

    /// Checks the state at rest, when so many pages must be free.
    fn rest(&self, free: i32) {
        self.buddy().validate().unwrap();
        assert_eq!(self.counter.usage(), PageCount::new(self.buddy().dirty_pages()).bytes(), "Pc1");
        assert_eq!(self.free(), free, "pages were lost, or won");
        // Free in name is not enough: one by one, all of them can be had.
        for _ in 0..free {
            assert_eq!(self.try_take(1), 1, "a free page cannot be had");
        }
        assert_eq!(self.try_take(1), 0);
    }
}

/// Runs every interleaving within loom's bounds: `prepare` alone, then the threads at once. Each returns how many more
/// pages are out than before; what is free at the end must agree.
fn model<const THREADS: usize>(
    prepare: fn() -> (Storage, Vec<PageIndex>),
    threads: [fn(&Storage, &[PageIndex]) -> i32; THREADS],
) {
    crate::loom_tests::check(move || {
        let shared = Arc::new(prepare());
        let free = shared.0.free();
        let threads = threads.map(|run| {
            let shared = shared.clone();
            thread::spawn(move || run(&shared.0, &shared.1))
        });
        let taken: i32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        shared.0.rest(free - taken);
    });
}

/// One chunk with pages 0 to 2 free, and page 3 out. All were used, and no hint is stale.
fn three_of_four_free() -> (Storage, Vec<PageIndex>) {
    let (storage, all) = all_out(1);
    storage.give_back(all[0], 3);
    (storage, vec![all[3]])
}

/// One chunk with the pages of `free` free and the others out, as single pages.
fn one_chunk(free: &[usize]) -> (Storage, Vec<PageIndex>) {
    let storage = Storage::new(1);
    let pages: Vec<_> = (0..PAGES).map(|_| storage.must_take(1)).collect();
    for page in free {
        storage.give_back(pages[*page], 1);
    }
    (storage, pages)
}

/// So many chunks, the run of all of them out.
fn all_out(chunks: u32) -> (Storage, Vec<PageIndex>) {
    let storage = Storage::new(chunks);
    let start = storage.must_take(chunks * PAGES);
    (storage, (0..chunks * PAGES).map(|page| start + PageCount::new(page)).collect())
}

#[test]
fn b1_takers_of_one_word_get_pages_of_their_own() {
    model(three_of_four_free, [|s, _| s.try_take(1), |s, _| s.try_take(2), |s, _| s.try_take(1)]);
}

#[test]
fn b2_a_taker_sees_what_the_last_owner_wrote() {
    model(|| one_chunk(&[]), [|s, pages| s.give_back(pages[1], 1), |s, _| s.try_take(1)]);
}

#[test]
fn b2_a_taker_of_two_pages_sees_what_both_owners_wrote() {
    model(
        || one_chunk(&[]),
        [|s, pages| s.give_back(pages[0], 1), |s, pages| s.give_back(pages[1], 1), |s, _| s.try_take(2)],
    );
}

#[test]
fn b3_of_two_frees_that_complete_a_chunk_one_parks_it() {
    model(
        || one_chunk(&[0, 3]),
        [
            |s, pages| s.give_back(pages[1], 1),
            |s, pages| s.give_back(pages[2], 1),
            // Whoever gets the chunk as a whole sees what both wrote.
            |s, _| s.try_take(PAGES),
        ],
    );
}

#[test]
fn b4_parking_and_taking_from_one_word_lose_and_share_no_page() {
    model(three_of_four_free, [|s, last| s.give_back(last[0], 1), |s, _| s.try_take(2)]);
}

#[test]
fn b4_parking_and_taking_a_page_and_a_chunk_lose_and_share_no_page() {
    model(
        three_of_four_free,
        [|s, last| s.give_back(last[0], 1), |s, _| s.try_take(1), |s, _| s.try_take_chunks(PAGES)],
    );
}

#[test]
fn b5_a_chunk_parked_and_opened_again_fools_nobody_with_an_old_view_of_it() {
    model(three_of_four_free, [|s, last| s.give_back(last[0], 1) + s.try_take(1), |s, _| s.try_take(2)]);
}

#[test]
fn b5_a_chunk_parked_opened_and_parked_again_is_parked_once() {
    model(three_of_four_free, [|s, last| s.give_back(last[0], 1), |s, _| s.take_and_give_back(2)]);
}

#[test]
fn b5_who_takes_what_an_opener_left_sees_the_writes_of_the_owner_before() {
    model(|| all_out(1), [|s, all| s.give_back(all[0], PAGES), |s, _| s.try_take(1), |s, _| s.try_take(2)]);
}

/// Two chunks with all pages out, but both named in bin 0.
fn stale_hints() -> (Storage, Vec<PageIndex>) {
    let (storage, pages) = all_out(2);
    for page in [pages[1], pages[6]] {
        storage.give_back(page, 1);
    }
    // Taken again through the hints, which stay.
    storage.must_take(1);
    storage.must_take(1);
    (storage, pages)
}

#[test]
fn b6_no_hint_is_lost_when_two_set_it_while_one_clears_it() {
    model(
        stale_hints,
        [|s, pages| s.give_back(pages[1], 1), |s, pages| s.give_back(pages[6], 1), |s, _| s.try_take(1)],
    );
}

#[test]
fn b6_no_hint_is_lost_when_one_sets_it_while_two_clear_it() {
    model(stale_hints, [|s, pages| s.give_back(pages[1], 1), |s, _| s.try_take(1), |s, _| s.try_take(1)]);
}

#[test]
fn b6_no_hint_is_lost_when_a_chunk_moves_between_bins() {
    model(
        || one_chunk(&[0]),
        [|s, pages| s.give_back(pages[1], 1), |s, _| s.try_take(2), |s, _| s.take_and_give_back(1)],
    );
}

#[test]
fn b6_no_region_of_whole_chunks_is_lost_when_it_empties_and_fills() {
    model(
        || {
            let (storage, all) = all_out(2);
            storage.give_back(all[0], PAGES);
            (storage, all)
        },
        [|s, all| s.give_back(all[4], PAGES), |s, _| s.try_take(PAGES), |s, _| s.try_take(PAGES)],
    );
}

#[test]
fn b6_no_hint_is_lost_when_one_leaves_a_chunk_whose_runs_have_grown_to_others() {
    model(
        || one_chunk(&[0, 1]),
        // Bin 0 still names the chunk. Whoever wants one page clears that and goes on to bin 1.
        [|s, _| s.try_take(1), |s, pages| s.give_back(pages[2], 1)],
    );
}

#[test]
fn b6_who_leaves_a_chunk_whose_runs_have_grown_finds_it_in_the_bin_above() {
    model(
        || {
            // No bin but the lowest names the chunk.
            let (storage, all) = all_out(1);
            storage.give_back(all[0], 1);
            (storage, all)
        },
        [
            |s, pages| s.give_back(pages[1], 1),
            |s, _| {
                assert_eq!(s.try_take(1), 1, "a page is free at every moment, and nothing is in transit");
                1
            },
        ],
    );
}

#[test]
fn b7_a_page_said_to_be_zero_is_zero_while_others_take_and_free() {
    model(|| one_chunk(&[0, 1]), [|s, _| s.purge(0, |_| true), |s, pages| s.give_back(pages[2], 1) + s.try_take(1)]);
}

#[test]
fn b7_a_refused_purge_leaves_the_page_dirty() {
    model(
        || one_chunk(&[0, 2]),
        [|s, _| s.purge(0, |start| start.get() == 0), |s, _| s.take_and_give_back(1) + s.try_take(1)],
    );
}

#[test]
fn b7_a_refused_purge_leaves_a_whole_chunk_dirty() {
    model(used_chunk, [|s, _| s.purge(0, |_| false), |s, _| s.try_take(1)]);
}

#[test]
fn b7_a_whole_chunk_is_purged_while_others_open_and_complete_it() {
    model(used_chunk, [|s, _| s.purge(0, |_| true), |s, _| s.take_and_give_back(1) + s.try_take(1)]);
}

#[test]
fn b8_claims_of_one_and_of_two_chunks_and_parking_share_nothing() {
    model(
        || {
            let (storage, all) = all_out(3);
            storage.give_back(all[0], PAGES);
            storage.give_back(all[4], 3);
            storage.give_back(all[8], PAGES);
            (storage, all)
        },
        [
            // This page completes the chunk in the middle.
            |s, all| s.give_back(all[7], 1),
            |s, _| s.try_take_chunks(2 * PAGES),
            |s, _| s.try_take_chunks(PAGES),
        ],
    );
}

#[test]
fn extending_a_run_and_taking_share_no_page() {
    model(
        || one_chunk(&[1, 2]),
        [|s, pages| s.extend(pages[0], 1, 1), |s, _| s.try_take(2), |s, pages| s.give_back(pages[3], 1)],
    );
}

#[test]
fn who_extends_a_run_sees_what_the_last_owner_of_the_pages_wrote() {
    model(|| one_chunk(&[]), [|s, pages| s.give_back(pages[1], 1), |s, pages| s.extend(pages[0], 1, 1)]);
}

#[test]
fn extending_a_run_by_a_chunk_and_opening_that_chunk_share_nothing() {
    model(
        || all_out(2),
        [|s, all| s.give_back(all[4], PAGES), |s, _| s.try_take(1), |s, all| s.extend(all[0], PAGES, PAGES)],
    );
}

/// Two chunks, all out but the first one's last two pages and the second one's first two.
fn a_row_of_two_chunks() -> (Storage, Vec<PageIndex>) {
    let (storage, all) = all_out(2);
    storage.give_back(all[2], 2);
    storage.give_back(all[4], 2);
    (storage, all)
}

#[test]
fn b9_two_rows_across_the_edge_of_a_chunk_share_no_page() {
    model(a_row_of_two_chunks, [|s, _| s.try_take(3), |s, _| s.try_take(4)]);
}

#[test]
fn b9_a_row_that_somebody_has_a_part_of_meanwhile_is_given_back_as_a_whole() {
    model(a_row_of_two_chunks, [|s, _| s.try_take(3), |s, _| s.try_take(1), |s, _| s.try_take(2)]);
}

#[test]
fn b9_who_takes_a_row_sees_what_the_last_owners_wrote() {
    model(
        || all_out(2),
        [|s, all| s.give_back(all[3], 1), |s, all| s.give_back(all[4], 2), |s, _| s.try_take(3) + s.try_take(3)],
    );
}

/// Two chunks, all out but the first one's last page and the second one's last three.
fn all_but_one_of_a_row() -> (Storage, Vec<PageIndex>) {
    let (storage, all) = all_out(2);
    storage.give_back(all[3], 1);
    storage.give_back(all[5], 3);
    (storage, all)
}

#[test]
fn b9_a_row_into_a_chunk_that_is_parked_meanwhile_shares_nothing() {
    model(all_but_one_of_a_row, [|s, all| s.give_back(all[4], 1), |s, _| s.try_take(PAGES)]);
}

#[test]
fn b9_a_row_into_a_whole_chunk_that_is_opened_meanwhile_shares_nothing() {
    model(room_behind_a_run, [|s, _| s.try_take_chunks(1), |s, _| s.try_take(PAGES)]);
}

#[test]
fn b9_a_look_for_a_row_is_not_sure_while_its_chunk_is_parked() {
    model(all_but_one_of_a_row, [|s, all| s.give_back(all[4], 1), |s, _| s.look(3)]);
}

/// Two chunks, all out but the first one's last page and all of the second.
fn room_behind_a_run() -> (Storage, Vec<PageIndex>) {
    let (storage, all) = all_out(2);
    storage.give_back(all[3], 1);
    storage.give_back(all[4], PAGES);
    (storage, all)
}

#[test]
fn extending_a_run_into_the_next_chunk_and_taking_share_nothing() {
    model(room_behind_a_run, [|s, _| s.try_take(1), |s, _| s.try_take_chunks(3), |s, all| s.extend(all[0], 3, 3)]);
}

#[test]
fn an_extension_that_fails_halfway_gives_back_what_it_had() {
    model(room_behind_a_run, [|s, _| s.take_and_give_back(PAGES), |s, all| s.extend(all[0], 3, 1 + PAGES)]);
}

#[test]
fn a_look_is_not_sure_where_a_chunk_is_opened_and_parked_behind_its_back() {
    // The whole chunk, or what is left of it, is free at every moment.
    model(|| (Storage::new(1), Vec::new()), [|s, _| s.take_and_give_back(1), |s, _| s.look(1)]);
}

#[test]
fn a_look_is_not_sure_where_a_chunk_is_parked_and_opened_behind_its_back() {
    model(three_of_four_free, [|s, last| s.give_back(last[0], 1) + s.try_take(1), |s, _| s.look(1)]);
}

#[test]
fn who_would_be_refused_finds_a_chunk_whose_summary_another_is_clearing() {
    // One of the two chunks is free at every moment of the look.
    model(
        || {
            let (storage, all) = all_out(2);
            storage.give_back(all[0], PAGES);
            (storage, all)
        },
        [|s, _| s.try_take(PAGES), |s, all| s.give_back(all[4], PAGES) + s.look(PAGES)],
    );
}

#[test]
fn a_look_is_not_sure_until_all_chunks_that_were_taken_are_back() {
    model(
        used_chunk,
        [
            |s, _| {
                let Some(_transit) = s.buddy().take_all(1) else { return 0 };
                s.buddy().add_chunks(ChunkIndex::new(0), 1);
                0
            },
            |s, _| s.look(1),
        ],
    );
}

#[test]
fn a_look_is_not_sure_while_a_chunk_is_parked() {
    model(three_of_four_free, [|s, last| s.give_back(last[0], 1), |s, _| s.insist(1)]);
}

#[test]
fn a_look_is_not_sure_while_a_chunk_is_opened() {
    model(|| (Storage::new(1), Vec::new()), [|s, _| s.try_take(1), |s, _| s.insist(1)]);
}

#[test]
fn a_look_is_not_sure_while_pages_are_purged() {
    model(three_of_four_free, [|s, _| s.purge(0, |_| true), |s, _| s.insist(1)]);
}

/// A chunk that was used and is whole again.
fn used_chunk() -> (Storage, Vec<PageIndex>) {
    let (storage, all) = all_out(1);
    storage.give_back(all[0], PAGES);
    (storage, all)
}

#[test]
fn a_look_is_not_sure_while_a_whole_chunk_is_purged() {
    model(used_chunk, [|s, _| s.purge(0, |_| true), |s, _| s.insist(1)]);
}

#[test]
fn a_look_for_a_whole_chunk_is_not_sure_while_that_is_purged() {
    model(used_chunk, [|s, _| s.purge(0, |_| true), |s, _| s.insist(PAGES)]);
}

#[test]
fn a_look_is_not_sure_while_a_chunk_is_tried_to_be_taken_with_all_others() {
    model(
        || {
            let (storage, all) = all_out(2);
            storage.give_back(all[0], PAGES);
            (storage, all)
        },
        [
            |s, _| {
                assert!(s.buddy().take_all(2).is_none(), "the other chunk is out");
                0
            },
            |s, _| s.insist(PAGES),
        ],
    );
}

#[test]
fn who_would_be_refused_finds_a_page_whose_hint_is_about_to_move() {
    model(
        || {
            let (storage, all) = all_out(1);
            storage.give_back(all[0], 2);
            (storage, all)
        },
        [
            |s, _| s.try_take(1),
            // In vain, it clears the hint of the two pages.
            |s, _| match s.try_take(2) {
                0 => s.insist(1),
                taken => taken,
            },
        ],
    );
}

#[test]
fn who_would_be_refused_finds_a_page_whose_summary_is_about_to_be_set() {
    model(|| all_out(2), [|s, all| s.give_back(all[1], 1), |s, all| s.give_back(all[6], 1) + s.insist(1)]);
}

#[test]
fn who_would_be_refused_finds_a_page_whose_hint_another_is_clearing() {
    model(stale_hints, [|s, _| s.try_take(1), |s, all| s.give_back(all[1], 1) + s.give_back(all[2], 1) + s.insist(1)]);
}

#[test]
fn who_would_be_refused_finds_a_chunk_whose_summary_is_about_to_be_set() {
    model(|| all_out(2), [|s, all| s.give_back(all[0], PAGES), |s, all| s.give_back(all[4], PAGES) + s.insist(PAGES)]);
}
