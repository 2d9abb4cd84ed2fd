//! Page: the memmap. What each page is, and whose; and the way from an address to it.
//!
//! # Algorithm
//! Every chunk of an arena has a [`ChunkMap`] beside the arena: one tag per page. Its [`Rooms`] lie apart from that: one
//! room per page for the header of a slab (the kernel lays `struct slab` over `struct page` in the same way), which
//! holds the bits of up to 704 objects, too; and one for a longer bitmap. So the memory behind the rooms of pages that
//! went back to the system can follow them, and what stays of a chunk is five cache lines (with pages of 16 KiB, a little
//! more; with longer ones its rooms, too). An [`AddressTable`] of two levels, keyed by the 2 MiB window of an address,
//! leads from any address to the chunk's map, to the record of a vmalloc area that begins in the window, or to nothing:
//! "not ours".
//!
//! # Invariants
//! - Pg1: only the first page of a page run has a tag, and it names the run's length; all pages of a shard's slab have
//!   one, which is set and cleared under the shard's lock.
//! - Pg2: only the owner of a page changes its tag; the tags of free pages are [`Tag::NONE`].
//! - Pg3: a window of the table names a chunk as long as it is writable, or an area from before it is handed out until
//!   it is freed.
//!
//! # Memory ordering
//! | step                      | order   | so that                                                           |
//! |---------------------------|---------|-------------------------------------------------------------------|
//! | enter a window, or a leaf | Release | who finds it sees the map or the record behind it, or the leaf    |
//! | look a window up          | Acquire | as above                                                          |
//! | clear an area's: CAS      | Acquire | of two frees one finds the area, and its record as it is now      |
//! | clear a chunk's           | Relaxed | nobody learns anything from null                                  |
//! | set or read a tag         | Relaxed | tags change hands with their pages, or with their shard's lock    |
//! | replace a run's tag: CAS  | Relaxed | of two that free or resize it exactly one finds the tag           |

use crate::chunk::PageSet;
use crate::config::{
    ADDRESS_BITS, CHECKED, CHUNK_SHIFT, CHUNK_SIZE, LEAF_SHIFT, MAX_SHARDS, MAX_SLAB_OBJECTS, PAGES_PER_CHUNK,
    PAGE_SHIFT, ROOT_SHIFT,
};
use crate::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{array_of, const_unless_loom, lay, UnwatchedPtr, UnwatchedU32, UnwatchedUnsafeCell, Zeroed};
use crate::sys::{Kept, Os};
use crate::units::PageCount;
use core::ops::Range;
use core::ptr::{null_mut, NonNull};
use static_assertions::const_assert;

/// What a page is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(u32);

/// A tag, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Free, or the inside of a page run.
    None,
    /// Of a slab.
    Slab {
        /// Number of its size class.
        class: usize,
        /// Number of its shard.
        shard: usize,
        /// Number in the chunk of the slab's first page.
        first: usize,
    },
    /// The first page of a run of this length.
    Run(PageCount),
}

const SLAB: u32 = 1;
const RUN: u32 = 2;

// A byte each.
const_assert!(PAGES_PER_CHUNK <= 256 && MAX_SHARDS <= 256);

impl Tag {
    /// Nothing begins here.
    pub const NONE: Self = Self(0);

    /// Of a slab that begins at page number `first` of the chunk.
    pub const fn slab(class: usize, shard: usize, first: usize) -> Self {
        Self(SLAB | (class as u32) << 2 | (first as u32) << 16 | (shard as u32) << 24)
    }

    /// The first page of a run.
    pub const fn run(pages: PageCount) -> Self {
        Self(RUN | pages.get() << 2)
    }

    /// If it is of a slab of this class: the shard, and the number of the slab's first page.
    #[inline(always)]
    pub const fn of_slab(self, class: usize) -> Option<(usize, usize)> {
        if self.0 & 0xffff == Self::slab(class, 0, 0).0 {
            Some(((self.0 >> 24) as usize, (self.0 >> 16) as usize % PAGES_PER_CHUNK as usize))
        } else {
            None
        }
    }

