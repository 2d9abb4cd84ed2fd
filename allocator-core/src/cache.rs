//! Cache: every slab of one size class. Its shards have a lock and partial lists each: the slow path.
//!
//! # Algorithm
//! A slab belongs to the shard that made it; threads are spread over the shards. A *refill* takes objects from the
//! partial slabs of the caller's shard, the fullest ones first so that the others can empty. When there are none, the
//! lock is dropped, pages are taken from the zone and made a slab, and what the caller does not want of it is listed.
//! Where there are no pages any more, the partial slabs of the other shards are looked at: an object goes home to the
//! shard that it came from, whoever frees it.
//! A *flush* takes objects back to the shards that they came from. Each shard is locked once and takes what is its own: the
//! slab of an object is found, its bit is set, and the slab moves to another list if its count of free objects says so. What
//! was allocated together is mostly freed together: of a *row* of objects that follow each other in memory only the first is
//! looked up, and their bits are set a word at a time. Slabs that become empty leave the cache, but for a few that each shard
//! keeps (`MIN_PARTIAL`, the kernel's `min_partial`); their pages go back when the lock is dropped.
//!
//! Memory behind the free objects of slabs that are at rest goes back to the system (`hollow`).
//!
//! Nothing about a slab is lock-free, and one lock is taken per batch.
//!
//! # Invariants (each is a line of [`Caches::validate`])
//! - Ca1: `slabs` counts the shard's slabs, `free` the free objects in them.
//! - Ca2: every slab with a free object is on the list where it belongs, or rests; no full one is on a list. Those whose
//!   holes are being freed may be on none.
//! - Ca3: a shard has no more empty slabs than it may keep.

mod hollow;

use crate::config::{CHUNK_SIZE, MAX_SHARDS, MIN_PARTIAL, PAGE_SIZE};
use crate::error::{AllocError, Misuse};
use crate::page::{ChunkMap, Kind, Owner};
use crate::size_class::{SizeClass, CLASSES};
use crate::slab::{List, Listed, Slab, MAX_ROW};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{array_of, const_unless_loom, Mutex, Rank, Ranked, UnwatchedU32};
use crate::units::{Order, PageCount};
use crate::zone::{Caller, Zone};
use core::mem::size_of;
use core::ptr::{null_mut, NonNull};

/// A shard with so many slabs uses all of the next one, most likely: its pages are faulted in together. Not those of objects that are
/// longer than a page of the system, for of a buffer little may be written.
const POPULATE_FROM: usize = 2;

/// The partial lists of one shard, and what they add up to.
struct Partial {
    dense: List,
    sparse: List,
    resting: List,
    hollow: List,
    empty: List,
    free: usize,
}

impl Ranked for Partial {
    const RANK: Rank = Rank::Shard;
}

/// One lock's worth of a cache, on cache lines of its own.
#[repr(align(128))]
struct Shard {
    partial: Mutex<Partial>,
    /// Slabs of it, full ones as well. Changes under the lock; who reads it without learns what it was a moment ago.
    slabs: UnwatchedU32,
}

/// The caches of all size classes. Those of one shard lie together: most processes use few shards.
pub struct Caches([[Shard; CLASSES]; MAX_SHARDS]);

/// What a cache has, as `/proc/slabinfo` counts it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Slabs.
    pub slabs: usize,
    /// Slabs with at least one object out.
    pub active_slabs: usize,
    /// Objects in all slabs.
    pub objects: usize,
    /// Objects that are out: with the program, or in a thread's sheaf.
    pub out: usize,
}

/// A misuse, the pointer that it was found at, and the class of which it was said to be an object.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The pointer.
    pub at: *mut u8,
    /// What it was said to be.
    pub said: SizeClass,
    /// What it is.
    pub misuse: Misuse,
}

impl Shard {
    const_unless_loom! {
        fn new() -> Self {
            let [dense, sparse, resting, hollow, empty] = [const { List::new() }; 5];
            let partial = Mutex::new(Partial { dense, sparse, resting, hollow, empty, free: 0 });
            Self { partial, slabs: UnwatchedU32::new(0) }
        }
    }

    /// Slabs of it.
    fn slabs(&self) -> usize {
        self.slabs.load(Relaxed) as usize
    }

