//! A plain model of the buddy: one enum per page, and the policy in so many words; and steps to do on both, as bytes.
//!
//! The tests beside it use it, and the fuzz target includes this file: it names nothing but the public API.

use super::{
    Buddy, Chunk, ChunkIndex, Content, Misuse, NotFound, Order, PageCount, PageCounter, PageIndex, Purge, Region,
    Summary, CHUNKS_PER_REGION, MAX_BLOCK, ROW_TRIES,
};
use std::collections::HashSet;
use std::{vec, vec::Vec};

/// Orders of free blocks that are counted: of the real geometry to four chunks, of the tiny one to all.
const LISTED: usize = 9;

/// What the model knows of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    Owned,
    Zero,
    Dirty,
}

impl Page {
    pub(super) fn is_free(self) -> bool {
        self != Page::Owned
    }
}

/// A buddy and its model. Every step is done on both and compared.
pub(super) struct Checked<const P: u32> {
    pub(super) chunks: Vec<Chunk<P>>,
    pub(super) regions: Vec<Region>,
    pub(super) summary: Summary,
    pub(super) counter: PageCounter,
    pub(super) model: Vec<Page>,
    /// Pages that were free at the last mark, and were not taken since.
    pub(super) idle: Vec<bool>,
}

/// The blocks of a chunk as the buddy system has them: halved until a half is wholly free, or is one page.
pub(super) fn blocks(pages: &[Page], start: usize, out: &mut Vec<(usize, u32)>) {
    if pages.iter().all(|p| p.is_free()) {
        out.push((start, pages.len().trailing_zeros()));
    } else if pages.len() > 1 {
        let (low, high) = pages.split_at(pages.len() / 2);
        blocks(low, start, out);
        blocks(high, start + low.len(), out);
    }
}

/// Which lengths of runs are told apart: each up to seven, and powers of two.
fn bin(n: u32) -> u32 {
    if n < 8 {
        n
    } else {
        1 << n.ilog2()
    }
}

impl<const P: u32> Checked<P> {
    const PAGES: usize = P as usize;
    const TOP: u32 = P.trailing_zeros();

    /// Every page is owned by whoever made the buddy, and zero, as in a new arena.
    pub(super) fn new(chunks: usize) -> Self {
        Self {
            chunks: (0..chunks).map(|_| Chunk::new()).collect(),
            regions: (0..chunks.div_ceil(CHUNKS_PER_REGION as usize)).map(|_| Region::new()).collect(),
            summary: Summary::new(),
            counter: PageCounter::new(),
            model: vec![Page::Owned; chunks * Self::PAGES],
            idle: vec![false; chunks * Self::PAGES],
        }
    }