    /// If it is of a slab of this class and shard: the number of the slab's first page.
    #[inline(always)]
    pub const fn of_shard(self, class: usize, shard: u8) -> Option<usize> {
        if self.0 & 0xff00_ffff == Self::slab(class, shard as usize, 0).0 {
            Some((self.0 >> 16) as usize % PAGES_PER_CHUNK as usize)
        } else {
            None
        }
    }

    /// The number of the size class, if it is of a slab.
    #[inline(always)]
    pub const fn class(self) -> Option<usize> {
        if self.0 & 3 == SLAB {
            Some((self.0 >> 2 & 0xff) as usize)
        } else {
            None
        }
    }

    /// What it says.
    #[inline]
    pub const fn kind(self) -> Kind {
        match self.0 & 3 {
            SLAB => Kind::Slab {
                class: (self.0 >> 2 & 0xff) as usize,
                first: (self.0 >> 16) as usize % PAGES_PER_CHUNK as usize,
                shard: (self.0 >> 24) as usize,
            },
            RUN => Kind::Run(PageCount::new(self.0 >> 2)),
            _ => Kind::None,
        }
    }
}

/// Words about the slab that begins at a page, zeros at first; and beside them others for [`crate::live`].
#[repr(C, align(64))]
pub struct Words<const WORDS: usize, const LIVE: usize> {
    /// Reached by `get`.
    _words: UnwatchedUnsafeCell<[u64; WORDS]>,
    /// Apart from the others, which their slab's lock protects: these change under no lock.
    live: [AtomicU64; LIVE],
}

/// Room for a header, and for the bits of so many objects: two cache lines.
pub type Room = Words<ROOM_WORDS, { live_words(ROOM_WORDS) }>;
/// Room for a bit for each of the smallest objects: of a slab whose bits do not fit into its [`Room`].
pub type Bitmap = Words<BITMAP_WORDS, { live_words(BITMAP_WORDS) }>;

/// Words of a room.
pub const ROOM_WORDS: usize = 16;
const BITMAP_WORDS: usize = MAX_SLAB_OBJECTS.div_ceil(64);

/// As many, where what is given back is checked at the call.
const fn live_words(words: usize) -> usize {
    if CHECKED {
        words
    } else {
        0
    }
}

impl<const WORDS: usize, const LIVE: usize> Words<WORDS, LIVE> {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        Self { _words: UnwatchedUnsafeCell::new([0; WORDS]), live: array_of!(LIVE, AtomicU64, AtomicU64::new(0)) }
    }

    /// Where they are.
    #[inline]
    pub fn get(&self) -> NonNull<u64> {
        NonNull::from(self).cast()
    }

    /// The words of `live`.
    #[inline]
    pub fn live(&self) -> &[AtomicU64] {
        &self.live
    }
}

/// What the slabs of one chunk need.
#[repr(C, align(64))]
pub struct Rooms {
    rooms: [Room; PAGES_PER_CHUNK as usize],
    bitmaps: [Bitmap; PAGES_PER_CHUNK as usize],
}

// SAFETY: zeros are rooms and bitmaps of zeros.
unsafe impl Zeroed for Rooms {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        const PAGES: usize = PAGES_PER_CHUNK as usize;
        Self { rooms: array_of!(PAGES, Room, Room::zeroed()), bitmaps: array_of!(PAGES, Bitmap, Bitmap::zeroed()) }
    }
}

/// What the system was asked to back a chunk by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Backing {
    /// Small pages.
    Usual,
    /// A huge page.
    Huge,
    /// No huge page any more.
    Broken,
    /// Never a huge page: a part of it went back, or the system refused.
    Small,
}

/// A chunk was full so many times in a row, and is thought to be full of what lives long.
const LASTS: u32 = 2;
/// It was so before, too.
const SEEN: u32 = LASTS + 1;

