//! Zone: the arenas of one policy, and the way to pages.
//!
//! # Algorithm
//! Arenas are asked for pages by place, so that the last ones can empty. When none has room, the lock of the zone is
//! taken, and more chunks of the first that has some are made writable, or another arena is reserved: the first of 96 MiB,
//! each later one a quarter of all that is reserved and no shorter, but half as much as long as the system refuses
//! (which is remembered, so that the next refusal is had for less). Before anyone is refused, all words are looked
//! at, until a look is sure that nothing was in transit and no arena on its way to the system, or for a tenth of a second if a thread
//! that has something in transit does not get on; and if room was made meanwhile, all begins anew.
//!
//! The first arena stays. Others may be walked by a protected thread, or by one that holds the lock; an empty one is
//! unlinked under the lock and unmapped when the last protected walker is gone (`reclaim`). Whoever gives the last page
//! of one back owns nothing of it any more, but has hints to set in it still: it is counted until it has, and as long
//! as anybody is, the arena is not emptied out.
//!
//! # Invariants
//! - Zo1: an arena in the list is whole: its chunks are in the table and its record is mapped.
//! - Zo2: arenas are linked and unlinked under the lock; number 0 is never unlinked. One that was unlinked has a place
//!   to come back to until it is destroyed.
//! - Zo3: `generation` moves whenever pages, or address space for them, may have come that a search could have missed.
//!
//! # Memory ordering
//! | step                  | order             | so that                                             |
//! |-----------------------|-------------------|-----------------------------------------------------|
//! | link an arena         | Release           | who finds it sees its record                        |
//! | walk the list         | Acquire           | as above                                            |
//! | unlink an arena       | Relaxed           | nobody learns anything from null; the scheme orders |
//! | `top`                 | Relaxed           | a stale one hides an arena from a search that will  |
//! |                       |                   | be made again, after the lock was held              |
//! | `generation`          | Release / Acquire | who sees it move sees what moved it                 |

use crate::arena::{Arena, Ground, PageRun};
use crate::buddy::{NotFound, Purge};
use crate::chunk::Content;
use crate::config::{
    ARENA_CHUNKS_LIMIT, CHUNKS_PER_REGION, CHUNK_SIZE, COMMIT_CHUNKS, FIRST_ARENA_CHUNKS, GROWTH, MAX_ARENAS,
    PAGES_PER_CHUNK,
};
use crate::error::{AllocError, Misuse};
use crate::huge::Policy;
use crate::kswapd::Kswapd;
use crate::page::{AddressTable, ChunkMap, Owner};
use crate::page_counter::{PageCounter, Urgency};
use crate::poison;
use crate::reclaim::{Garbage, Reclaim, Slot};
use crate::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{array_of, const_unless_loom, recheck, Mutex, Rank, Ranked};
use crate::sys::{die, Kept, Os};
use crate::units::{Order, PageCount};
use core::ptr::{null_mut, NonNull};

/// What the lower layers need to know of the caller: the system, and its place in the reclamation scheme.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The system.
    pub os: &'static dyn Os,
    /// The reclamation scheme, if the heap has one.
    pub reclaim: Option<&'static dyn Reclaim>,
    /// The calling thread's slot in it, if it has one.
    pub slot: Option<&'a Slot>,
    /// What it may take where there is a limit.
    pub urgency: Urgency,
}

/// Looks before a refusal while pages are in transit: others move them, so there is an end to it.
const LAST_TRIES: u32 = 1000;
/// After so many of them the thread sleeps in between: whoever moves pages may wait for the system, or for a processor.
const EAGER_TRIES: u32 = 16;

struct Growth {
    reserved: usize,
    /// Chunks that a new arena may have, since the system has refused more; zero: any number.
    bound: u32,
    /// Arenas that are in no place, but may come back.
    unlinked: usize,
}

impl Ranked for Growth {
    const RANK: Rank = Rank::Zone;
}

/// The arenas of one policy.
pub struct Zone {
    arenas: [AtomicPtr<Arena>; MAX_ARENAS],
    /// One past the highest place in use.
    top: AtomicUsize,
    generation: AtomicU32,
    growth: Mutex<Growth>,
    /// From addresses to chunks and areas.
    pub table: AddressTable,
    /// What the system did not take back.
    pub kept: Kept,
    /// When free memory goes back to the system.
    pub kswapd: Kswapd,
    /// How much may be resident, and how much may become so.
    pub counter: PageCounter,
    /// What is backed by huge pages.
    pub huge: Policy,
}

