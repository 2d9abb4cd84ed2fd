//! Arena: one range of address space, its buddy, and the memmap beside it.
//!
//! # Algorithm
//! An arena is reserved without access and made writable chunk by chunk, lowest first. (Where the system does not let
//! the access of a mapping change, it is writable from the start, and what is said of chunks is bookkeeping.) Its
//! descriptors (this record, the buddy's words, the memmap) lie in a mapping of their own, so a stray write through a
//! client's pointer hits other clients at worst. Descriptors cost a fiftieth of the arena's address space and are touched
//! as they are used: half a percent of what they describe, and two where objects are of 32 bytes at most. Those of slabs
//! lie apart from the others, on pages that go back to the system when what they describe does.
//!
//! # Invariants
//! - Ar1: chunks below `committed` are writable, described, in the address table and with the buddy; others are none of
//!   it.
//! - Ar2: `committed` changes under the lock of the arena's zone only. To others it is a bound (Relaxed): what lies
//!   below it they reach through the buddy's words or the address table, which publish it; who counts goes by the bound alone, and
//!   takes a memmap without an address as one of nothing.

mod backing;

use crate::buddy::{Buddy, NotFound, Purge, Region, Run, Summary};
use crate::chunk::{Chunk, Content};
use crate::config::{
    CHECKED, CHUNKS_PER_REGION, CHUNK_SHIFT, CHUNK_SIZE, FIRST_ARENA_CHUNKS, PAGES_PER_CHUNK, PAGE_SHIFT,
};
use crate::error::Misuse;
use crate::huge::{Height, Openings, Policy};
use crate::page::{AddressTable, ChunkMap, Rooms};
use crate::page_counter::PageCounter;
use crate::poison;
use crate::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{lay, UnwatchedU32};
use crate::sys::{Kept, Os, Reservation};
use crate::units::{ChunkIndex, Order, PageCount, PageIndex};
use core::mem::size_of;
use core::ptr::NonNull;
use static_assertions::const_assert;

/// What all arenas of a zone have in common.
#[derive(Clone, Copy)]
pub struct Ground {
    /// The system.
    pub os: &'static dyn Os,
    /// What may be resident.
    pub counter: &'static PageCounter,
    /// What is backed by huge pages.
    pub huge: &'static Policy,
}

/// One mapped range of chunks and everything known about it.
#[repr(C, align(64))]
pub struct Arena {
    ground: Ground,
    range: Reservation,
    chunks: u32,
    committed: AtomicU32,
    own_len: usize,
    /// Threads that give pages back.
    leaving: AtomicU32,
    /// All of it was mapped readable and writable.
    writable: bool,
    height: Height,
    openings: Openings,
    /// How many borders there are between chunks that are backed by huge pages and others. What two threads change at once may be
    /// off, until the next tick.
    borders: UnwatchedU32,
    /// One once the system knows it by a name.
    named: UnwatchedU32,
    maps: NonNull<ChunkMap>,
    rooms: NonNull<Rooms>,
    words: NonNull<Chunk>,
    regions: NonNull<Region>,
    summary: Summary,
}

/// A run of pages that was handed out by address.
#[derive(Clone, Copy, Debug)]
#[must_use = "a run that is dropped leaks its pages"]
pub struct PageRun {
    /// Its first byte.
    pub ptr: NonNull<u8>,
    /// What its pages hold.
    pub content: Content,
}

/// Offsets of the parts in an arena's own mapping.
struct Parts {
    regions: usize,
    words: usize,
    maps: usize,
    rooms: usize,
    len: usize,
}

impl Parts {
    fn of(chunks: u32, os: &dyn Os) -> Self {
        let n = chunks as usize;
        let line = |bytes: usize| bytes.next_multiple_of(64);
        let regions = line(size_of::<Arena>());
        let words = line(regions + n.div_ceil(CHUNKS_PER_REGION as usize) * size_of::<Region>());
        let maps = line(words + n * size_of::<Chunk>());
        // On pages of their own, which go back to the system when what they describe does.
        let rooms = os.whole_pages(maps + n * size_of::<ChunkMap>());
        Self { regions, words, maps, rooms, len: os.whole_pages(rooms + n * size_of::<Rooms>()) }
    }
}

// The first touch of the descriptors of the first arena is not to make a huge page, whatever the system does by itself.
const_assert!(
    cfg!(kmalloc_loom)
        || CHECKED
        || FIRST_ARENA_CHUNKS as usize * (size_of::<Chunk>() + size_of::<ChunkMap>() + size_of::<Rooms>()) < CHUNK_SIZE
);