/// The memmap of one chunk.
#[repr(C, align(64))]
pub struct ChunkMap {
    tags: [AtomicU32; PAGES_PER_CHUNK as usize],
    base: AtomicPtr<u8>,
    arena: AtomicPtr<u8>,
    /// A [`Backing`]. Whoever owns the chunk as a whole may make it huge, and so may kswapd; who owns a part of it, so that
    /// nobody owns all of it, may break it up.
    backing: AtomicU32,
    /// At how many ticks in a row it was full, up to `SEEN`.
    full: UnwatchedU32,
    /// Written once, with `base` and before it.
    rooms: UnwatchedPtr<Rooms>,
}

const_assert!(cfg!(kmalloc_loom) || core::mem::size_of::<ChunkMap>() == 320);
const_assert!(cfg!(kmalloc_loom) || core::mem::size_of::<Room>() == if CHECKED { 256 } else { 128 });
const_assert!(cfg!(kmalloc_loom) || core::mem::size_of::<Bitmap>() == if CHECKED { 1024 } else { 512 });
// Less than a fiftieth of what they describe, or a twenty-fifth.
const_assert!(
    cfg!(kmalloc_loom)
        || (core::mem::size_of::<ChunkMap>() + core::mem::size_of::<Rooms>()) * if CHECKED { 25 } else { 50 }
            < CHUNK_SIZE
);

// SAFETY: zeros are no tags and null pointers.
unsafe impl Zeroed for ChunkMap {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        Self {
            tags: array_of!(PAGES_PER_CHUNK as usize, AtomicU32, AtomicU32::new(0)),
            base: AtomicPtr::new(null_mut()),
            arena: AtomicPtr::new(null_mut()),
            backing: AtomicU32::new(0),
            full: UnwatchedU32::new(0),
            rooms: UnwatchedPtr::new(null_mut()),
        }
    }
}

impl ChunkMap {
    /// Says where the chunk begins, which arena has it, and where its rooms are. Before it is entered in the table.
    pub fn describe(&self, base: NonNull<u8>, arena: *mut u8, rooms: NonNull<Rooms>) {
        self.rooms.store(rooms.as_ptr(), Relaxed);
        self.base.store(base.as_ptr(), Relaxed);
        self.arena.store(arena, Relaxed);
    }

    /// True if it never had huge pages. Of one that had all was resident once, whatever for.
    pub fn was_never_huge(&self) -> bool {
        matches!(self.backing(), Backing::Usual | Backing::Small)
    }

    /// True if huge pages were asked for, so that the first touch may make all of it resident.
    pub fn is_huge(&self) -> bool {
        self.backing() == Backing::Huge
    }

    /// What the system was asked to back the chunk by.
    pub fn backing(&self) -> Backing {
        match self.backing.load(Relaxed) {
            1 => Backing::Huge,
            2 => Backing::Broken,
            3 => Backing::Small,
            _ => Backing::Usual,
        }
    }

    /// Notes what it is asked for, in place of `was`. Of several threads exactly one succeeds.
    pub fn replace_backing(&self, was: Backing, backing: Backing) -> bool {
        self.backing.compare_exchange(was as u32, backing as u32, Relaxed, Relaxed).is_ok()
    }

    /// Notes whether it is full. True at the second time in a row, and not at those that follow.
    pub fn note_full(&self, full: bool) -> bool {
        let times = if full { SEEN.min(self.full.load(Relaxed) + 1) } else { 0 };
        self.full.store(times, Relaxed);
        times == LASTS
    }

    /// No tick is to ask what is resident of it, until it was not full.
    pub fn note_holes(&self) {
        self.full.store(SEEN, Relaxed);
    }