impl Zone {
    const_unless_loom! {
        /// A zone without arenas.
        pub fn new() -> Self {
            Self {
                arenas: array_of!(MAX_ARENAS, AtomicPtr<Arena>, AtomicPtr::new(null_mut())),
                top: AtomicUsize::new(0),
                generation: AtomicU32::new(0),
                growth: Mutex::new(Growth { reserved: 0, bound: 0, unlinked: 0 }),
                table: AddressTable::new(),
                kept: Kept::new(),
                kswapd: Kswapd::new(),
                counter: PageCounter::new(),
                huge: Policy::new(),
            }
        }
    }

    /// Takes `n` pages whose start is a multiple of `2^align` pages. Whether they will be written as a whole, `dense`, bears on
    /// what backs them. Pages beyond a limit are given back untouched. Call it with no lock of this heap held.
    pub fn alloc_pages(
        &'static self,
        caller: Caller<'_>,
        n: PageCount,
        align: Order,
        dense: bool,
    ) -> Result<PageRun, AllocError> {
        let chunks = n.get().div_ceil(PAGES_PER_CHUNK);
        if chunks > ARENA_CHUNKS_LIMIT.min(CHUNKS_PER_REGION) {
            return Err(AllocError::TooLarge);
        }
        if self.is_hopeless(caller, n) {
            self.watch(caller.os);
            return Err(AllocError::OutOfMemory);
        }
        loop {
            let generation = self.generation.load(Acquire);
            if let Some(run) = self.search(caller, |arena| arena.take(n, align, dense)) {
                return self.within_limit(caller, run, n);
            }
            if !self.grow(caller.os, generation, chunks) {
                if let Some(run) = self.search_thoroughly(caller, n, align, dense) {
                    return self.within_limit(caller, run, n);
                }
                if !recheck("room was made during the last look", self.generation.load(Acquire) != generation) {
                    return Err(AllocError::OutOfMemory);
                }
            }
        }
    }

    /// Whether so many pages, more than is held in reserve, would be beyond the caller's limit even if all that is free and resident
    /// were among them: then they are not taken, so that others, who want less, do not find the limit reached for a moment.
    /// Costs a walk over all arenas where the limit is near.
    #[inline]
    fn is_hopeless(&self, caller: Caller<'_>, n: PageCount) -> bool {
        self.counter.is_marked() && n.bytes() > self.counter.room(caller.urgency) && self.is_beyond_all(caller, n)
    }

    #[cold]
    fn is_beyond_all(&self, caller: Caller<'_>, n: PageCount) -> bool {
        let missing = self.counter.excess(n.bytes(), caller.urgency).min(n.bytes());
        let beyond = || missing > PageCount::new(self.resident_pages(caller).0 as u32).bytes();
        n.bytes() > self.counter.limits().min && beyond()
    }

    /// The run, unless it is beyond the caller's limit. What is resident already is not: it makes nothing more.
    #[inline]
    fn within_limit(&self, caller: Caller<'_>, run: PageRun, n: PageCount) -> Result<PageRun, AllocError> {
        if self.counter.is_marked() && self.is_too_much(caller.os, caller.urgency) && !run.content.is_anything() {
            self.give_back_untouched(caller.os, run.ptr, n, run.content);
            return Err(AllocError::OutOfMemory);
        }
        Ok(run)
    }

    /// Whether somebody of this urgency is beyond its limit, now that it has more.
    #[cold]
    fn is_too_much(&self, os: &dyn Os, urgency: Urgency) -> bool {
        self.watch(os);
        self.counter.is_exceeded(urgency)
    }

    /// Raises an alarm where there is more than the high mark, and makes the next one possible where there is not.
    pub fn watch(&self, os: &dyn Os) {
        if self.counter.is_high() {
            self.kswapd.alarm(os);
        } else {
            self.kswapd.calm();
        }
    }

    /// Gives pages back that nobody has touched since they were taken, with this content.
    #[cold]
    fn give_back_untouched(&self, os: &dyn Os, ptr: NonNull<u8>, n: PageCount, content: Content) {
        let map = self.map_of(ptr.as_ptr());
        // SAFETY: as in `free_pages`.
        let arena = unsafe { &*map.arena().cast::<Arena>() };
        let stale = content.stale();
        let start = arena.page_at(ptr.as_ptr() as usize);
        if stale < n {
            // Known to be zero before, and so still, without a call that the system might refuse. But others may have the rest of
            // a chunk, which is not to be filled by a huge page.
            arena.note_going(start + stale, n - stale);
            arena.buddy().cleanse(start + stale, n - stale);
        }
        if stale.get() > 0 {
            self.discard_pages(os, map, ptr, stale);
        }
        // Our own pages, so this is no misuse.
        let _ = self.free_pages(map, ptr.as_ptr() as usize, n);
    }