    /// Adds a slab that its maker may have taken objects of; `shard` is the number of this one.
    ///
    /// # Safety
    /// The slab is its maker's, who calls this, and nobody's yet; no reference to its header lives.
    unsafe fn adopt(&self, partial: &mut Partial, map: &ChunkMap, shard: usize, slab: NonNull<Slab>) {
        // SAFETY: by contract; the reference ends before `relist`.
        let this = unsafe { slab.as_ref() };
        // SAFETY: by contract; the caller has the lock.
        unsafe { this.adopt(map, shard % MAX_SHARDS) };
        partial.free += this.free();
        // SAFETY: of this shard.
        unsafe { partial.relist(slab) };
        self.slabs.store(self.slabs.load(Relaxed) + 1, Relaxed);
    }

    /// Unlinks empty slabs until `keep` are left: a list of slabs that are nobody's.
    fn trim(&self, partial: &mut Partial, keep: usize, zone: &Zone, class: SizeClass) -> List {
        let mut chain = List::new();
        while let Some(slab) = partial.empty.first().filter(|_| partial.empty.len() > keep) {
            // SAFETY: on that list.
            unsafe { partial.empty.remove(slab) };
            // SAFETY: of this shard, whose lock the caller has; the reference ends before `push`.
            let this = unsafe { slab.as_ref() };
            // SAFETY: as above; it is empty, and on no list any more.
            unsafe { this.disown(zone.map_of(this.base())) };
            partial.free -= class.slab_objects();
            // SAFETY: on none now.
            unsafe { chain.push(slab, Listed::Full) };
            self.slabs.store(self.slabs.load(Relaxed) - 1, Relaxed);
        }
        chain
    }
}

impl Partial {
    fn list(&mut self, list: Listed) -> Option<&mut List> {
        match list {
            Listed::Full => None,
            Listed::Dense => Some(&mut self.dense),
            Listed::Sparse => Some(&mut self.sparse),
            Listed::Resting => Some(&mut self.resting),
            Listed::Hollow => Some(&mut self.hollow),
            Listed::Empty => Some(&mut self.empty),
        }
    }

    /// Puts a slab on the list where it belongs now.
    ///
    /// # Safety
    /// `slab` is of this shard; no reference to its header lives.
    #[cold] // leaves registers to its callers
    #[inline(never)]
    unsafe fn relist(&mut self, slab: NonNull<Slab>) {
        // SAFETY: by contract, and we have the shard's lock; the reference ends with this line.
        let belongs = unsafe { slab.as_ref() }.belongs();
        // SAFETY: by contract.
        unsafe { self.put_on(slab, belongs) };
    }

    /// Puts a slab on this list.
    ///
    /// # Safety
    /// As for [`Partial::relist`]; it may be there.
    unsafe fn put_on(&mut self, slab: NonNull<Slab>, belongs: Listed) {
        // SAFETY: by contract, and we have the shard's lock; the reference ends with this line.
        let is = unsafe { slab.as_ref() }.listed();
        if is != belongs {
            if let Some(list) = self.list(is) {
                // SAFETY: the slab is on the list that it names (Sl4).
                unsafe { list.remove(slab) };
            }
            if let Some(list) = self.list(belongs) {
                // SAFETY: it is on none now.
                unsafe { list.push(slab, belongs) };
            }
        }
    }

    /// Its lists, in the order in which they are used.
    #[inline(always)]
    fn lists(&self) -> [&List; 5] {
        [&self.dense, &self.sparse, &self.resting, &self.hollow, &self.empty]
    }

    /// The slab that objects are taken of.
    #[inline(always)]
    fn first(&self) -> Option<NonNull<Slab>> {
        self.lists().into_iter().find_map(List::first)
    }