    pub(super) fn buddy(&self) -> Buddy<'_, P> {
        Buddy::new(&self.chunks, &self.regions, &self.summary, &self.counter)
    }

    pub(super) fn add_chunks(&mut self, first: usize, n: usize) {
        self.buddy().add_chunks(ChunkIndex::new(first as u32), n as u32);
        self.model[first * Self::PAGES..][..n * Self::PAGES].fill(Page::Zero);
    }

    pub(super) fn chunk_pages(&self, chunk: usize) -> &[Page] {
        &self.model[chunk * Self::PAGES..][..Self::PAGES]
    }

    pub(super) fn is_whole(&self, chunk: usize) -> bool {
        self.chunk_pages(chunk).iter().all(|p| p.is_free())
    }

    pub(super) fn is_whole_at(&self, chunk: usize) -> bool {
        chunk < self.chunks.len() && self.is_whole(chunk)
    }

    /// Where the stated policy takes `n` pages from. If they need not be aligned and are more than a block is for, the first
    /// row; else, of the chunks with room the one in the lowest bin, lowest first, and in it the smallest block, dirty if it can
    /// be, lowest first, or what is no block; but of a bin whose runs may be too short no more than so many are tried, unless
    /// they are the longest, and none where every start will do. Else the first whole chunk.
    pub(super) fn policy(&self, n: u32, align: u32) -> Option<usize> {
        if let Some(start) = (align == 0 && n > MAX_BLOCK).then(|| self.row(n)).flatten() {
            return Some(start);
        }
        if n >= P {
            let n = n.div_ceil(P) as usize;
            return (0..self.chunks.len().saturating_sub(n - 1))
                .find(|c| c / 64 == (c + n - 1) / 64 && (*c..c + n).all(|c| self.is_whole(c)))
                .map(|c| c * Self::PAGES);
        }
        let least = bin(n.max(1 << align));
        let in_bins = |chunk| Some((self.longest_run(chunk).map(bin).filter(|bin| *bin >= least)?, chunk));
        let mut chunks: Vec<_> = (0..self.chunks.len()).filter(|c| !self.is_whole(*c)).filter_map(in_bins).collect();
        chunks.sort();
        let mut by_bin = chunks.chunk_by(|(bin, _), (next, _)| bin == next).flat_map(|chunks| {
            let tries = match chunks[0].0 {
                shortest if shortest >= n + (1 << align) - 1 => chunks.len(),
                _ if align == 0 => 0,
                shortest if shortest == bin(P - 1) => chunks.len(),
                _ => ROW_TRIES,
            };
            chunks.iter().take(tries)
        });
        match by_bin.find_map(|(_, chunk)| self.place_in(*chunk, n, align)) {
            Some(page) => Some(page),
            None => (0..self.chunks.len()).find(|c| self.is_whole(*c)).map(|c| c * Self::PAGES),
        }
    }

    fn place_in(&self, chunk: usize, n: u32, align: u32) -> Option<usize> {
        let order = align.max(n.next_power_of_two().trailing_zeros());
        let (pages, mut list) = (self.chunk_pages(chunk), Vec::new());
        blocks(pages, 0, &mut list);
        list.retain(|(_, k)| *k >= order);
        let block = list.iter().min_by_key(|(p, k)| (*k, pages[*p] != Page::Dirty, *p)).map(|(p, _)| *p);
        let fits = |start: &usize| pages.get(*start..start + n as usize).is_some_and(|p| p.iter().all(|p| p.is_free()));
        let place = block.or_else(|| (0..Self::PAGES).step_by(1 << align).find(fits));
        place.map(|page| chunk * Self::PAGES + page)
    }

    /// Pages of the longest run in a chunk.
    fn longest_run(&self, chunk: usize) -> Option<u32> {
        let runs = self.chunk_pages(chunk).split(|p| !p.is_free()).map(|run| run.len() as u32);
        runs.max().filter(|n| *n > 0)
    }

    /// True if a row of `n` pages may begin in one chunk and end in another.
    fn crosses(n: u32) -> bool {
        n > MAX_BLOCK.max(P / 8)
    }

    /// The first `n` free pages in a row. Where many chunks have a half of them, it must have to do with one of the first of
    /// those.
    fn row(&self, n: u32) -> Option<usize> {
        let part = bin(if Self::crosses(n) { n.div_ceil(2).min(P) } else { n });
        let has_part = |chunk: &usize| self.longest_run(*chunk).is_some_and(|longest| bin(longest) >= part);
        (0..self.chunks.len()).filter(has_part).take(ROW_TRIES).find_map(|chunk| {
            let (here, behind) = (chunk * Self::PAGES, (chunk + 1) * Self::PAGES);
            let (from, to) = if Self::crosses(n) { (0, behind + Self::PAGES) } else { (here, behind) };
            // One of its pages is in that chunk, and the last one there or in the next.
            let starts = (here + 1).saturating_sub(n as usize).max(from)..behind;
            starts.into_iter().find(|start| start + n as usize <= to && self.is_free(*start, n as usize))
        })
    }

    /// The same of all chunks.
    fn first_row(&self, n: u32) -> Option<usize> {
        let within = |start: usize| start / Self::PAGES == (start + n as usize - 1) / Self::PAGES;
        (0..self.model.len()).find(|s| (Self::crosses(n) || within(*s)) && self.is_free(*s, n as usize))
    }

    fn is_free(&self, start: usize, n: usize) -> bool {
        self.model.get(start..start + n).is_some_and(|pages| pages.iter().all(|p| p.is_free()))
    }

    pub(super) fn own(&mut self, start: usize, n: usize) {
        self.model[start..][..n].fill(Page::Owned);
        self.idle[start..][..n].fill(false);
    }

    /// What the pages of a run hold that was just taken.
    fn content(&self, start: usize, n: u32) -> Content {
        let pages = &self.model[start..][..n as usize];
        let stale = pages.iter().rposition(|page| *page != Page::Zero).map_or(0, |last| last + 1);
        Content::of(pages.contains(&Page::Zero), stale as u32)
    }

    /// Takes pages and compares: exactly where the policy says, free before, aligned, zero if and only if they are.
    pub(super) fn take(&mut self, n: u32, align: u32) -> Option<usize> {
        let expected = self.policy(n, align);
        let run = self.buddy().take(PageCount::new(n), Order::new(align as u8));
        assert_eq!(run.map(|r| r.start.get() as usize), expected, "take {n} aligned to 2^{align}");
        let run = run?;
        let start = run.start.get() as usize;
        let pages = &self.model[start..][..n as usize];
        assert!(pages.iter().all(|p| p.is_free()), "a page was handed out twice");
        assert_eq!(start % (1 << align), 0, "the run is not aligned");
        assert_eq!(run.content, self.content(start, n));
        self.own(start, n as usize);
        Some(start)
    }

    /// Takes pages that lie so far behind others, or at the begin of a whole chunk, and compares.
    pub(super) fn take_with_room(&mut self, n: u32, room: u32) {
        let expected = self.row(n + room).map(|first| {
            let start = first + room as usize;
            let chunk = start / Self::PAGES;
            if self.is_whole(chunk) {
                chunk * Self::PAGES
            } else {
                start
            }
        });
        let run = self.buddy().take_with_room(PageCount::new(n), PageCount::new(n + room), |_, _, _| false);
        assert_eq!(run.map(|r| r.start.get() as usize), expected, "take {n} with room of {room}");
        let (Some(run), Some(start)) = (run, expected) else { return };
        assert!(self.is_free(start, n as usize), "a page was handed out twice");
        assert_eq!(run.content, self.content(start, n));
        self.own(start, n as usize);
    }

    /// Takes pages without the hints: the first row of all, if they need not be aligned; else of the first chunk that has them.
    pub(super) fn take_by_words(&mut self, n: u32, align: u32) {
        let open = || (0..self.chunks.len()).filter(|c| !self.is_whole(*c));
        let expected = match (align, n < P) {
            (0, _) => self.first_row(n),
            (_, true) => open().find_map(|chunk| self.place_in(chunk, n, align)).or_else(|| self.policy(n, align)),
            (_, false) => self.policy(n, align),
        };
        let run = self.buddy().take_by_words(PageCount::new(n), Order::new(align as u8), |_, _, _| false);
        let start = run.map(|run| run.start.get() as usize);
        assert_eq!(start, expected.ok_or(NotFound::Sure), "{n} pages aligned to 2^{align}");
        let (Ok(run), Ok(start)) = (run, start) else { return };
        let pages = &self.model[start..][..n as usize];
        assert!(pages.iter().all(|p| p.is_free()), "a page was handed out twice");
        assert_eq!(start % (1 << align), 0, "the run is not aligned");
        assert_eq!(run.content, self.content(start, n));
        self.own(start, n as usize);
    }

    /// Gives pages back and compares. False if it was refused, as it must be if and only if one of them is free; the
    /// words mean nothing after that.
    pub(super) fn give_back(&mut self, start: usize, n: usize) -> bool {
        let given = self.buddy().give_back(PageIndex::new(start as u32), PageCount::new(n as u32));
        if start + n > self.model.len() {
            assert_eq!(given, Err(Misuse::Foreign));
            return true;
        }
        if self.model[start..][..n].iter().any(|p| p.is_free()) {
            assert_eq!(given, Err(Misuse::DoubleFree), "{n} pages at {start}");
            return false;
        }
        assert_eq!(given, Ok(()));
        self.restore(start, n);
        true
    }

    /// The model of given pages: whether a page is dirty is for its last owner to say.
    pub(super) fn restore(&mut self, start: usize, n: usize) {
        for page in start..start + n {
            let dirty = self.chunks[page / Self::PAGES].dirty_pages().bits() >> (page % Self::PAGES) & 1 == 1;
            assert!(dirty, "page {page} was handed out and must not be taken for zero");
            self.model[page] = Page::Dirty;
        }
    }

    pub(super) fn extend(&mut self, start: usize, n: usize, more: usize) {
        let from = start + n;
        let room = self.model.get(from..from + more).filter(|pages| pages.iter().all(|p| p.is_free()));
        let expected = room.map(|_| self.content(from, more as u32));
        let [start, n, more] = [start, n, more].map(|x| x as u32);
        let claimed =
            self.buddy().extend(PageIndex::new(start), PageCount::new(n), PageCount::new(more), |_, _, _| false);
        assert_eq!(claimed, expected, "extend {n} pages at {start} by {more}");
        if claimed.is_some() {
            self.own(from, more as usize);
        }
    }

    /// Purges whole groups, of idle pages only or of all, in chunks with so many free pages; the `i`-th discard succeeds if
    /// bit `i` of `successes` is set.
    pub(super) fn purge(&mut self, group: u32, idle: bool, least: u32, successes: u64) {
        let mut expected = HashSet::new();
        for chunk in (0..self.chunks.len()).map(|chunk| chunk * Self::PAGES..(chunk + 1) * Self::PAGES) {
            if (self.model[chunk.clone()].iter().filter(|p| p.is_free()).count() as u32) < least {
                continue;
            }
            let dirty = |page: &usize| self.model[*page] == Page::Dirty;
            let busy = |page: &usize| dirty(page) && idle && !self.idle[*page];
            let free = |page: usize| self.model[page].is_free();
            let mut pages = Vec::new();
            for group in chunk.clone().step_by(1 << group).map(|start| start..start + (1 << group)) {
                if group.clone().all(free) && group.clone().any(|p| dirty(&p)) && !group.clone().any(|p| busy(&p)) {
                    pages.extend(group);
                }
            }
            let all = chunk.clone().all(free) && chunk.clone().filter(dirty).all(|page| pages.contains(&page));
            if all && !pages.is_empty() {
                expected.extend(chunk);
            } else {
                expected.extend(pages);
            }
        }
        let (mut seen, mut good, mut calls) = (HashSet::new(), Vec::new(), 0);
        let buddy = Buddy::new(&self.chunks, &self.regions, &self.summary, &self.counter);
        let purged = buddy.purge(Purge { group, idle, least, most: u32::MAX }, |start, n| {
            let run = start.get() as usize..(start + n).get() as usize;
            assert!(buddy.in_transit(), "whoever is refused now must know that pages are out");
            assert!(run.clone().all(|page| seen.insert(page)), "a page is purged once");
            let success = successes >> (calls % 64) & 1 == 1;
            calls += 1;
            if success {
                good.extend(run);
            }
            success
        });
        assert_eq!(seen, expected, "group 2^{group}");
        assert_eq!(purged as usize, good.iter().filter(|page| self.model[**page] == Page::Dirty).count());
        good.into_iter().for_each(|page| self.model[page] = Page::Zero);
    }

    /// Marks free pages as idle.
    pub(super) fn mark_idle(&mut self) {
        let mut new = 0;
        for (page, idle) in self.model.iter().zip(&mut self.idle).filter(|(page, _)| **page == Page::Dirty) {
            debug_assert!(page.is_free());
            new += u32::from(!*idle);
            *idle = true;
        }
        assert_eq!(self.buddy().mark_idle(), new);
    }

    pub(super) fn take_all(&mut self) {
        let all = self.model.iter().all(|p| p.is_free());
        let taken = self.buddy().take_all(self.chunks.len() as u32);
        assert_eq!(taken.is_some(), all);
        drop(taken);
        if all {
            assert!(self.buddy().take(PageCount::new(1), Order::ZERO).is_none());
            assert_eq!(self.buddy().free_pages(), (0, 0));
            self.buddy().validate().unwrap();
            self.buddy().add_chunks(ChunkIndex::new(0), self.chunks.len() as u32);
        }
    }

    /// Compares all that can be seen at rest.
    pub(super) fn compare(&self) {
        let buddy = self.buddy();
        buddy.validate().unwrap();
        let count = |wanted: &dyn Fn(&Page) -> bool| self.model.iter().filter(|p| wanted(p)).count();
        assert_eq!(buddy.free_pages(), (count(&|p| p.is_free()), count(&|p| *p == Page::Dirty)));
        assert_eq!(self.counter.usage(), PageCount::new(buddy.dirty_pages()).bytes(), "Pc1");
        for (page, idle) in self.idle.iter().enumerate().filter(|(page, _)| self.model[*page] == Page::Dirty) {
            let marked = self.chunks[page / Self::PAGES].idle_pages().bits() >> (page % Self::PAGES) & 1 == 1;
            assert_eq!(marked, *idle, "page {page}");
        }
        // Inside chunks that are not whole, then of whole chunks; the last order holds all that is as long or longer.
        let (mut list, mut orders) = (Vec::new(), [0; LISTED]);
        let whole: Vec<_> = (0..self.chunks.len().next_multiple_of(64)).map(|c| self.is_whole_at(c)).collect();
        (0..self.chunks.len()).filter(|c| !whole[*c]).for_each(|c| blocks(self.chunk_pages(c), 0, &mut list));
        list.drain(..).for_each(|(_, k)| orders[k as usize] += 1);
        let as_page = |whole: &bool| if *whole { Page::Zero } else { Page::Owned };
        for region in whole.chunks(64) {
            blocks(&region.iter().map(as_page).collect::<Vec<_>>(), 0, &mut list);
        }
        for (_, k) in list {
            let last = LISTED - 1 - Self::TOP as usize;
            orders[Self::TOP as usize + (k as usize).min(last)] += 1 << (k as usize).saturating_sub(last);
        }
        let mut counted = [0; LISTED];
        buddy.count_blocks(&mut counted);
        assert_eq!(counted, orders);
    }

    /// The runs of owned pages as long as can be.
    pub(super) fn owned_runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for page in (0..self.model.len()).filter(|p| !self.model[*p].is_free()) {
            match runs.last_mut() {
                Some((start, n)) if *start + *n == page => *n += 1,
                _ => runs.push((page, 1)),
            }
        }
        runs
    }
}