    /// The search before a refusal. A thread may be between two words with the very pages that are missing, and a hint
    /// may miss for a moment what its word has.
    fn search_thoroughly(&self, caller: Caller<'_>, n: PageCount, align: Order, dense: bool) -> Option<PageRun> {
        for tries in 0..LAST_TRIES {
            let (mut found, mut sure) = (None, true);
            self.each_arena(caller, &mut |arena| {
                match arena.take_by_words(n, align, dense) {
                    Ok(run) => found = Some(run),
                    Err(why) => sure &= why == NotFound::Sure,
                }
                found.is_none()
            });
            if found.is_some() || sure && !self.awaits_an_arena(caller) {
                return found;
            }
            if tries < EAGER_TRIES {
                caller.os.yield_now();
            } else {
                caller.os.nap();
            }
        }
        None
    }

    /// True while an arena that was unlinked is neither back in the list nor with the system: there will be room then.
    pub fn awaits_an_arena(&self, caller: Caller<'_>) -> bool {
        let unlinked = || self.growth.lock(caller.os).unlinked > 0;
        if !unlinked() {
            return false;
        }
        self.collect(caller);
        unlinked()
    }

    /// Destroys what was retired and is reached by nobody any more. No lock is held.
    pub fn collect(&self, caller: Caller<'_>) {
        if let (Some(reclaim), Some(slot)) = (caller.reclaim, caller.slot) {
            // SAFETY: the slot is the caller's own, and nobody calls while protected.
            unsafe { reclaim.collect(slot) };
        }
    }

    /// The memmap of the chunk that has the page at `ptr`, which the caller owns.
    pub fn map_of(&self, ptr: *mut u8) -> &ChunkMap {
        match self.table.owner(ptr as usize) {
            Owner::Chunk(map) => map,
            _ => die(format_args!("pages at {ptr:p} are not in the address table: the heap is damaged")),
        }
    }

    /// Gives pages back that the caller owns, in the chunk of `map`.
    pub fn free_pages(&self, map: &ChunkMap, address: usize, n: PageCount) -> Result<(), Misuse> {
        // SAFETY: a chunk in the table has an arena (Zo1), and it stays as long as the caller owns pages of it.
        let arena = unsafe { &*map.arena().cast::<Arena>() };
        // From before the pages are free, so that whoever takes them all sees the count; its end is the last look.
        let stays = core::ptr::eq(arena, self.arenas[0].load(Relaxed));
        let _leaving = (!stays).then(|| arena.leaving());
        arena.give_back(address, n)
    }

    /// Gives back a run that somebody kept, and that is the caller's own.
    pub fn give_back_kept(&self, (run, n): (NonNull<u8>, PageCount)) {
        if self.free_pages(self.map_of(run.as_ptr()), run.as_ptr() as usize, n).is_err() {
            die(format_args!("pages at {run:p} that a thread kept are free: the heap is damaged"));
        }
    }

    /// Frees the memory behind pages that the caller owns, the first of them in the chunk of `map`.
    pub fn discard_pages(&self, os: &dyn Os, map: &ChunkMap, ptr: NonNull<u8>, n: PageCount) {
        // SAFETY: as in `free_pages`.
        let arena = unsafe { &*map.arena().cast::<Arena>() };
        // With pages of the system longer than ours, they might hold others' too.
        let alone = (ptr.as_ptr() as usize | n.bytes()) & (os.page_size() - 1) == 0;
        let start = arena.page_at(ptr.as_ptr() as usize);
        arena.note_going(start, n);
        // SAFETY: by contract the caller's own.
        if alone && unsafe { self.discard_free(os, ptr, n.bytes()) } {
            arena.buddy().cleanse(start, n);
        }
    }

    /// Frees the memory behind whole pages of the system that are part of a page of ours. False if the system refuses.
    ///
    /// # Safety
    /// The caller owns them, and they are in an arena.
    pub unsafe fn discard_part(&self, os: &dyn Os, ptr: *mut u8, len: usize) -> bool {
        let map = self.map_of(ptr);
        // SAFETY: as in `free_pages`.
        unsafe { &*map.arena().cast::<Arena>() }.break_up(map);
        map.note_holes();
        // SAFETY: by contract.
        NonNull::new(ptr).is_some_and(|ptr| unsafe { self.discard_free(os, ptr, len) })
    }