    /// Fills `out` from its end. Returns how many objects there were.
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let mut left = out.len();
        while left > 0 {
            let Some(mut slab) = self.first() else { break };
            // SAFETY: on a list of this shard, whose lock we have; the reference ends here.
            left -= unsafe { slab.as_mut() }.take(&mut out[..left]);
            // SAFETY: as above.
            unsafe { self.relist(slab) };
        }
        let taken = out.len() - left;
        self.free -= taken;
        taken
    }

    /// Takes one object, and says whether it is known to hold zeros.
    fn take_one(&mut self) -> Option<(*mut u8, bool)> {
        let mut slab = self.first()?;
        // SAFETY: on a list of this shard, whose lock we have; the reference ends here.
        let taken = unsafe { slab.as_mut() }.take_one()?;
        // SAFETY: as above.
        unsafe { self.relist(slab) };
        self.free -= 1;
        Some(taken)
    }

    /// Takes back what is this shard's of `objects`, at least one, and moves the others to the front. Returns how many those
    /// are; or an object that is none of this class, or free.
    #[inline(never)] // has registers enough, which makes up for the call
    fn put(&mut self, zone: &Zone, class: SizeClass, shard: u8, objects: &mut [*mut u8]) -> Result<usize, *mut u8> {
        // Pointers, not indices, for some instructions less an object.
        let core::ops::Range { start, end } = objects.as_mut_ptr_range();
        let (mut at, mut others) = (start, start);
        // Zero, or twice the size: the numbers of other objects, which are further apart, do not have these bits alone. (Of what
        // is no object they may; `put_row` looks again.)
        let (size, apart) = (class.size(), !(2 * class.size()));
        let is_beside = |object: *mut u8, next: *mut u8| {
            (next as usize).wrapping_sub(object as usize).wrapping_add(size) & apart == 0
        };
        // SAFETY: there is one.
        let mut last = unsafe { *at };
        let Some(mut map) = map_at(zone, last as usize) else { return Err(last) };
        while at != end {
            // SAFETY: of the objects.
            let object = unsafe { *at };
            if object as usize ^ last as usize >= CHUNK_SIZE {
                let Some(other) = map_at(zone, object as usize) else { break };
                map = other;
            }
            last = object;
            // SAFETY: no further than behind the objects.
            let mut next = unsafe { at.add(1) };
            let tag = map.tag(map.page_of(object as usize));
            if let Some(first) = tag.of_shard(class.index(), shard) {
                let place = map.room(first).get().cast::<Slab>();
                // SAFETY: of this shard, as the tag says, whose lock we have (Sl3); the reference ends before `relist`.
                let slab = unsafe { &mut *place.as_ptr() };
                let Some(number) = class.object_at((object as usize).wrapping_sub(slab.base() as usize)) else { break };
                // SAFETY: not behind the objects.
                if next != end && is_beside(object, unsafe { *next }) {
                    let left = (end as usize - at as usize) / size_of::<*mut u8>();
                    // SAFETY: of the objects.
                    let left = unsafe { core::slice::from_raw_parts(at, left) };
                    // SAFETY: the first of them is this object of the slab, whose shard's lock we have.
                    let row = unsafe { put_row(slab, class, number, left) };
                    if row == 0 {
                        break;
                    }
                    // SAFETY: no row is longer than what is left.
                    next = unsafe { at.add(row) };
                // SAFETY: an object of the slab.
                } else if !unsafe { slab.put(number) } {
                    break;
                }
                if slab.rises() {
                    // SAFETY: of this shard, and with an object that was out just now, so nobody has given it up.
                    unsafe { self.relist(place) };
                }
            } else if tag.class() == Some(class.index()) {
                // SAFETY: not behind this object.
                unsafe { *others = object };
                // SAFETY: as above.
                others = unsafe { others.add(1) };
            } else {
                break;
            }
            at = next;
        }
        let count = |behind: *mut *mut u8| (behind as usize - start as usize) / size_of::<*mut u8>();
        self.free += count(at) - count(others);
        if at == end {
            Ok(count(others))
        } else {
            // SAFETY: of the objects.
            Err(unsafe { *at })
        }
    }
}

/// Gives the pages of slabs that left their shard back. No lock is held.
fn give_back(mut chain: List, zone: &Zone, class: SizeClass) -> Result<(), Found> {
    let pages = PageCount::new(class.slab_pages());
    while let Some(slab) = chain.first() {
        // SAFETY: on that list, which is ours alone as its slabs are: they are empty, and no shard has them.
        unsafe { chain.remove(slab) };
        // SAFETY: as above.
        let base = unsafe { slab.as_ref() }.base();
        zone.free_pages(zone.map_of(base), base as usize, pages).map_err(|misuse| Found {
            at: base,
            said: class,
            misuse,
        })?;
    }
    Ok(())
}

/// Takes the first of `objects`, which has this number, back, and those that follow it in a row. Returns how many: none if
/// it is free.
///
/// # Safety
/// It is an object of this slab, which is of this class; the caller has the lock of its shard.
#[cold] // leaves registers to its caller: a call for a row costs less than a register in memory for each object
#[inline(never)]
unsafe fn put_row(slab: &mut Slab, class: SizeClass, number: usize, objects: &[*mut u8]) -> usize {
    let (lowest, len) = row_of(class, number, objects);
    // SAFETY: these follow each other from an object of the slab on, and the slab is as long.
    if unsafe { slab.put_row(lowest, len) } {
        return len;
    }
    // One of them is free; which, is told when it is the first.
    // SAFETY: by contract.
    usize::from(unsafe { slab.put(number) })
}