    /// The whole pages of the system that hold nothing but rooms and bitmaps of the `n` pages from `page` on: who owns those
    /// may free the memory behind them, since what is there says nothing but of a slab.
    pub fn rooms_alone(&self, page: usize, n: usize, page_size: usize) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        fn bytes<T>(of: Option<&[T]>) -> Range<usize> {
            of.map_or(0..0, |of| of.as_ptr_range().start as usize..of.as_ptr_range().end as usize)
        }
        let Rooms { rooms, bitmaps } = self.rooms();
        let mut ranges = [bytes(rooms.get(page..page + n)), bytes(bitmaps.get(page..page + n))];
        // Of a whole chunk the bitmaps begin where the rooms end.
        if ranges[0].end == ranges[1].start {
            ranges = [ranges[0].start..ranges[1].end, 0..0];
        }
        let first = self.rooms.load(Relaxed);
        ranges.into_iter().filter_map(move |range| {
            let start = (range.start + page_size - 1) & !(page_size - 1);
            let len = (range.end & !(page_size - 1)).checked_sub(start).filter(|len| *len > 0)?;
            Some((NonNull::new(first.cast::<u8>().wrapping_add(start - first as usize))?, len))
        })
    }

    #[inline(always)]
    fn rooms(&self) -> &Rooms {
        // SAFETY: of a chunk that was described; they stay as long as this.
        unsafe { &*self.rooms.load(Relaxed) }
    }

    /// The chunk's first byte.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base.load(Relaxed)
    }

    /// The arena, as it was described.
    pub fn arena(&self) -> *mut u8 {
        self.arena.load(Relaxed)
    }

    /// The number in this chunk of the page at `address`, which is one of the chunk's.
    #[inline]
    pub fn page_of(&self, address: usize) -> usize {
        address >> PAGE_SHIFT & (PAGES_PER_CHUNK as usize - 1)
    }

    /// The tag of a page.
    #[inline]
    pub fn tag(&self, page: usize) -> Tag {
        Tag(self.tags[page].load(Relaxed))
    }

    /// Changes the tag of a page that the caller owns.
    pub fn set_tag(&self, page: usize, tag: Tag) {
        self.tags[page].store(tag.0, Relaxed);
    }

    /// Changes a tag from `was`. Of several threads exactly one succeeds.
    pub fn replace_tag(&self, page: usize, was: Tag, tag: Tag) -> bool {
        self.tags[page].compare_exchange(was.0, tag.0, Relaxed, Relaxed).is_ok()
    }

    /// Checks the tags of a writable chunk whose free pages are these; for a moment when nobody else is here.
    pub fn validate(&self, free: PageSet) -> Result<(), &'static str> {
        let mut inside = 0usize; // pages of a run that follow its first one
        for page in 0..PAGES_PER_CHUNK as usize {
            let is_free = free.contains(PageSet::run(page as u32, 1));
            match self.tag(page).kind() {
                Kind::None if inside > 0 && is_free => return Err("page: inside a run, and free (Pg1)"),
                Kind::None => inside = inside.saturating_sub(1),
                _ if is_free => return Err("page: free, but with a tag (Pg2)"),
                _ if inside > 0 => return Err("page: a tag inside a run (Pg1)"),
                Kind::Run(pages) => inside = pages.get() as usize - 1,
                Kind::Slab { class, shard, first } => {
                    if first > page || self.tag(first) != Tag::slab(class, shard, first) {
                        return Err("page: of a slab that does not begin where it says (Pg1)");
                    }
                }
            }
        }
        Ok(())
    }

    /// The room of a page.
    #[inline]
    pub fn room(&self, page: usize) -> &Room {
        &self.rooms().rooms[page]
    }

    /// The bitmap of a page.
    #[inline]
    pub fn bitmap(&self, page: usize) -> &Bitmap {
        &self.rooms().bitmaps[page]
    }
}

/// Who owns a window of the address space.
#[derive(Clone, Copy)]
pub enum Owner<M> {
    /// Not this heap.
    Nobody,
    /// A chunk of an arena.
    Chunk(M),
    /// The record of an area that begins somewhere in the window.
    Area(NonNull<u8>),
}

/// An address as the table knows it: in a model, where it is in the block of all memory.
#[inline(always)]
const fn key(address: usize) -> usize {
    if cfg!(kmalloc_loom) {
        address & ((1 << ADDRESS_BITS) - 1)
    } else {
        address
    }
}

