//! Slab: a run of pages cut into equal objects. Its header and its bitmap lie outside it, in the room of its first page.
//!
//! # Algorithm
//! One bit per object says whether it is free in the slab. Objects are taken lowest address first, a word of bits at a
//! time, so that the ends of slabs empty and no page is touched before its objects are used. The object memory itself
//! is never touched: no link lies in it, so no stray write can turn into a pointer of ours. The bits follow the header;
//! those of the smallest objects, for which the room is too small, are a [`crate::page::Bitmap`].
//!
//! A slab is on one of its shard's lists, by how full it is, or on none when it is full. Between a quarter and a half of
//! free objects it stays where it was, so that one of many objects does not move to and fro. A sparse one that nobody takes
//! from or gives to for a while rests, and is hollow once the memory behind its *holes*, pages of the system in which no object
//! is out, was freed; the next object that comes or goes makes it a sparse one again.
//!
//! # Invariants (each is a line of [`Slab::validate`])
//! - Sl1: `free` is the number of bits set; bits beyond the last object are clear.
//! - Sl2: words of the bitmap below `first` are zero, and there is a word `first`.
//! - Sl3: everything here is written by the holder of the shard's lock, or by the maker before anyone else knows it: it is
//!   nobody's until the shard adopts it, and again when the shard gives it up. The tags of its pages say that it is the
//!   shard's, and are written under the shard's lock like all else: whoever has the lock and finds such a tag has a slab of
//!   the shard, and sees all of it.
//! - Sl4: a slab is on the list that `list` names.
//! - Sl5: with more free objects than before, a slab belongs where it is if and only if they are fewer than `rises_at`.
//! - Sl6: objects from number `fresh` on are free and hold zeros, as their pages did when the slab was made. Who takes objects
//!   for a sheaf forgets that there are any.

use crate::chunk::PageSet;
use crate::config::{MAX_SLAB_OBJECTS, MAX_SLAB_PAGES, PAGE_SIZE};
use crate::page::{ChunkMap, Tag, ROOM_WORDS};
use crate::size_class::{Cut, SizeClass, CLASSES};
use crate::sync::atomic::AtomicU64;
use core::mem::size_of;
use core::ptr::{null_mut, NonNull};
use static_assertions::const_assert;

/// Words of bits behind the header in a room.
const WORDS_INSIDE: usize = ROOM_WORDS - size_of::<Slab>() / size_of::<u64>();

/// Objects in a row that comes back, at most.
pub(crate) const MAX_ROW: usize = u64::BITS as usize;

/// So many objects that follow each other in memory are taken as a row.
const ROW: usize = 4;

/// Which list a slab is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Listed {
    /// None: no object is free.
    Full,
    /// The first to be used: most objects are out.
    Dense,
    /// Used when no dense one is left.
    Sparse,
    /// Sparse, and at rest since the last look.
    Resting,
    /// Sparse, at rest, and without memory behind its holes.
    Hollow,
    /// No object is out.
    Empty,
}

impl Listed {
    /// Free objects of so many with which a slab of this list belongs on another, when objects come back. See
    /// [`Slab::belongs`].
    #[inline]
    fn rises_at(self, objects: usize) -> u16 {
        match self {
            Listed::Full => 1,
            Listed::Dense => (objects as u16).div_ceil(2),
            Listed::Sparse => objects as u16,
            Listed::Resting | Listed::Hollow => 0,
            Listed::Empty => u16::MAX,
        }
    }
}

/// The header of a slab, at the beginning of the room of its first page.
#[repr(C)]
pub struct Slab {
    next: *mut Slab,
    prev: *mut Slab,
    base: *mut u8,
    /// The first word of its bitmap.
    bits: *mut u64,
    list: Listed,
    first: u8,
    free: u16,
    /// With so many free objects it belongs on another list than the one that `list` names.
    rises_at: u16,
    /// The number of its class.
    class: u8,
    /// Objects from this one on were in nobody's hands yet, and are zeros.
    fresh: u8,
}

/// No object is fresh, or none that is known.
const NONE_FRESH: u8 = u8::MAX;