/// The row that the first of `objects`, which has this number, and the second begin, upwards or downwards: the number of its
/// lowest one, and how many they are.
fn row_of(class: SizeClass, number: usize, objects: &[*mut u8]) -> (usize, usize) {
    let [first, second, ..] = objects else { return (number, 1) };
    let step = (*second as usize).wrapping_sub(*first as usize);
    let rises = step == class.size();
    if !rises && step != class.size().wrapping_neg() {
        return (number, 1);
    }
    // What follows may lie in the next slab.
    let most = objects.len().min(MAX_ROW).min(if rises { class.slab_objects() - number } else { number + 1 });
    let (mut left, mut expected) = (&objects[..most], *first);
    // Four at a time, then those of the last four.
    while let [a, b, c, d, behind @ ..] = left {
        let four = [0, 1, 2, 3].map(|i: usize| expected.wrapping_byte_add(step.wrapping_mul(i)));
        if [*a, *b, *c, *d] != four {
            break;
        }
        (left, expected) = (behind, four[3].wrapping_byte_add(step));
    }
    while let [object, behind @ ..] = left {
        if *object != expected {
            break;
        }
        (left, expected) = (behind, expected.wrapping_byte_add(step));
    }
    let len = most - left.len();
    (if rises { number } else { number + 1 - len }, len)
}

impl Caches {
    const_unless_loom! {
        /// Caches without slabs. All zeros is the same state.
        pub fn new() -> Self {
            Self(array_of!(MAX_SHARDS, [Shard; CLASSES], array_of!(CLASSES, Shard, Shard::new())))
        }
    }

    fn shard(&self, class: SizeClass, shard: usize) -> &Shard {
        &self.0[shard % MAX_SHARDS][class.index()]
    }

    /// Takes up to `out.len()` objects into `out` from its end: as many as there are, or those of one new slab. Returns how
    /// many, at least one. Call it with no lock held.
    pub fn refill(
        &self,
        zone: &'static Zone,
        caller: Caller<'_>,
        class: SizeClass,
        shard: usize,
        out: &mut [*mut u8],
    ) -> Result<usize, AllocError> {
        let own = self.shard(class, shard);
        let taken = own.partial.lock(caller.os).take(out);
        if taken > 0 {
            return Ok(taken);
        }
        let (map, mut slab) = match self.create_slab(zone, caller, class, own.slabs() >= POPULATE_FROM) {
            Ok(new) => new,
            Err(refused) => {
                // Of the last ones, no more than usual.
                let (_, few) = out.split_at_mut(out.len().saturating_sub(class.sheaf_capacity()));
                return self.take_of_any(caller, class, few).ok_or(refused);
            }
        };
        // SAFETY: we have just made it, so it is nobody else's (Sl3).
        let taken = unsafe { slab.as_mut() }.take(out);
        // SAFETY: as above.
        unsafe { own.adopt(&mut own.partial.lock(caller.os), map, shard, slab) };
        Ok(taken)
    }

    /// Takes up to `out.len()` objects of the first shard that has some. `None`: none has.
    fn take_of_any(&self, caller: Caller<'_>, class: SizeClass, out: &mut [*mut u8]) -> Option<usize> {
        let mut shards = (0..MAX_SHARDS).map(|shard| self.shard(class, shard).partial.lock(caller.os).take(out));
        shards.find(|taken| *taken > 0)
    }

    /// Takes one object, which is to hold zeros, and says whether it is known to. Call it with no lock held.
    pub fn take_one(
        &self,
        zone: &'static Zone,
        caller: Caller<'_>,
        class: SizeClass,
        shard: usize,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        let own = self.shard(class, shard);
        let mut taken = own.partial.lock(caller.os).take_one();
        if taken.is_none() {
            match self.create_slab(zone, caller, class, false) {
                Ok((map, mut slab)) => {
                    // SAFETY: we have just made it, so it is nobody else's (Sl3).
                    taken = unsafe { slab.as_mut() }.take_one();
                    // SAFETY: as above.
                    unsafe { own.adopt(&mut own.partial.lock(caller.os), map, shard, slab) };
                }
                Err(refused) => {
                    let mut one = [null_mut()];
                    self.take_of_any(caller, class, &mut one).ok_or(refused)?;
                    taken = Some((one[0], false));
                }
            }
        }
        taken.and_then(|(object, zeros)| Some((NonNull::new(object)?, zeros))).ok_or(AllocError::OutOfMemory)
    }