    /// Frees the memory behind whole pages of the system that nobody uses. True if they read as zeros now.
    ///
    /// # Safety
    /// The caller owns them.
    unsafe fn discard_free(&self, os: &dyn Os, ptr: NonNull<u8>, len: usize) -> bool {
        poison::unpoison(ptr, len);
        // SAFETY: by contract.
        let zero = unsafe { self.kept.discard(os, ptr, len) };
        poison::poison(ptr, len);
        zero
    }

    /// Claims the `more` pages behind the `n` pages at `address`, in the chunk of `map`, which the caller owns.
    pub fn extend_pages(
        &self,
        caller: Caller<'_>,
        map: &ChunkMap,
        address: usize,
        n: PageCount,
        more: PageCount,
    ) -> bool {
        // SAFETY: as in `free_pages`.
        let arena = unsafe { &*map.arena().cast::<Arena>() };
        if self.is_hopeless(caller, more) {
            return false;
        }
        arena.extend(address, n, more).is_some_and(|behind| self.within_limit(caller, behind, more).is_ok())
    }

    /// What `take` gets of the first arena that has it.
    #[inline(always)]
    fn search(&self, caller: Caller<'_>, take: impl Fn(&Arena) -> Option<PageRun>) -> Option<PageRun> {
        let mut found = take(self.first()?);
        if found.is_none() {
            self.each_later_arena(caller, &mut |arena| {
                found = take(arena);
                found.is_none()
            });
        }
        found
    }

    /// Takes the last `n` of `row` free pages in a row. `None`: none are easily found, or memory is short.
    #[cold]
    pub fn take_with_room(&'static self, caller: Caller<'_>, n: PageCount, row: PageCount) -> Option<PageRun> {
        if self.counter.is_tight() {
            return None;
        }
        let run = self.search(caller, |arena| arena.take_with_room(n, row))?;
        self.within_limit(caller, run, n).ok()
    }

    /// Shows every arena to `visit`, by place, until that returns false.
    pub fn each_arena(&self, caller: Caller<'_>, visit: &mut dyn FnMut(&Arena) -> bool) {
        if self.first().is_some_and(&mut *visit) {
            self.each_later_arena(caller, visit);
        }
    }

    /// The first arena, which stays.
    fn first(&self) -> Option<&Arena> {
        // SAFETY: number 0 is never unlinked (Zo2).
        unsafe { self.arenas[0].load(Acquire).as_ref() }
    }

    fn each_later_arena(&self, caller: Caller<'_>, visit: &mut dyn FnMut(&Arena) -> bool) {
        if self.top.load(Relaxed) <= 1 {
            return;
        }
        let mut walk = || {
            for place in &self.arenas[1..self.top.load(Relaxed)] {
                // SAFETY: we are protected or hold the lock, so what is in the list stays mapped.
                if let Some(arena) = unsafe { place.load(Acquire).as_ref() } {
                    if !visit(arena) {
                        return;
                    }
                }
            }
        };
        let protected = match (caller.reclaim, caller.slot) {
            // SAFETY: the slot is the caller's own.
            (Some(reclaim), Some(slot)) => unsafe { reclaim.protect(slot, &mut walk) },
            _ => false,
        };
        if !protected {
            let _lock = self.growth.lock(caller.os);
            walk();
        }
    }

    /// Makes room for a run of `chunks` chunks. True if a search may find something now.
    fn grow(&'static self, os: &'static dyn Os, generation: u32, chunks: u32) -> bool {
        let mut growth = self.growth.lock(os);
        if recheck("somebody else made room meanwhile", self.generation.load(Relaxed) != generation) {
            return true;
        }
        let grown = self.commit_more(chunks) || self.add_arena(os, &mut growth, chunks);
        if grown {
            self.generation.fetch_add(1, Release);
            self.tell_kswapd(os, &growth);
        }
        grown
    }

    /// Looks anew whether the zone is large enough for a kswapd.
    pub fn consider_kswapd(&self, os: &dyn Os) {
        self.tell_kswapd(os, &self.growth.lock(os));
    }

    /// The caller holds the lock.
    fn tell_kswapd(&self, os: &dyn Os, _: &Growth) {
        // SAFETY: linked, and the lock is held.
        let arenas = self.arenas.iter().filter_map(|place| unsafe { place.load(Relaxed).as_ref() });
        let committed = arenas.map(|arena| arena.committed() as usize).sum::<usize>() * CHUNK_SIZE;
        self.kswapd.grown(os, committed, self.counter.limits());
    }