struct Leaf([AtomicPtr<u8>; 1 << LEAF_SHIFT]);

// SAFETY: zeros are null pointers.
unsafe impl Zeroed for Leaf {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        Self(array_of!(1 << LEAF_SHIFT, AtomicPtr<u8>, AtomicPtr::new(null_mut())))
    }
}

/// From an address to its chunk or area. Lock-free; looking up costs two dependent loads and never needs memory.
pub struct AddressTable {
    root: [AtomicPtr<Leaf>; 1 << ROOT_SHIFT],
    /// A leaf of zeros, or none: left over by [`AddressTable::prepare_with`].
    spare: AtomicPtr<Leaf>,
    /// The first leaf that is needed, which spares the first allocation of a process a system call.
    first: Leaf,
    /// One once that is in the root, or about to be.
    taken: AtomicU32,
}

/// A leaf of zeros that belongs to its holder.
#[must_use = "a leaf that is dropped is lost"]
pub struct HeldLeaf(NonNull<Leaf>);

impl AddressTable {
    const_unless_loom! {
        /// An empty table. All zeros is the same state.
        pub fn new() -> Self {
            Self {
                root: array_of!(1 << ROOT_SHIFT, AtomicPtr<Leaf>, AtomicPtr::new(null_mut())),
                spare: AtomicPtr::new(null_mut()),
                first: Leaf(array_of!(1 << LEAF_SHIFT, AtomicPtr<u8>, AtomicPtr::new(null_mut()))),
                taken: AtomicU32::new(0),
            }
        }
    }

    /// Makes sure that every window of the range can be entered. False if there is no memory for it, or if the range
    /// lies beyond the addresses that the table knows.
    pub fn prepare(&self, os: &dyn Os, kept: &Kept, start: NonNull<u8>, len: usize) -> bool {
        let first = key(start.as_ptr() as usize);
        let last = first + (len - 1);
        if last >> ADDRESS_BITS != 0 {
            return false;
        }
        let leaf_bytes = CHUNK_SHIFT + LEAF_SHIFT;
        (first >> leaf_bytes..=last >> leaf_bytes).all(|leaf| self.prepare_leaf(os, kept, leaf))
    }

    fn prepare_leaf(&self, os: &dyn Os, kept: &Kept, leaf: usize) -> bool {
        if !self.root[leaf].load(Relaxed).is_null() {
            return true;
        }
        if self.taken.swap(1, Relaxed) == 0 {
            let first = core::ptr::from_ref(&self.first).cast_mut();
            // Relaxed: it holds what it held before there was a second thread.
            if self.root[leaf].compare_exchange(null_mut(), first, Relaxed, Relaxed).is_err() {
                self.taken.store(0, Relaxed); // somebody else was faster
            }
            return true;
        }
        let Some(memory) = kept.map(os, core::mem::size_of::<Leaf>()) else {
            return !self.root[leaf].load(Relaxed).is_null(); // somebody else was faster
        };
        // SAFETY: just mapped. A leaf of zeros is a leaf of windows that nobody owns.
        let new = unsafe { lay::<Leaf>(memory, 1) }.as_ptr();
        if self.root[leaf].compare_exchange(null_mut(), new, Release, Relaxed).is_err() {
            // SAFETY: just mapped, and not published: somebody else was faster.
            unsafe { kept.unmap(os, memory, core::mem::size_of::<Leaf>()) };
        }
        true
    }

    /// Memory for one leaf, for whoever must prepare a window and cannot be refused any more. `None` if there is none.
    pub fn hold_leaf(&self, os: &dyn Os, kept: &Kept) -> Option<HeldLeaf> {
        // Acquire meets the Release of `prepare_with`; nobody wrote to the leaf, but it has a past as a mapping.
        if let Some(leaf) = NonNull::new(self.spare.swap(null_mut(), Acquire)) {
            return Some(HeldLeaf(leaf));
        }
        // SAFETY: just mapped.
        kept.map(os, core::mem::size_of::<Leaf>()).map(|memory| HeldLeaf(unsafe { lay(memory, 1) }))
    }