/// Somebody gives pages back and has not done with the arena while it lives.
#[must_use = "it counts as long as it lives"]
pub struct Leaving<'a>(&'a AtomicU32);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}

impl Arena {
    /// Reserves an arena of `chunks` chunks, none of them committed yet. `None` if the system refuses any part of it.
    /// `writable`: without the need to ask the system again when they are. `first`: the first one of its zone.
    pub fn create(ground: Ground, kept: &Kept, chunks: u32, writable: bool, first: bool) -> Option<NonNull<Arena>> {
        let os = ground.os;
        let parts = Parts::of(chunks, os);
        let len = chunks as usize * CHUNK_SIZE;
        let (own, own_len) = (kept.map(os, parts.len)?, parts.len);
        let Some(range) = Reservation::new(os, kept, len, CHUNK_SIZE, writable) else {
            // SAFETY: just mapped, not used yet.
            unsafe { kept.unmap(os, own, own_len) };
            return None;
        };
        // Who gets huge pages is not for the system to say, whatever the policy: it is asked for each chunk that is to have
        // some. Said without asking whether it would, which takes as long as a file. A refusal costs memory, nothing else.
        // SAFETY: just reserved.
        unsafe { os.advise_huge(range.ptr, len, false) };
        if !first {
            Self::spare_descriptors(os, own, own_len);
        }
        // SAFETY: offsets of `Parts` lie inside the mapping of `parts.len` bytes.
        let at = |offset: usize| unsafe { own.add(offset) };
        let n = chunks as usize;
        // SAFETY: for each of the parts `Parts` has made room in the mapping, which is new and holds zeros.
        let maps = unsafe { lay(at(parts.maps), n) };
        // SAFETY: as above.
        let rooms = unsafe { lay(at(parts.rooms), n) };
        // SAFETY: as above.
        let words = unsafe { lay(at(parts.words), n) };
        // SAFETY: as above.
        let regions = unsafe { lay(at(parts.regions), n.div_ceil(CHUNKS_PER_REGION as usize)) };
        let arena = Arena {
            ground,
            range,
            chunks,
            committed: AtomicU32::new(0),
            own_len,
            leaving: AtomicU32::new(0),
            writable,
            height: Height::new(first),
            openings: Openings::default(),
            borders: UnwatchedU32::new(0),
            named: UnwatchedU32::new(0),
            maps,
            rooms,
            words,
            regions,
            summary: Summary::new(),
        };
        let this = own.cast::<Arena>();
        // SAFETY: the mapping is page-aligned, ours, and begins with room for it. The other parts are valid as zeros.
        unsafe { this.as_ptr().write(arena) };
        Some(this)
    }

    /// Descriptors are touched one by one, and are to have no huge pages. A refusal costs memory, nothing else.
    fn spare_descriptors(os: &dyn Os, own: NonNull<u8>, own_len: usize) {
        // SAFETY: a mapping of ours.
        unsafe { os.advise_huge(own, own_len, false) };
    }

    /// Gives its mappings names, once. A refusal costs those, nothing else. False if it has had them.
    pub fn name(&self) -> bool {
        if self.named.swap(1, Relaxed) != 0 {
            return false;
        }
        let (this, os) = (NonNull::from(self).cast(), self.ground.os);
        // SAFETY: the mapping of the chunks.
        unsafe { os.name(self.range.ptr, self.bytes(), c"kmalloc arena") };
        // SAFETY: the mapping of the descriptors, which begins here.
        unsafe { os.name(this, self.own_len, c"kmalloc memmap") };
        // Those of the first arena, too: together with what lies beside them they may be long enough.
        Self::spare_descriptors(os, this, self.own_len);
        true
    }

    /// Makes up to `n` more chunks writable and hands them to the buddy. False if there are none or the system refuses.
    /// The caller holds the lock of the zone (Ar2).
    pub fn commit(&self, kept: &Kept, table: &AddressTable, n: u32) -> bool {
        let first = self.committed.load(Relaxed);
        let n = n.min(self.chunks - first);
        // SAFETY: `first` chunks are at most the arena's length.
        let start = unsafe { self.base().add((first as usize) << CHUNK_SHIFT) };
        let len = (n as usize) << CHUNK_SHIFT;
        if n == 0 || !table.prepare(self.ground.os, kept, start, len) {
            return false;
        }
        // SAFETY: chunks from `first` on, of which there are `n`; whole pages of our reservation.
        if !self.writable && !unsafe { self.ground.os.commit(start, len) } {
            return false;
        }
        poison::poison(start, len);
        for c in first..first + n {
            // SAFETY: below `chunks`, so inside the range.
            let base = unsafe { self.base().add((c as usize) << CHUNK_SHIFT) };
            let map = self.map(c);
            // SAFETY: `create` made room for `chunks` of them.
            let rooms = unsafe { self.rooms.add(c as usize) };
            map.describe(base, core::ptr::from_ref(self).cast_mut().cast(), rooms);
            table.set_chunk(base, map);
        }
        self.committed.store(first + n, Relaxed);
        self.buddy().add_chunks(ChunkIndex::new(first), n);
        true
    }