const_assert!(size_of::<Slab>() == 40);
const_assert!(MAX_SLAB_OBJECTS <= u16::MAX as usize);
const_assert!(MAX_SLAB_OBJECTS.div_ceil(64) <= u8::MAX as usize);
const_assert!(CLASSES <= u8::MAX as usize);

impl Slab {
    /// Makes a slab of pages that the caller owns: `page` is the number of the first one in the chunk of `map`. All
    /// objects are free, it is on no list (it says `Full`), and nobody's until [`Slab::adopt`]. `zeros`: its pages hold zeros.
    ///
    /// # Safety
    /// The caller owns `class.slab_pages()` pages from `page` on, and nobody reads their rooms or bitmaps.
    pub unsafe fn create(map: &ChunkMap, page: usize, class: SizeClass, zeros: bool) -> NonNull<Slab> {
        let room = map.room(page).get().cast::<Slab>();
        // SAFETY: `page` is inside the chunk.
        let base = unsafe { map.base().add(page * PAGE_SIZE) };
        let objects = class.slab_objects();
        let bits = if Self::has_bits_inside(class) {
            room.as_ptr().wrapping_add(1).cast() // behind the header
        } else {
            map.bitmap(page).get().as_ptr()
        };
        let header = Slab {
            next: null_mut(),
            prev: null_mut(),
            base,
            bits,
            free: objects as u16,
            list: Listed::Full,
            first: 0,
            class: class.index() as u8,
            rises_at: Listed::Full.rises_at(objects),
            fresh: if zeros { 0 } else { NONE_FRESH },
        };
        // SAFETY: the room is ours (Sl3), large enough and aligned.
        unsafe { room.as_ptr().write(header) };
        for w in 0..objects.div_ceil(64) {
            let left = objects - w * 64;
            let word = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            // SAFETY: where the bits are, there is room for one of each object; it is ours as the header is.
            unsafe { bits.wrapping_add(w).write(word) };
        }
        room
    }

    /// True if the bits of a slab of this class lie in the room of its header.
    #[inline]
    const fn has_bits_inside(class: SizeClass) -> bool {
        class.slab_objects().div_ceil(64) <= WORDS_INSIDE
    }