    fn commit_more(&self, chunks: u32) -> bool {
        for place in &self.arenas[..self.top.load(Relaxed)] {
            // SAFETY: linked, and we hold the lock.
            let Some(arena) = (unsafe { place.load(Relaxed).as_ref() }) else { continue };
            // A run that is aligned must lie in new chunks alone, and in those of one region, to be sure of its place.
            let edge = CHUNKS_PER_REGION - arena.committed() % CHUNKS_PER_REGION;
            let need = if chunks > edge { edge + chunks } else { chunks };
            if arena.chunks() - arena.committed() >= need
                && (arena.commit(&self.kept, &self.table, need.max(COMMIT_CHUNKS))
                    || arena.commit(&self.kept, &self.table, need))
            {
                return true;
            }
        }
        false
    }

    fn add_arena(&'static self, os: &'static dyn Os, growth: &mut Growth, chunks: u32) -> bool {
        // Where the access of a mapping may not change (a seccomp filter refuses `mprotect`), one that has it already.
        for writable in [false, true] {
            let Some(place) = self.vacancy(growth.unlinked) else { return false };
            let Some(arena) = self.create_arena(os, growth, chunks, writable) else { return false };
            // SAFETY: just made, and nobody else knows it yet.
            let new = unsafe { arena.as_ref() };
            let bytes = new.bytes();
            let usable = new.commit(&self.kept, &self.table, chunks.max(COMMIT_CHUNKS))
                || new.commit(&self.kept, &self.table, chunks);
            // SAFETY: no chunk of it was ever with the buddy, and it is not linked.
            if usable || !unsafe { Arena::destroy(arena, &self.kept) } {
                // Usable, or one that the system neither lets us use nor takes back: it may let us use it later.
                growth.reserved += bytes;
                self.link(place, arena);
            }
            if usable {
                return true;
            }
        }
        false
    }

    /// An arena of the part of `reserved` that is due, or less where the system refuses, but of `chunks` chunks.
    fn create_arena(
        &'static self,
        os: &'static dyn Os,
        growth: &mut Growth,
        chunks: u32,
        writable: bool,
    ) -> Option<NonNull<Arena>> {
        let ground = Ground { os, counter: &self.counter, huge: &self.huge };
        let share = growth.reserved / CHUNK_SIZE / GROWTH as usize;
        let due = (share.min(ARENA_CHUNKS_LIMIT as usize) as u32).max(FIRST_ARENA_CHUNKS).max(chunks);
        let mut size = if growth.bound == 0 { due } else { growth.bound.min(due).max(chunks) };
        loop {
            let arena = Arena::create(ground, &self.kept, size, writable, growth.reserved == 0);
            if arena.is_some() {
                growth.bound = if size == due { 0 } else { 2 * size };
                return arena;
            }
            if size == chunks {
                growth.bound = size;
                return None;
            }
            size = (size / 2).max(chunks);
        }
    }

    /// Frees the memory behind free pages that may be resident, as `what` says but for its `group`, the first arena last:
    /// the others are to empty. Returns the pages.
    pub fn purge(&self, caller: Caller<'_>, what: Purge) -> u32 {
        let mut pages = 0;
        let mut purge = |arena: &Arena| {
            pages += arena.purge(Purge { most: what.most.saturating_sub(pages), ..what }, |ptr, len| {
                // SAFETY: a purge owns the pages, and they are whole pages of the system.
                unsafe { self.discard_free(caller.os, ptr, len) }
            });
            pages < what.most
        };
        self.each_later_arena(caller, &mut purge);
        self.first().map(purge);
        pages
    }

    /// Pages that are free and may be resident, and pages that are in use, at about this moment.
    pub fn resident_pages(&self, caller: Caller<'_>) -> (usize, usize) {
        let (mut resident, mut used) = (0, 0);
        self.each_arena(caller, &mut |arena| {
            let (free, dirty) = arena.buddy().free_pages();
            resident += dirty;
            used += ((arena.committed() * PAGES_PER_CHUNK) as usize).saturating_sub(free);
            true
        });
        (resident, used)
    }

    /// Marks free pages that may be resident as idle, until somebody takes them. Returns how many were not.
    pub fn mark_idle(&self, caller: Caller<'_>) -> u32 {
        let mut pages = 0;
        self.each_arena(caller, &mut |arena| {
            pages += arena.buddy().mark_idle();
            true
        });
        pages
    }