    fn create_slab(
        &self,
        zone: &'static Zone,
        caller: Caller<'_>,
        class: SizeClass,
        populate: bool,
    ) -> Result<(&'static ChunkMap, NonNull<Slab>), AllocError> {
        let run = zone.alloc_pages(caller, PageCount::new(class.slab_pages()), Order::ZERO, true)?;
        let map = zone.map_of(run.ptr.as_ptr());
        let page = map.page_of(run.ptr.as_ptr() as usize);
        let bytes = PageCount::new(class.slab_pages()).bytes();
        if populate && run.content.is_zeros() {
            let page_size = caller.os.page_size();
            if class.size() <= page_size && (run.ptr.as_ptr() as usize | bytes) & (page_size - 1) == 0 {
                // SAFETY: pages that were just taken. A refusal costs time, nothing else.
                unsafe { caller.os.populate(run.ptr, caller.os.whole_pages(class.cut().used())) };
            }
        }
        // SAFETY: the pages were just taken.
        Ok((map, unsafe { Slab::create(map, page, class, run.content.is_zeros()) }))
    }

    /// Takes objects of one class back; what is left in `objects` then means nothing. One that is none, or that is free
    /// already, is reported; then some of the others may not have been taken. Call it with no lock held.
    pub fn flush(
        &self,
        zone: &Zone,
        caller: Caller<'_>,
        class: SizeClass,
        objects: &mut [*mut u8],
    ) -> Result<(), Found> {
        let mut left = objects;
        while let Some(first) = left.first() {
            let Some(shard) = shard_of(zone, *first, class) else { return Err(none_of(zone, class, *first)) };
            let own = self.shard(class, shard);
            let (others, chain) = {
                let mut partial = own.partial.lock(caller.os);
                let others =
                    partial.put(zone, class, shard as u8, left).map_err(|object| none_of(zone, class, object))?;
                (others, own.trim(&mut partial, MIN_PARTIAL as usize, zone, class))
            };
            give_back(chain, zone, class)?;
            left = left.get_mut(..others).unwrap_or_default();
        }
        Ok(())
    }

    /// Checks that `object` is one of this class, and out of its slab.
    pub fn check_out(
        &self,
        zone: &Zone,
        caller: Caller<'_>,
        class: SizeClass,
        object: *mut u8,
    ) -> Result<(), &'static str> {
        let at = locate(zone, object, class).map_err(|_| "cache: not an object of this class")?;
        let _partial = self.shard(class, at.shard).partial.lock(caller.os);
        // SAFETY: a slab of this shard, whose lock we have, as long as the object is out; else the heap is at rest.
        if unsafe { at.slab.as_ref() }.is_free(at.number) {
            return Err("cache: an object that is out is free in its slab");
        }
        Ok(())
    }

    /// Slabs of a shard, as of a moment ago.
    pub fn slabs(&self, class: SizeClass, shard: usize) -> usize {
        self.shard(class, shard).slabs()
    }

    /// Gives the empty slabs of the first so many shards back to the zone (the kernel's `kmem_cache_shrink`). Returns the
    /// pages.
    pub fn shrink(&self, zone: &Zone, caller: Caller<'_>, shards: usize) -> Result<usize, Found> {
        let mut pages = 0;
        for class in SizeClass::all() {
            for shard in 0..shards {
                let own = self.shard(class, shard);
                let chain = own.trim(&mut own.partial.lock(caller.os), 0, zone, class);
                pages += chain.len() * class.slab_pages() as usize;
                give_back(chain, zone, class)?;
            }
        }
        Ok(pages)
    }

    /// What the cache of a class has.
    pub fn usage(&self, caller: Caller<'_>, class: SizeClass) -> Usage {
        let mut usage = Usage::default();
        for shard in 0..MAX_SHARDS {
            let own = self.shard(class, shard);
            let partial = own.partial.lock(caller.os);
            let objects = own.slabs() * class.slab_objects();
            usage.slabs += own.slabs();
            usage.active_slabs += own.slabs() - partial.empty.len();
            usage.objects += objects;
            usage.out += objects - partial.free;
        }
        usage
    }

    /// Checks every invariant, and `also` of each slab that has something free; for a moment when nobody else is here.
    pub fn validate(
        &self,
        caller: Caller<'_>,
        also: impl Fn(&Slab, SizeClass) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        for class in SizeClass::all() {
            for shard in 0..MAX_SHARDS {
                let own = self.shard(class, shard);
                let partial = own.partial.lock(caller.os);
                let (mut slabs, mut free) = (0, 0);
                for list in partial.lists() {
                    let mut next = list.first();
                    while let Some(slab) = next {
                        // SAFETY: on a list of this shard, whose lock we have.
                        let header = unsafe { slab.as_ref() };
                        header.validate()?;
                        also(header, class)?;
                        if !header.is_placed() || header.free() == 0 {
                            return Err("cache: a slab is on the wrong list (Ca2)");
                        }
                        (slabs, free) = (slabs + 1, free + header.free());
                        // SAFETY: as above.
                        next = unsafe { List::next(slab) };
                    }
                }
                if slabs > own.slabs() || free != partial.free {
                    return Err("cache: the shard's counters are not those of its slabs (Ca1)");
                }
                if partial.empty.len() > MIN_PARTIAL as usize {
                    return Err("cache: more empty slabs than a shard keeps (Ca3)");
                }
            }
        }
        Ok(())
    }
}