    /// How it is cut.
    #[inline]
    fn cut(&self) -> &'static Cut {
        // SAFETY: it was made of a class, and is a slab until its room is another's.
        unsafe { SizeClass::new(self.class.into()).unwrap_unchecked() }.cut()
    }

    /// The words of its bitmap.
    #[inline]
    fn bits(&mut self) -> &mut [u64] {
        // SAFETY: so many belong to it and are written since it was made, by who has the header only (Sl3).
        unsafe { core::slice::from_raw_parts_mut(self.bits, self.cut().objects().div_ceil(64)) }
    }

    /// Makes it a shard's: the tags of its pages, in the chunk of `map`, lead to it from now on.
    ///
    /// # Safety
    /// It is nobody's but the caller's, who has the lock of the shard.
    pub unsafe fn adopt(&self, map: &ChunkMap, shard: usize) {
        let first = map.page_of(self.base as usize);
        self.tag(map, Tag::slab(self.class.into(), shard, first));
    }

    /// Makes it nobody's but the caller's again. Who frees an object of it after that is told.
    ///
    /// # Safety
    /// The caller has the lock of its shard, on no list of which it is.
    pub unsafe fn disown(&self, map: &ChunkMap) {
        self.tag(map, Tag::NONE);
    }

    /// Sets the tags of its pages.
    fn tag(&self, map: &ChunkMap, tag: Tag) {
        let first = map.page_of(self.base as usize);
        for page in first..first + self.cut().pages() {
            map.set_tag(page, tag);
        }
    }

    /// The slab of `class` that has the page in which `address` is: its header, its shard, and the number of its first page.
    #[inline(always)]
    pub fn find(map: &ChunkMap, address: usize, class: SizeClass) -> Option<(NonNull<Slab>, usize, usize)> {
        let (shard, first) = map.tag(map.page_of(address)).of_slab(class.index())?;
        Some((map.room(first).get().cast(), shard, first))
    }

    /// Takes up to `out.len()` objects, lowest address first, into `out` from its end. Returns how many.
    pub fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let (size, words) = (self.cut().size(), self.cut().objects().div_ceil(64));
        let wanted = out.len();
        let mut slots = out;
        let mut w = self.first as usize;
        while w < words {
            let origin = self.base.wrapping_add(w * 64 * size);
            // SAFETY: a word of the bitmap.
            let place = unsafe { &mut *self.bits.wrapping_add(w) };
            let mut bits = *place;
            // Of a slab that is new, or was empty, objects follow each other in memory.
            let start = bits.trailing_zeros() % 64;
            let row = ((!(bits >> start)).trailing_zeros() as usize).min(slots.len());
            if row >= ROW {
                let (left, mut filled) = slots.split_at_mut(slots.len() - row);
                slots = left;
                let mut object = origin.wrapping_add(start as usize * size);
                // By four, which the compiler does not do by itself: a third fewer instructions for a slab that is new.
                while let [left @ .., d, c, b, a] = filled {
                    for slot in [a, b, c, d] {
                        *slot = object;
                        object = object.wrapping_add(size);
                    }
                    filled = left;
                }
                for slot in filled.iter_mut().rev() {
                    *slot = object;
                    object = object.wrapping_add(size);
                }
                bits &= !(u64::MAX >> (64 - row) << start);
            }
            while bits != 0 {
                let [left @ .., slot] = slots else { break };
                *slot = origin.wrapping_add(bits.trailing_zeros() as usize * size);
                slots = left;
                bits &= bits - 1;
            }
            *place = bits;
            if bits != 0 {
                break;
            }
            w += 1;
        }
        let taken = wanted - slots.len();
        self.first = w.min(words - 1) as u8;
        self.free -= taken as u16;
        self.fresh = NONE_FRESH;
        taken
    }

    /// Takes the object of the lowest address, and says whether it is known to hold zeros. `None` if none is free.
    pub fn take_one(&mut self) -> Option<(*mut u8, bool)> {
        let w = self.bits().iter().position(|word| *word != 0)?;
        let word = self.bits().get_mut(w)?;
        let number = w * 64 + word.trailing_zeros() as usize;
        *word &= *word - 1;
        self.first = w as u8;
        self.free -= 1;
        let zeros = self.fresh < NONE_FRESH && number >= self.fresh.into();
        if zeros {
            self.fresh = u8::try_from(number + 1).unwrap_or(NONE_FRESH);
        }
        Some((self.base.wrapping_add(number * self.cut().size()), zeros))
    }

    /// Takes an object back, by its number. False if it is free already.
    ///
    /// # Safety
    /// It is a slab, and has this object.
    #[must_use]
    #[inline(always)]
    pub unsafe fn put(&mut self, number: usize) -> bool {
        let w = number / 64;
        // SAFETY: the word of an object of this slab.
        let word = unsafe { &mut *self.bits.wrapping_add(w) };
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        if w < usize::from(self.first) {
            self.first = w as u8;
        }
        self.free += 1;
        true
    }

    /// Takes a row of objects back: `len` of them, at least one and no more than `MAX_ROW`, the lowest of which is number
    /// `number`. False if one is free already; then none is taken.
    ///
    /// # Safety
    /// It is a slab, and has these objects.
    #[must_use]
    #[inline]
    pub unsafe fn put_row(&mut self, number: usize, len: usize) -> bool {
        let (w, shift) = (number / 64, number % 64);
        // SAFETY: the word of an object of this slab.
        let word = unsafe { &mut *self.bits.wrapping_add(w) };
        let row = u64::MAX >> (64 - len);
        let low = row << shift;
        if *word & low != 0 {
            return false;
        }
        if shift + len > 64 {
            let high = row >> (64 - shift);
            // SAFETY: the row goes on in the next word.
            let word = unsafe { &mut *self.bits.wrapping_add(w + 1) };
            if *word & high != 0 {
                return false;
            }
            *word |= high;
        }
        *word |= low;
        self.first = self.first.min(w as u8);
        self.free += len as u16;
        true
    }

    /// True if an object is free in it.
    pub fn is_free(&self, object: usize) -> bool {
        self.free_bits()[object / 64] >> (object % 64) & 1 == 1
    }

    /// Objects that are free in it.
    pub fn free(&self) -> usize {
        self.free as usize
    }

    /// The first byte of its first page.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// The words of `live` beside the bits of a slab of this class that begins at a page.
    #[inline]
    pub fn live(map: &ChunkMap, page: usize, class: SizeClass) -> &[AtomicU64] {
        if Self::has_bits_inside(class) {
            map.room(page).live()
        } else {
            map.bitmap(page).live()
        }
    }

    /// The words that say which objects are free in it.
    pub fn free_bits(&self) -> &[u64] {
        // SAFETY: as in `bits`.
        unsafe { core::slice::from_raw_parts(self.bits, self.cut().objects().div_ceil(64)) }
    }

    /// The list that it belongs on.
    pub fn belongs(&self) -> Listed {
        let (free, objects) = (self.free as usize, self.cut().objects());
        if free == 0 {
            Listed::Full
        } else if free == objects {
            Listed::Empty
        } else if free * 4 <= objects {
            Listed::Dense
        } else if free * 2 >= objects {
            Listed::Sparse
        } else {
            match self.list {
                Listed::Full | Listed::Dense => Listed::Dense,
                Listed::Sparse | Listed::Resting | Listed::Hollow | Listed::Empty => Listed::Sparse,
            }
        }
    }

    /// True if it is on the list where it belongs, or may rest.
    pub fn is_placed(&self) -> bool {
        let rests = matches!(self.list, Listed::Resting | Listed::Hollow);
        self.belongs() == if rests { Listed::Sparse } else { self.list }
    }

    /// Takes all objects that lie in its holes, so that nobody else can have them. Pages of the system are so long.
    pub fn take_holes(&mut self, page_size: usize) -> Holes {
        let (size, objects) = (self.cut().size(), self.cut().objects());
        let mut holes = Holes(0);
        let pages = (self.cut().pages() * PAGE_SIZE).checked_div(page_size).unwrap_or(0);
        for page in 0..pages.min(u64::BITS as usize) {
            let inside = Holes::objects_in(page * page_size, page_size, size, objects);
            if { inside }.all(|object| self.is_free(object)) {
                holes.0 |= 1 << page;
            }
        }
        for object in holes.objects(page_size, size, objects) {
            self.bits()[object / 64] &= !(1 << (object % 64));
            self.free -= 1;
        }
        holes
    }

    /// Gives back what [`Slab::take_holes`] took. An object that somebody else has given back meanwhile is returned: it
    /// was freed twice.
    pub fn fill_holes(&mut self, holes: Holes, page_size: usize) -> Option<*mut u8> {
        let (size, objects) = (self.cut().size(), self.cut().objects());
        let mut twice = None;
        for object in holes.objects(page_size, size, objects) {
            if self.is_free(object) {
                twice = Some(self.base.wrapping_add(object * size));
                continue;
            }
            self.bits()[object / 64] |= 1 << (object % 64);
            self.free += 1;
            self.first = self.first.min((object / 64) as u8);
        }
        twice
    }

    /// Whether it belongs on another list, now that objects have come back.
    #[inline]
    pub fn rises(&self) -> bool {
        self.free >= self.rises_at
    }

    /// Notes the list that it is on.
    #[inline]
    fn settle(&mut self, list: Listed) {
        self.list = list;
        self.rises_at = list.rises_at(self.cut().objects());
    }

    /// The list that it is on.
    pub fn listed(&self) -> Listed {
        self.list
    }

    /// Checks every invariant that one slab can tell; the holder of the shard's lock asks.
    pub fn validate(&self) -> Result<(), &'static str> {
        let objects = self.cut().objects();
        let words = self.free_bits();
        if words.iter().map(|w| w.count_ones() as usize).sum::<usize>() != self.free as usize {
            return Err("slab: the count of free objects is not that of its bits (Sl1)");
        }
        if objects % 64 != 0 && words[words.len() - 1] >> (objects % 64) != 0 {
            return Err("slab: a bit beyond the last object (Sl1)");
        }
        if self.first as usize >= words.len() || words[..self.first as usize].iter().any(|w| *w != 0) {
            return Err("slab: a free object below the first (Sl2)");
        }
        let fresh = usize::from(self.fresh);
        if fresh < usize::from(NONE_FRESH) && (fresh..objects).any(|object| !self.is_free(object)) {
            return Err("slab: an object that is out is thought to be fresh (Sl6)");
        }
        if self.rises_at != self.list.rises_at(objects) {
            return Err("slab: it would move at another number of free objects (Sl5)");
        }
        Ok(())
    }
}