    /// Gives the mappings of all arenas names.
    pub fn name_arenas(&self, caller: Caller<'_>) {
        self.each_arena(caller, &mut |arena| {
            if arena.name() {
                self.table.name_leaf(caller.os, arena.base());
            }
            true
        });
    }

    /// Backs chunks by huge pages that are full of what lives long, and sees whether others should be: see [`Arena::ripen`].
    pub fn ripen(&self, caller: Caller<'_>) {
        self.each_arena(caller, &mut |arena| {
            if let Some(dense) = arena.ripen() {
                self.huge.places.note(dense);
            }
            true
        });
    }

    /// Unlinks every empty arena but the first, and unmaps it once nobody walks it. `clean`: only those of which nothing
    /// is resident.
    pub fn retire_empty(&'static self, caller: Caller<'_>, clean: bool) {
        for place in &self.arenas[1..] {
            if place.load(Relaxed).is_null() {
                continue;
            }
            let Some(arena) = self.unlink_empty(caller.os, place, clean) else { continue };
            let garbage = Garbage {
                destroy: Self::destroy_or_link,
                context: core::ptr::from_ref(self).cast(),
                object: arena.as_ptr().cast(),
            };
            let retired = match (caller.reclaim, caller.slot) {
                // SAFETY: the slot is the caller's own; the arena is unlinked; this zone lives for ever.
                (Some(reclaim), Some(slot)) => unsafe { reclaim.retire(slot, garbage) },
                (Some(_), None) => false,
                (None, _) => {
                    // SAFETY: without a scheme all walkers hold the lock, and had to find it in the list.
                    unsafe { (garbage.destroy)(garbage.context, garbage.object) };
                    true
                }
            };
            if !retired {
                self.link_again(caller.os, arena);
            }
        }
    }

    fn unlink_empty(&self, os: &'static dyn Os, place: &AtomicPtr<Arena>, clean: bool) -> Option<NonNull<Arena>> {
        let mut growth = self.growth.lock(os);
        let arena = NonNull::new(place.load(Relaxed))?;
        // SAFETY: linked, and we hold the lock.
        let this = unsafe { arena.as_ref() };
        if clean && this.buddy().free_pages().1 > 0 || !this.empty_out(&self.table) {
            return None;
        }
        place.store(null_mut(), Relaxed);
        growth.unlinked += 1;
        Some(arena)
    }

    /// Links an arena that was emptied out and could not be destroyed.
    fn link_again(&self, os: &'static dyn Os, arena: NonNull<Arena>) {
        let mut growth = self.growth.lock(os);
        growth.unlinked -= 1;
        if let Some(place) = self.vacancy(growth.unlinked) {
            // SAFETY: ours alone so far.
            unsafe { arena.as_ref() }.refill(&self.table);
            self.link(place, arena);
            self.generation.fetch_add(1, Release);
        }
    }

    /// A place without an arena, beside those for arenas that may come back.
    fn vacancy(&self, unlinked: usize) -> Option<usize> {
        let mut vacant = (0..MAX_ARENAS).filter(|place| self.arenas[*place].load(Relaxed).is_null());
        let first = vacant.next()?;
        (vacant.count() >= unlinked).then_some(first)
    }

    fn link(&self, place: usize, arena: NonNull<Arena>) {
        self.arenas[place].store(arena.as_ptr(), Release);
        self.top.fetch_max(place + 1, Relaxed);
    }

    /// # Safety
    /// `zone` is a zone that lives for ever, `arena` one that was unlinked from it and that nobody else can reach.
    unsafe fn destroy_or_link(zone: *const (), arena: *mut ()) {
        // SAFETY: by contract.
        let zone: &'static Zone = unsafe { &*zone.cast() };
        // SAFETY: by contract; it was made from a `NonNull`.
        let arena = unsafe { NonNull::new_unchecked(arena.cast::<Arena>()) };
        // SAFETY: by contract it is still mapped.
        let (os, bytes) = unsafe { arena.as_ref() }.accounts();
        // SAFETY: by contract.
        if unsafe { Arena::destroy(arena, &zone.kept) } {
            let mut growth = zone.growth.lock(os);
            growth.reserved -= bytes;
            growth.unlinked -= 1;
            zone.generation.fetch_add(1, Release); // there is address space for another
        } else {
            zone.link_again(os, arena);
        }
    }
}