    /// Makes sure that the window of `start`, an address that the system gave us, can be entered. Takes the leaf or
    /// keeps it for the next.
    pub fn prepare_with(&self, os: &dyn Os, kept: &Kept, leaf: HeldLeaf, start: NonNull<u8>) {
        let HeldLeaf(leaf) = leaf;
        let empty =
            |place: &AtomicPtr<Leaf>| place.compare_exchange(null_mut(), leaf.as_ptr(), Release, Relaxed).is_ok();
        let at = self.root.get(key(start.as_ptr() as usize) >> (CHUNK_SHIFT + LEAF_SHIFT));
        if !at.is_some_and(empty) && !empty(&self.spare) {
            // SAFETY: the holder's own mapping, and nobody else knows it.
            unsafe { kept.unmap(os, leaf.cast(), core::mem::size_of::<Leaf>()) };
        }
    }

    /// Gives the leaf of a window a name, if it has one.
    pub fn name_leaf(&self, os: &dyn Os, window: NonNull<u8>) {
        let leaf = self.root.get(key(window.as_ptr() as usize) >> (CHUNK_SHIFT + LEAF_SHIFT));
        if let Some(leaf) = leaf.and_then(|leaf| self.mapped(leaf)) {
            // SAFETY: a mapping of its own, which stays. A refusal costs the name, nothing else.
            unsafe { os.name(leaf.cast(), core::mem::size_of::<Leaf>(), c"kmalloc table") };
        }
    }

    /// The leaf that is there, if it is a mapping of its own.
    fn mapped(&self, leaf: &AtomicPtr<Leaf>) -> Option<NonNull<Leaf>> {
        NonNull::new(leaf.load(Relaxed)).filter(|leaf| !core::ptr::eq(leaf.as_ptr(), &self.first))
    }

    /// Bytes mapped for leaves.
    pub fn own_bytes(&self) -> usize {
        let there = |leaf: &&AtomicPtr<Leaf>| self.mapped(leaf).is_some();
        self.root.iter().chain([&self.spare]).filter(there).count() * core::mem::size_of::<Leaf>()
    }

    /// Enters a chunk whose window was prepared.
    pub fn set_chunk(&self, start: NonNull<u8>, map: &ChunkMap) {
        let map: *const ChunkMap = map;
        if let Some(window) = self.window(start.as_ptr() as usize) {
            window.store(map as *mut u8, Release);
        }
    }

    /// Enters an area whose window was prepared; `record` is aligned to more than one byte.
    pub fn set_area(&self, start: NonNull<u8>, record: NonNull<u8>) {
        if let Some(window) = self.window(start.as_ptr() as usize) {
            window.store(record.as_ptr().wrapping_add(1), Release);
        }
    }

    /// Clears the window of an area. Of several threads exactly one succeeds.
    pub fn clear_area(&self, start: NonNull<u8>, record: NonNull<u8>) -> bool {
        let tagged = record.as_ptr().wrapping_add(1);
        self.window(start.as_ptr() as usize)
            .is_some_and(|window| window.compare_exchange(tagged, null_mut(), Acquire, Relaxed).is_ok())
    }

    /// Clears the window of a chunk.
    pub fn clear_chunk(&self, start: NonNull<u8>) {
        if let Some(window) = self.window(start.as_ptr() as usize) {
            window.store(null_mut(), Relaxed);
        }
    }

    #[inline]
    fn window(&self, address: usize) -> Option<&AtomicPtr<u8>> {
        let address = key(address);
        let leaf = self.root.get(address >> (CHUNK_SHIFT + LEAF_SHIFT))?.load(Acquire);
        // SAFETY: leaves are never taken away, and a published one is initialised.
        let leaf = unsafe { leaf.as_ref() }?;
        Some(&leaf.0[address >> CHUNK_SHIFT & ((1 << LEAF_SHIFT) - 1)])
    }