/// Pages of the system in a slab: 64 at most, and fewer are the longest slab where they are 4 KiB long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holes(u64);

const_assert!(MAX_SLAB_PAGES as usize * PAGE_SIZE <= 64 * 4096);

impl Holes {
    /// Where each run of pages begins in the slab, and how long it is, in bytes.
    pub fn runs(self, page_size: usize) -> impl Iterator<Item = (usize, usize)> {
        PageSet::from_bits(self.0).runs().filter_map(move |run| {
            let (start, pages) = run.first_run()?;
            Some((start as usize * page_size, pages as usize * page_size))
        })
    }

    /// The numbers of the objects, of `objects` of this size, that lie in them. No object lies in two runs: the pages
    /// between them would be holes, too.
    fn objects(self, page_size: usize, size: usize, objects: usize) -> impl Iterator<Item = usize> {
        self.runs(page_size).flat_map(move |(start, len)| Self::objects_in(start, len, size, objects))
    }

    /// The numbers of the objects, of `objects` of this size, that have a byte in a range.
    fn objects_in(start: usize, len: usize, size: usize, objects: usize) -> core::ops::Range<usize> {
        let first = start.checked_div(size).unwrap_or(0);
        let end = (start + len).checked_add(size - 1).and_then(|end| end.checked_div(size)).unwrap_or(0);
        first.min(objects)..end.min(objects)
    }
}