/// Where an object is.
pub(crate) struct Located<'a> {
    pub(crate) map: &'a ChunkMap,
    /// The first page of its slab.
    pub(crate) page: usize,
    pub(crate) slab: NonNull<Slab>,
    pub(crate) shard: usize,
    /// Its number in the slab.
    pub(crate) number: usize,
}

/// Where an object is.
pub(crate) fn locate(zone: &Zone, object: *mut u8, class: SizeClass) -> Result<Located<'_>, Found> {
    let map = chunk_of(zone, object, class)?;
    let no_slab = || Found { at: object, said: class, misuse: why_not(map, object, class) };
    let (slab, shard, page) = Slab::find(map, object as usize, class).ok_or_else(no_slab)?;
    let no_start = Found { at: object, said: class, misuse: Misuse::NotAStart };
    let number = number_in(object, page, class).ok_or(no_start)?;
    Ok(Located { map, page, slab, shard, number })
}

/// Whether an object of this class begins at an address.
#[inline(always)]
pub(crate) fn is_start(zone: &Zone, object: *mut u8, class: SizeClass) -> bool {
    let Some(map) = map_at(zone, object as usize) else { return false };
    let tag = map.tag(map.page_of(object as usize));
    tag.of_slab(class.index()).is_some_and(|(_, first)| number_in(object, first, class).is_some())
}

/// The shard of the slab of this class in which an address is, if it is in one.
#[inline(always)]
fn shard_of(zone: &Zone, object: *mut u8, class: SizeClass) -> Option<usize> {
    let map = map_at(zone, object as usize)?;
    Slab::find(map, object as usize, class).map(|(_, shard, _)| shard)
}

/// The memmap of the chunk in which an address is, if it is in one.
#[inline(always)]
fn map_at(zone: &Zone, address: usize) -> Option<&ChunkMap> {
    match zone.table.owner(address) {
        Owner::Chunk(map) => Some(map),
        Owner::Area(_) | Owner::Nobody => None,
    }
}

/// The number of an object of the slab that begins at page number `first` of the object's chunk, if one begins there.
#[inline(always)]
fn number_in(object: *mut u8, first: usize, class: SizeClass) -> Option<usize> {
    class.object_at((object as usize % CHUNK_SIZE).wrapping_sub(first * PAGE_SIZE))
}

/// The memmap of the chunk in which an object of this class is said to be.
#[inline]
fn chunk_of(zone: &Zone, object: *mut u8, class: SizeClass) -> Result<&ChunkMap, Found> {
    let misuse = match zone.table.owner(object as usize) {
        Owner::Chunk(map) => return Ok(map),
        Owner::Area(_) => Misuse::WrongLayout,
        Owner::Nobody => Misuse::Foreign,
    };
    Err(Found { at: object, said: class, misuse })
}

/// Why an object was none of this class a moment ago. If it is one now, its slab was given up and made again since.
#[cold]
fn none_of(zone: &Zone, class: SizeClass, object: *mut u8) -> Found {
    let freed_twice = Found { at: object, said: class, misuse: Misuse::DoubleFree };
    locate(zone, object, class).err().unwrap_or(freed_twice)
}

#[cold]
fn why_not(map: &ChunkMap, object: *mut u8, class: SizeClass) -> Misuse {
    match map.tag(map.page_of(object as usize)).kind() {
        Kind::Slab { class: has, .. } if has != class.index() => Misuse::WrongLayout,
        Kind::Run(_) => Misuse::WrongLayout,
        Kind::Slab { .. } | Kind::None => Misuse::NotAStart,
    }
}