/// A step on the real geometry; numbers are cut down to what the state allows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Take(u32, u32),
    TakeByWords(u32, u32),
    TakeWithRoom(u32, u32),
    GiveBack { run: usize, from: usize, n: usize },
    DoubleFree { page: usize, n: usize },
    Extend { run: usize, at: usize, more: usize },
    Purge { group: u32, idle: bool, least: u32, successes: u64 },
    MarkIdle,
    TakeAll,
}

/// A step as bytes.
pub(super) type Record = [u8; 6];

impl Step {
    /// The step that a record stands for: any bytes are one.
    pub(super) fn decode([kind, align, a, b, c, d]: Record) -> Self {
        let (many, n) = (usize::from(u16::from_le_bytes([a, b])), u16::from_le_bytes([c, d]));
        let (align, few) = (u32::from(align % 7), usize::from(n % 300) + 1);
        match kind {
            0..=44 => Step::Take(u32::from(n % 63) + 1, align),
            45..=46 => Step::TakeWithRoom(u32::from(n % 63) + 1, u32::from(d % 32)),
            47..=49 => Step::TakeWithRoom(u32::from(n % 300) + 1, u32::from(d)),
            50..=99 => Step::Take(u32::from(n % 8) + 1, align % 4),
            100..=106 => Step::TakeByWords(u32::from(n % 63) + 1, align),
            107..=109 => Step::TakeByWords(u32::from(n % 300) + 1, align),
            110..=134 => Step::Take(64 * (u32::from(n % 4) + 1), align),
            135..=138 => Step::Take(64 * (u32::from(n % 60) + 5), 0),
            139..=141 => Step::Take(65 + u32::from(n % 256), align),
            142..=209 => Step::GiveBack { run: many, from: usize::from(n), n: few },
            210..=212 => Step::DoubleFree { page: many, n: few },
            213..=235 => Step::Extend { run: many, at: usize::from(n), more: usize::from(d % 64) + 1 },
            236..=239 => Step::Extend { run: many, at: usize::MAX, more: 64 * (usize::from(d % 4) + 1) },
            240..=242 => Step::Extend { run: many, at: usize::MAX, more: usize::from(d) + 1 },
            243..=248 => Step::Purge {
                group: align % 4,
                idle: kind % 2 == 0,
                least: u32::from(n % 4) * 16,
                successes: u64::from_le_bytes([a, b, c, d, a, b, c, d]),
            },
            249..=252 => Step::MarkIdle,
            _ => Step::TakeAll,
        }
    }
}