    /// Who owns the window of an address that the caller owns a part of, so that the answer stays true.
    #[inline]
    pub fn owner(&self, address: usize) -> Owner<&ChunkMap> {
        match self.holder(address) {
            // SAFETY: the map lives as long as the caller's part of the chunk.
            Owner::Chunk(map) => Owner::Chunk(unsafe { map.as_ref() }),
            Owner::Area(record) => Owner::Area(record),
            Owner::Nobody => Owner::Nobody,
        }
    }

    /// Who owns the window of any address at about this moment. The map of a chunk may be gone by the time it is read.
    #[inline]
    pub fn holder(&self, address: usize) -> Owner<NonNull<ChunkMap>> {
        let Some(entry) = self.window(address).map(|window| window.load(Acquire)) else { return Owner::Nobody };
        match (NonNull::new(entry), entry as usize & 1) {
            (None, _) => Owner::Nobody,
            (Some(map), 0) => Owner::Chunk(map.cast()), // untagged entries are the maps of chunks (Pg3)
            // SAFETY: a tagged entry is one byte behind a record, so not null one byte before.
            (Some(record), _) => Owner::Area(unsafe { NonNull::new_unchecked(record.as_ptr().wrapping_sub(1)) }),
        }
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sys::{Call, FaultyOs, Plan, Unix};
    use core::mem::size_of;
    use std::vec::Vec;

    #[test]
    fn tags_say_what_was_put_into_them() {
        for (class, shard, first) in [(0, 0, 0), (52, 15, 7), (255, 255, 63)] {
            let tag = Tag::slab(class, shard, first);
            assert_eq!(tag.kind(), Kind::Slab { class, shard, first });
            assert_eq!((tag.of_slab(class), tag.of_slab(class ^ 1)), (Some((shard, first)), None));
        }
        for pages in [1, 64, 256, (1 << 30) - 1] {
            let tag = Tag::run(PageCount::new(pages));
            assert_eq!((tag.kind(), tag.of_slab(0)), (Kind::Run(PageCount::new(pages)), None));
        }
        assert_eq!(Tag::NONE.kind(), Kind::None);
    }

    #[test]
    fn rooms_go_back_with_their_pages_and_nobody_elses_do() {
        const PAGES: usize = PAGES_PER_CHUNK as usize;
        let layout = core::alloc::Layout::from_size_align(size_of::<Rooms>(), 1 << 16).unwrap();
        // SAFETY: not of length zero.
        let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        let rooms = memory.cast::<Rooms>();
        // SAFETY: zeros are a map that was not described yet.
        let map: ChunkMap = unsafe { core::mem::zeroed() };
        map.describe(memory, null_mut(), rooms);
        let first = memory.as_ptr() as usize;
        let offset = |at: NonNull<u8>| at.as_ptr() as usize - first;
        for page_size in [1 << 12, 1 << 14, 1 << 16] {
            for (page, n) in (0..PAGES).flat_map(|page| (1..=PAGES - page).map(move |n| (page, n))) {
                // Each byte's page by who it belongs to: a whole page of the system goes back if all of it is theirs.
                let theirs = |byte: usize| {
                    let of = match byte.checked_sub(offset(map.bitmap(0).get().cast())) {
                        Some(byte) => byte / size_of::<Bitmap>(),
                        None => byte / size_of::<Room>(),
                    };
                    byte < size_of::<Rooms>() && (page..page + n).contains(&of)
                };
                let whole = (0..size_of::<Rooms>()).step_by(page_size);
                let all = |start: &usize| (*start..start + page_size).step_by(size_of::<Room>()).all(theirs);
                let expected: Vec<usize> = whole.filter(all).collect();
                let mut returned = Vec::new();
                for (at, len) in map.rooms_alone(page, n, page_size) {
                    returned.extend((offset(at)..offset(at) + len).step_by(page_size));
                }
                assert_eq!(returned, expected, "{n} pages from {page} on, with pages of {page_size} bytes");
            }
        }
        assert_eq!(map.rooms_alone(0, PAGES, 1 << 12).count(), 1, "those of a chunk lie together");
        // SAFETY: as it was allocated.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }

    #[test]
    fn a_held_leaf_serves_a_window_when_there_is_no_memory_any_more() {
        static TABLE: AddressTable = AddressTable::new();
        static KEPT: Kept = Kept::new();
        let os = FaultyOs::new(Unix);
        let record = NonNull::from(&0u64).cast::<u8>();
        let at = |leaf: usize| {
            NonNull::new(core::ptr::null_mut::<u8>().wrapping_add(leaf << (CHUNK_SHIFT + LEAF_SHIFT))).unwrap()
        };
        let (first, second) = (TABLE.hold_leaf(&os, &KEPT).unwrap(), TABLE.hold_leaf(&os, &KEPT).unwrap());
        os.plan(Plan::Kind(Call::Map));
        assert!(TABLE.hold_leaf(&os, &KEPT).is_none());
        TABLE.prepare_with(&os, &KEPT, first, at(7));
        TABLE.set_area(at(7), record);
        assert!(matches!(TABLE.owner(at(7).as_ptr() as usize), Owner::Area(r) if r == record));
        TABLE.prepare_with(&os, &KEPT, second, at(7));
        let kept = TABLE.hold_leaf(&os, &KEPT).expect("what was not needed is there for the next");
        TABLE.prepare_with(&os, &KEPT, kept, at(8));
        TABLE.set_area(at(8), record);
        assert!(matches!(TABLE.owner(at(8).as_ptr() as usize), Owner::Area(_)));
        assert!(matches!(TABLE.owner(at(7).as_ptr() as usize), Owner::Area(_)));
    }

    #[test]
    fn a_window_is_nobodys_until_it_is_entered_and_after_it_is_cleared() {
        static TABLE: AddressTable = AddressTable::new();
        static KEPT: Kept = Kept::new();
        let os = FaultyOs::new(Unix);
        let at = NonNull::new(core::ptr::null_mut::<u8>().wrapping_add(5usize << 40 | 3 << 21)).unwrap();
        let record = NonNull::from(&0u64).cast::<u8>();
        os.plan(Plan::Kind(Call::Map));
        let other = NonNull::new(core::ptr::null_mut::<u8>().wrapping_add(6usize << 40)).unwrap();
        assert!(TABLE.prepare(&os, &KEPT, other, 1), "the first leaf is there");
        assert_eq!(TABLE.own_bytes(), 0);
        assert!(!TABLE.prepare(&os, &KEPT, at, 1), "no memory for a leaf");
        os.plan(Plan::Never);
        assert!(TABLE.prepare(&os, &KEPT, at, 1));
        for window in [other, at] {
            TABLE.name_leaf(&os, window);
        }
        assert_eq!(
            (TABLE.own_bytes(), os.calls_of(Call::Name)),
            (core::mem::size_of::<Leaf>(), 1),
            "the other is no mapping"
        );
        assert!(matches!(TABLE.owner(at.as_ptr() as usize), Owner::Nobody));
        TABLE.set_area(at, record);
        for inside in [0, 1, CHUNK_SIZE - 1] {
            assert!(matches!(TABLE.owner(at.as_ptr() as usize + inside), Owner::Area(r) if r == record));
        }
        for outside in [at.as_ptr() as usize - 1, at.as_ptr() as usize + CHUNK_SIZE, 0, usize::MAX] {
            assert!(matches!(TABLE.owner(outside), Owner::Nobody));
        }
        assert!(TABLE.clear_area(at, record) && !TABLE.clear_area(at, record));
        assert!(matches!(TABLE.owner(at.as_ptr() as usize), Owner::Nobody));
        let beyond = NonNull::new(core::ptr::null_mut::<u8>().wrapping_add(1usize << ADDRESS_BITS)).unwrap();
        assert!(!TABLE.prepare(&os, &KEPT, beyond, 1), "an address that the table does not know");
    }
}