    /// The first byte of its first page.
    pub fn base(&self) -> NonNull<u8> {
        self.range.ptr
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        (self.chunks as usize) << CHUNK_SHIFT
    }

    /// Bytes mapped for it beside its length: its descriptors, and slack that the system did not take back.
    pub fn own_bytes(&self) -> usize {
        self.own_len + self.range.map_len - self.bytes()
    }

    /// The system that it was made with, and its length: what is needed once it is gone.
    pub fn accounts(&self) -> (&'static dyn Os, usize) {
        (self.ground.os, self.bytes())
    }

    /// Chunks in all.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Chunks that are writable.
    pub fn committed(&self) -> u32 {
        self.committed.load(Relaxed)
    }

    /// Its free pages.
    pub fn buddy(&self) -> Buddy<'_> {
        let n = self.chunks as usize;
        // SAFETY: `create` made room for `n` of them, valid as zeros, for as long as the arena lives.
        let words = unsafe { core::slice::from_raw_parts(self.words.as_ptr(), n) };
        let regions = n.div_ceil(CHUNKS_PER_REGION as usize);
        // SAFETY: as above.
        let regions = unsafe { core::slice::from_raw_parts(self.regions.as_ptr(), regions) };
        Buddy::new(words, regions, &self.summary, self.ground.counter)
    }

    /// The memmap of chunk `c`.
    pub fn map(&self, c: u32) -> &ChunkMap {
        debug_assert!(c < self.chunks);
        // SAFETY: `create` made room for `chunks` of them.
        let map = unsafe { self.maps.add(c as usize) };
        // SAFETY: valid as zeros, for as long as the arena lives.
        unsafe { map.as_ref() }
    }

    /// Takes a run of pages.
    ///
    /// Chunks of which nothing is resident are backed by huge pages if the most of them belongs to a run that is longer
    /// than a chunk and will be written as a whole (it is `dense`), or if they lie so high that the part of them that is never
    /// touched is small beside all that lies below, unless the heap is sparse, a quarter belongs to a run that is not `dense`, or
    /// they are opened for the sake of where they begin; neither if such runs are sparse, and they are for one.
    pub fn take(&self, n: PageCount, align: Order, dense: bool) -> Option<PageRun> {
        self.buddy().take_warming(n, align, self.warm(n, align, dense)).map(|run| self.at(run))
    }

    /// Takes the last `n` of so many free pages in a row; of their chunks the same is true.
    pub fn take_with_room(&self, n: PageCount, row: PageCount) -> Option<PageRun> {
        self.buddy().take_with_room(n, row, self.warm(n, Order::ZERO, true)).map(|run| self.at(run))
    }

    /// Claims the `more` pages behind the `n` pages at `address`, which the caller owns. Returns those.
    pub fn extend(&self, address: usize, n: PageCount, more: PageCount) -> Option<PageRun> {
        let start = self.page_at(address);
        if (start + n + more).get() > self.committed() * PAGES_PER_CHUNK {
            return None;
        }
        let content =
            self.buddy().extend(start, n, more, self.warm(PageCount::new(n.get() + more.get()), Order::ZERO, true))?;
        Some(self.at(Run { start: start + n, content }))
    }

    /// As `take`, for whoever is about to be refused: asks every chunk and trusts no hint.
    pub fn take_by_words(&self, n: PageCount, align: Order, dense: bool) -> Result<PageRun, NotFound> {
        self.buddy().take_by_words(n, align, self.warm(n, align, dense)).map(|run| self.at(run))
    }

    fn at(&self, Run { start, content }: Run) -> PageRun {
        // SAFETY: pages of the buddy are pages of the range.
        let ptr = unsafe { self.base().add(start.byte_offset()) };
        PageRun { ptr, content }
    }

    /// The number of the page at `address`, which is one of the arena's.
    pub fn page_at(&self, address: usize) -> PageIndex {
        PageIndex::new(((address - self.base().as_ptr() as usize) >> PAGE_SHIFT) as u32)
    }

    /// Counts the caller in until it drops the answer, which is its last look at the arena. For whoever gives pages
    /// back, before it does: its Release of the pages is what shows the count to whoever takes them all.
    pub fn leaving(&self) -> Leaving<'_> {
        self.leaving.fetch_add(1, Relaxed);
        Leaving(&self.leaving)
    }

    /// Gives pages back that the caller owns.
    pub fn give_back(&self, address: usize, n: PageCount) -> Result<(), Misuse> {
        self.buddy().give_back(self.page_at(address), n)
    }

    /// Frees the memory behind free pages that may be resident, as `what` says but for its `group`, by `discard`. Returns
    /// the pages.
    pub fn purge(&self, what: Purge, discard: impl Fn(NonNull<u8>, usize) -> bool) -> u32 {
        // With pages of the system longer than ours, only whole ones can be discarded.
        let group = self.ground.os.page_size().trailing_zeros().saturating_sub(PAGE_SHIFT);
        self.buddy().purge(Purge { group, ..what }, |start, n| {
            // SAFETY: pages of the buddy are pages of the range.
            let ptr = unsafe { self.base().add(start.byte_offset()) };
            let map = self.map(start.get() / PAGES_PER_CHUNK);
            self.note_going(start, n);
            let first = (start.get() % PAGES_PER_CHUNK) as usize;
            for (rooms, len) in map.rooms_alone(first, n.get() as usize, self.ground.os.page_size()) {
                // SAFETY: whole pages of our own mapping; what they describe is the purge's, so no slab is there.
                unsafe { self.ground.os.discard(rooms, len) };
            }
            discard(ptr, n.bytes())
        })
    }

    /// Takes every chunk out of the buddy and the table. False, and nothing changed, if a page is out or somebody who
    /// gave one back is not gone yet.
    pub fn empty_out(&self, table: &AddressTable) -> bool {
        let committed = self.committed();
        let Some(_transit) = self.buddy().take_all(committed) else { return false };
        // Acquire meets the Release of `Leaving`'s end: what they did here is done.
        if self.leaving.load(Acquire) != 0 {
            self.buddy().add_chunks(ChunkIndex::new(0), committed);
            return false;
        }
        for c in 0..committed {
            if let Some(base) = NonNull::new(self.map(c).base()) {
                table.clear_chunk(base);
            }
        }
        true
    }

    /// Undoes [`Arena::empty_out`]. The pages may hold anything.
    pub fn refill(&self, table: &AddressTable) {
        let committed = self.committed();
        for c in 0..committed {
            if let Some(base) = NonNull::new(self.map(c).base()) {
                table.set_chunk(base, self.map(c));
            }
        }
        self.buddy().add_chunks(ChunkIndex::new(0), committed);
    }

    /// Gives an arena that was emptied out back to the system. False, and nothing changed, if the system refuses.
    ///
    /// # Safety
    /// Nobody else can reach the arena any more.
    pub unsafe fn destroy(this: NonNull<Arena>, kept: &Kept) -> bool {
        // SAFETY: by contract it is still there, and ours alone.
        let Arena { ground: Ground { os, counter, .. }, range, own_len, .. } = *unsafe { this.as_ref() };
        // SAFETY: as above.
        let arena = unsafe { this.as_ref() };
        let (bytes, dirty) = (arena.bytes(), arena.buddy().dirty_pages());
        poison::unpoison(range.map, range.map_len);
        // SAFETY: nobody has a page of it (`empty_out`).
        if !unsafe { os.unmap(range.map, range.map_len) } {
            poison::poison(range.ptr, bytes);
            return false;
        }
        counter.uncharge_pages(dirty);
        // SAFETY: the arena's own mapping, and this was its last use.
        unsafe { kept.unmap(os, this.cast(), own_len) };
        true
    }

    /// Checks every invariant; for a moment when nobody else is here.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.buddy().validate()?;
        let pages = self.committed() as usize * PAGES_PER_CHUNK as usize;
        if self.buddy().free_pages().0 > pages {
            return Err("arena: more free pages than writable ones (Ar1)");
        }
        for c in 0..self.committed() {
            if self.map(c).base() as usize != self.base().as_ptr() as usize + ((c as usize) << CHUNK_SHIFT) {
                return Err("arena: a writable chunk is not described (Ar1)");
            }
            self.map(c).validate(self.buddy().free_in(ChunkIndex::new(c)))?;
        }
        Ok(())
    }
}