/// Does all steps on a buddy and its model, gives everything back, and compares on the way. The first byte of `start`
/// says how many chunks there are, the second how many are taken at once, so that the rest lies across the edges of
/// regions.
pub(super) fn play(start: [u8; 2], script: impl IntoIterator<Item = Step>) {
    let chunks = match usize::from(start[0]) {
        n @ 0..=191 => n % 4 + 1,
        n @ 192..=231 => 60 + n % 11,
        n => 120 + n % 73,
    };
    let mut checked = Checked::<64>::new(chunks);
    checked.add_chunks(0, chunks);
    for _ in 0..usize::from(start[1]).min(chunks - 1) {
        checked.take(64, 0);
    }
    for (number, step) in script.into_iter().enumerate() {
        let runs = checked.owned_runs();
        let owned = |run: usize| runs.get(run % runs.len().max(1)).copied();
        match step {
            Step::Take(n, align) => {
                checked.take(n, align);
            }
            Step::TakeByWords(n, align) => checked.take_by_words(n, align),
            Step::TakeWithRoom(n, room) => checked.take_with_room(n, room),
            Step::GiveBack { run, from, n } => {
                if let Some((start, len)) = owned(run) {
                    let from = from % len;
                    assert!(checked.give_back(start + from, n.min(len - from)));
                }
            }
            Step::DoubleFree { page, n } => {
                let start = page % checked.model.len();
                let n = n.min(checked.model.len() - start);
                if checked.model[start..][..n].iter().any(|p| p.is_free()) {
                    assert!(!checked.give_back(start, n));
                    return; // the words mean nothing after a misuse
                }
            }
            Step::Extend { run, at, more } => {
                if let Some((start, len)) = owned(run) {
                    let n = if at == usize::MAX { len } else { 1 + at % len };
                    checked.extend(start, n, more);
                }
            }
            Step::Purge { group, idle, least, successes } => checked.purge(group, idle, least, successes),
            Step::MarkIdle => checked.mark_idle(),
            Step::TakeAll => checked.take_all(),
        }
        // To look at thousands of pages takes longer than the step.
        if chunks <= 4 || number % 8 == 0 {
            checked.compare();
        }
    }
    for (start, n) in checked.owned_runs() {
        assert!(checked.give_back(start, n));
    }
    checked.compare();
    checked.take_all();
}