/// A list of slabs of one shard, threaded through their headers.
pub struct List {
    head: *mut Slab,
    len: usize,
}

// SAFETY: the headers in the list are reached by the holder of the shard's lock only (Sl3).
unsafe impl Send for List {}

impl List {
    /// An empty list.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { head: null_mut(), len: 0 }
    }

    /// Slabs in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first slab.
    pub fn first(&self) -> Option<NonNull<Slab>> {
        NonNull::new(self.head)
    }

    /// The slab after `slab`.
    ///
    /// # Safety
    /// The caller holds the shard's lock, and `slab` is on a list.
    pub unsafe fn next(slab: NonNull<Slab>) -> Option<NonNull<Slab>> {
        // SAFETY: by contract.
        NonNull::new(unsafe { (*slab.as_ptr()).next })
    }

    /// Puts a slab that is on no list in front.
    ///
    /// # Safety
    /// The caller holds the shard's lock; `slab` is of the shard.
    pub unsafe fn push(&mut self, slab: NonNull<Slab>, list: Listed) {
        // SAFETY: by contract; the reference ends before another to the same header is made.
        let this = unsafe { &mut *slab.as_ptr() };
        this.next = self.head;
        this.prev = null_mut();
        this.settle(list);
        // SAFETY: the head is on the list, so a header of the shard, and not `slab`.
        if let Some(head) = unsafe { self.head.as_mut() } {
            head.prev = slab.as_ptr();
        }
        self.head = slab.as_ptr();
        self.len += 1;
    }

    /// Takes a slab out of the list that it is on.
    ///
    /// # Safety
    /// The caller holds the shard's lock; `slab` is on this list.
    pub unsafe fn remove(&mut self, slab: NonNull<Slab>) {
        // SAFETY: by contract.
        let this = unsafe { &mut *slab.as_ptr() };
        let (next, prev) = (this.next, this.prev);
        this.settle(Listed::Full);
        // SAFETY: neighbours on the list are headers of the shard, and not `slab`.
        match unsafe { prev.as_mut() } {
            Some(prev) => prev.next = next,
            None => self.head = next,
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_mut() } {
            next.prev = prev;
        }
        self.len -= 1;
    }
}
