//! Cache: every slab of one size class. Its shards have a lock and partial lists each: the slow path.
//!
//! # Algorithm
//! A slab belongs to the shard that made it; threads are spread over the shards. A *refill* takes objects from the
//! partial slabs of the caller's shard, the fullest ones first so that the others can empty. When there are none, the
//! lock is dropped, pages are taken from the zone and made a slab, and what the caller does not want of it is listed.
//! Where there are no pages any more, the partial slabs of the other shards are looked at: an object goes home to the
//! shard that it came from, whoever frees it.
//! A *flush* takes a batch of objects back to the shards that they came from: all slabs are found first, without a
//! lock; then each shard is locked once, objects are numbered, their bits are set, and a slab moves to another list when
//! the batch leaves it, if its count of free objects says so. What was allocated together is mostly freed together, so an
//! object is looked for first in the page of the one before it; only the first of such a *stretch* is looked up. Headers
//! are prefetched then, so that the lock is not held while one after the other comes in from memory. Slabs that become
//! empty leave the cache, but for a few that each shard keeps (`MIN_PARTIAL`, the kernel's `min_partial`); their pages go
//! back when the lock is dropped.
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

use crate::chunk::Content;
use crate::config::{CHUNK_SIZE, MAX_SHARDS, MAX_SLAB_PAGES, MIN_PARTIAL, PAGE_SIZE, SHEAF_SLOTS};
use crate::error::{AllocError, Misuse};
use crate::page::{ChunkMap, Kind, Owner};
use crate::size_class::{SizeClass, CLASSES};
use crate::slab::{List, Listed, Slab};
use crate::sync::{array_of, const_unless_loom, Mutex, Rank, Ranked};
use crate::units::{Order, PageCount};
use crate::zone::{Caller, Zone};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// A shard with so many slabs uses all of the next one, most likely: its pages are faulted in together.
const POPULATE_FROM: usize = 2;

/// Objects in a batch that goes home, at most.
pub(crate) const BATCH: usize = SHEAF_SLOTS / 2;

/// The partial lists of one shard, and what they add up to.
struct Partial {
    dense: List,
    sparse: List,
    resting: List,
    hollow: List,
    empty: List,
    slabs: usize,
    free: usize,
}

impl Ranked for Partial {
    const RANK: Rank = Rank::Shard;
}

/// One lock's worth of a cache, on cache lines of its own.
#[repr(align(128))]
struct Shard {
    partial: Mutex<Partial>,
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

/// What a refill did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refilled {
    /// Objects taken, at least one.
    pub taken: usize,
    /// Slabs of the shard.
    pub slabs: usize,
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
            Self { partial: Mutex::new(Partial { dense, sparse, resting, hollow, empty, slabs: 0, free: 0 }) }
        }
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
    #[inline(never)] // leaves registers to its callers
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

    /// Fills `out` from its end. Returns how many objects there were.
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let mut left = out.len();
        while left > 0 {
            let lists = [&self.dense, &self.sparse, &self.resting, &self.hollow, &self.empty];
            let Some(mut slab) = lists.into_iter().find_map(List::first) else { break };
            // SAFETY: on a list of this shard, whose lock we have; the reference ends here.
            left -= unsafe { slab.as_mut() }.take(&mut out[..left]);
            // SAFETY: as above.
            unsafe { self.relist(slab) };
        }
        let taken = out.len() - left;
        self.free -= taken;
        taken
    }

    /// Takes back what is this shard's of a batch. Returns the other shards of it, a bit each.
    ///
    /// # Safety
    /// The stretches are those of the batch.
    #[inline(never)] // has registers enough, which makes up for the call
    unsafe fn put(
        &mut self,
        class: SizeClass,
        shard: u32,
        batch: &[*mut u8],
        stretches: &[Stretch],
    ) -> Result<u32, Found> {
        let cut = class.cut();
        let (mut others, mut end) = (0, batch.len());
        for stretch in stretches.iter().rev() {
            // SAFETY: inside the batch.
            let begin = unsafe { stretch.begin.offset_from(batch.as_ptr()) } as usize;
            // SAFETY: stretches follow each other, up to the end of the batch.
            let objects = unsafe { batch.get_unchecked(begin..end) };
            end = begin;
            if stretch.shard != shard {
                others |= 1 << stretch.shard;
                continue;
            }
            // SAFETY: of this shard, whose lock we have (Sl3); the reference ends before `relist`.
            let slab = unsafe { &mut *stretch.slab.as_ptr() };
            if !slab.is_of(class, shard as u8) {
                // Freed by others, too, since it was found: the last of them gave the slab up.
                return Err(Found { at: objects[0], said: class, misuse: Misuse::DoubleFree });
            }
            // SAFETY: of this class.
            let taken = unsafe { slab.put(cut, objects) };
            self.free += taken;
            if taken > 0 && slab.rises() {
                // SAFETY: of this shard, and with an object that was out just now, so nobody has given it up.
                unsafe { self.relist(stretch.slab) };
            }
            if taken < objects.len() {
                // SAFETY: as above.
                return Err(why_not_put(unsafe { stretch.slab.as_ref() }, objects[taken], class));
            }
        }
        Ok(others)
    }

    /// Unlinks empty slabs until `keep` are left, and adds them to a list of slabs that are nobody's.
    fn trim(&mut self, keep: usize, chain: &mut List, objects: usize) {
        while self.empty.len() > keep {
            let Some(slab) = self.empty.first() else { return };
            // SAFETY: on that list.
            unsafe { self.empty.remove(slab) };
            // SAFETY: of this shard, whose lock we have.
            unsafe { (*slab.as_ptr()).disown() };
            self.slabs -= 1;
            self.free -= objects;
            // SAFETY: on none now.
            unsafe { chain.push(slab, Listed::Full) };
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
        let slab = unsafe { slab.as_ref() };
        let base = slab.base();
        let map = zone.map_of(base);
        slab.destroy(map);
        zone.free_pages(map, base as usize, pages).map_err(|misuse| Found { at: base, said: class, misuse })?;
    }
    Ok(())
}

/// Asks for the cache line of a slab's header.
#[inline(always)]
fn prefetch(slab: *const Slab) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads nothing that the program sees, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(slab.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slab;
}

/// Objects of one page of a slab that follow each other in a batch.
struct Stretch {
    slab: NonNull<Slab>,
    shard: u32,
    /// The first one in the batch.
    begin: *const *mut u8,
}

/// The stretches that a batch consists of; the rest was never written.
struct Stretches([MaybeUninit<Stretch>; BATCH]);

impl Stretches {
    const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; BATCH])
    }

    /// Finds those of a batch.
    ///
    /// # Safety
    /// It has `BATCH` objects at most.
    #[inline(never)] // has registers enough, which makes up for the call
    unsafe fn find(&mut self, zone: &Zone, class: SizeClass, batch: &[*mut u8]) -> Result<&[Stretch], Found> {
        let Some(first) = batch.first() else { return Ok(&[]) };
        let mut map = chunk_of(zone, *first, class)?;
        debug_assert!(batch.len() <= BATCH);
        // The object before, and bytes in its page: none before the first one.
        let (mut last, mut page) = (*first as usize, 0);
        let mut stretches = 0;
        for object in batch {
            let address = *object as usize;
            if address ^ last < page {
                continue;
            }
            if address ^ last >= CHUNK_SIZE {
                map = chunk_of(zone, *object, class)?;
            }
            (last, page) = (address, PAGE_SIZE);
            let (slab, shard, _) = home(map, *object, class)?;
            prefetch(slab.as_ptr());
            // SAFETY: no more stretches than objects, which are `BATCH` at most by contract.
            let place = unsafe { self.0.get_unchecked_mut(stretches) };
            place.write(Stretch { slab, shard: shard as u32, begin: object });
            stretches += 1;
        }
        let first = self.0.as_ptr().cast::<Stretch>();
        // SAFETY: so many were written above.
        Ok(unsafe { core::slice::from_raw_parts(first, stretches) })
    }
}

impl Caches {
    const_unless_loom! {
        /// Caches without slabs. All zeros is the same state.
        pub fn new() -> Self {
            Self(array_of!(MAX_SHARDS, [Shard; CLASSES], array_of!(CLASSES, Shard, Shard::new())))
        }
    }

    fn shard(&self, class: SizeClass, shard: usize) -> &Mutex<Partial> {
        &self.0[shard % MAX_SHARDS][class.index()].partial
    }

    /// Takes up to `out.len()` objects into `out` from its end: as many as there are, or those of one new slab. Call it
    /// with no lock held.
    pub fn refill(
        &self,
        zone: &'static Zone,
        caller: Caller<'_>,
        class: SizeClass,
        shard: usize,
        out: &mut [*mut u8],
    ) -> Result<Refilled, AllocError> {
        let (taken, slabs) = {
            let mut partial = self.shard(class, shard).lock(caller.os);
            (partial.take(out), partial.slabs)
        };
        if taken > 0 {
            return Ok(Refilled { taken, slabs });
        }
        let mut slab = match self.create_slab(zone, caller, class, shard, slabs >= POPULATE_FROM) {
            Ok(slab) => slab,
            Err(refused) => {
                let mut others = (0..MAX_SHARDS).map(|shard| self.shard(class, shard).lock(caller.os).take(out));
                let taken = others.find(|taken| *taken > 0).ok_or(refused)?;
                return Ok(Refilled { taken, slabs: 0 }); // of the caller's shard, no matter how many: they are used up
            }
        };
        // SAFETY: nobody else knows the slab yet.
        let new = unsafe { slab.as_mut() };
        let taken = new.take(out);
        let left = new.free();
        let mut partial = self.shard(class, shard).lock(caller.os);
        new.adopt((shard % MAX_SHARDS) as u8);
        partial.slabs += 1;
        partial.free += left;
        // SAFETY: of this shard; the reference `new` is not used any more.
        unsafe { partial.relist(slab) };
        Ok(Refilled { taken, slabs: partial.slabs })
    }

    fn create_slab(
        &self,
        zone: &'static Zone,
        caller: Caller<'_>,
        class: SizeClass,
        shard: usize,
        populate: bool,
    ) -> Result<NonNull<Slab>, AllocError> {
        let run = zone.alloc_pages(caller, PageCount::new(class.slab_pages()), Order::ZERO)?;
        let map = zone.map_of(run.ptr.as_ptr());
        let page = map.page_of(run.ptr.as_ptr() as usize);
        let bytes = PageCount::new(class.slab_pages()).bytes();
        if populate
            && run.content == Content::Zeros
            && (run.ptr.as_ptr() as usize | bytes) & (caller.os.page_size() - 1) == 0
        {
            // SAFETY: pages that were just taken. A refusal costs time, nothing else.
            unsafe { caller.os.populate(run.ptr, bytes) };
        }
        // SAFETY: the pages were just taken.
        Ok(unsafe { Slab::create(map, page, class, shard % MAX_SHARDS) })
    }

    /// Takes objects of one class back. One that is none, or that is free already, is reported; then some of the others may
    /// not have been taken. Call it with no lock held.
    pub fn flush(&self, zone: &Zone, caller: Caller<'_>, class: SizeClass, objects: &[*mut u8]) -> Result<(), Found> {
        // SAFETY: batches of so many.
        objects.chunks(BATCH).try_for_each(|batch| unsafe { self.flush_batch(zone, caller, class, batch) })
    }

    /// # Safety
    /// The batch has `BATCH` objects at most.
    unsafe fn flush_batch(
        &self,
        zone: &Zone,
        caller: Caller<'_>,
        class: SizeClass,
        batch: &[*mut u8],
    ) -> Result<(), Found> {
        let mut stretches = Stretches::new();
        // SAFETY: by contract.
        let stretches = unsafe { stretches.find(zone, class, batch) }?;
        let (mut next, mut done) = (stretches.first().map(|stretch| stretch.shard), 0);
        while let Some(shard) = next {
            let mut chain = List::new();
            let others = {
                let mut partial = self.shard(class, shard as usize).lock(caller.os);
                // SAFETY: the stretches are those of the batch, and their slabs of the class.
                let others = unsafe { partial.put(class, shard, batch, stretches) }?;
                partial.trim(MIN_PARTIAL as usize, &mut chain, class.slab_objects());
                others
            };
            give_back(chain, zone, class)?;
            done |= 1 << shard;
            let left = others & !done;
            next = (left != 0).then(|| left.trailing_zeros());
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
        let _partial = self.shard(class, at.shard).lock(caller.os);
        // SAFETY: a slab of this shard, whose lock we have (Sl3).
        if unsafe { at.slab.as_ref() }.is_free(at.number) {
            return Err("cache: an object that is out is free in its slab");
        }
        Ok(())
    }

    /// Slabs of a shard.
    pub fn slabs(&self, caller: Caller<'_>, class: SizeClass, shard: usize) -> usize {
        self.shard(class, shard).lock(caller.os).slabs
    }

    /// Gives the empty slabs of the first so many shards back to the zone (the kernel's `kmem_cache_shrink`). Returns the
    /// pages.
    pub fn shrink(&self, zone: &Zone, caller: Caller<'_>, shards: usize) -> Result<usize, Found> {
        let mut pages = 0;
        for class in SizeClass::all() {
            for shard in 0..shards {
                let mut chain = List::new();
                self.shard(class, shard).lock(caller.os).trim(0, &mut chain, class.slab_objects());
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
            let partial = self.shard(class, shard).lock(caller.os);
            let objects = partial.slabs * class.slab_objects();
            usage.slabs += partial.slabs;
            usage.active_slabs += partial.slabs - partial.empty.len();
            usage.objects += objects;
            usage.out += objects - partial.free;
        }
        usage
    }

    /// Checks every invariant; for a moment when nobody else is here.
    pub fn validate(&self, caller: Caller<'_>) -> Result<(), &'static str> {
        for class in SizeClass::all() {
            for shard in 0..MAX_SHARDS {
                let partial = self.shard(class, shard).lock(caller.os);
                let (mut slabs, mut free) = (0, 0);
                for list in [&partial.dense, &partial.sparse, &partial.resting, &partial.hollow, &partial.empty] {
                    let mut next = list.first();
                    while let Some(slab) = next {
                        // SAFETY: on a list of this shard, whose lock we have.
                        let header = unsafe { slab.as_ref() };
                        header.validate()?;
                        if !header.is_placed() || header.free() == 0 {
                            return Err("cache: a slab is on the wrong list (Ca2)");
                        }
                        (slabs, free) = (slabs + 1, free + header.free());
                        // SAFETY: as above.
                        next = unsafe { List::next(slab) };
                    }
                }
                if slabs > partial.slabs || free != partial.free {
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
    let (slab, shard, back) = home(map, object, class)?;
    let no_start = Found { at: object, said: class, misuse: Misuse::NotAStart };
    let number = number_in(object, back, class).ok_or(no_start)?;
    Ok(Located { map, page: map.page_of(object as usize) - back, slab, shard, number })
}

/// Whether an object of this class begins at an address.
#[inline(always)]
pub(crate) fn is_start(zone: &Zone, object: *mut u8, class: SizeClass) -> bool {
    let Owner::Chunk(map) = zone.table.owner(object as usize) else { return false };
    let tag = map.tag(map.page_of(object as usize));
    tag.of_slab(class.index()).is_some_and(|(_, back)| number_in(object, back, class).is_some())
}

/// The number of an object whose page is number `back` of its slab, if one begins there.
#[inline(always)]
fn number_in(object: *mut u8, back: usize, class: SizeClass) -> Option<usize> {
    class.object_at(object as usize % PAGE_SIZE + back * PAGE_SIZE)
}

/// The slab in whose pages an address is, its shard, and the pages back to its first one.
#[inline(always)]
fn home(map: &ChunkMap, object: *mut u8, class: SizeClass) -> Result<(NonNull<Slab>, usize, usize), Found> {
    let no_slab = || Found { at: object, said: class, misuse: why_not(map, object, class) };
    Slab::find(map, object as usize, class).ok_or_else(no_slab)
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

/// Why a slab did not take an object that lies in it.
#[cold]
fn why_not_put(slab: &Slab, object: *mut u8, class: SizeClass) -> Found {
    let misuse = match class.object_at(object as usize - slab.base() as usize) {
        Some(_) => Misuse::DoubleFree,
        None => Misuse::NotAStart,
    };
    Found { at: object, said: class, misuse }
}

#[cold]
fn why_not(map: &ChunkMap, object: *mut u8, class: SizeClass) -> Misuse {
    match map.tag(map.page_of(object as usize)).kind() {
        Kind::Slab { class: has, .. } if has != class.index() => Misuse::WrongLayout,
        Kind::Run(_) => Misuse::WrongLayout,
        Kind::Slab { .. } | Kind::None => Misuse::NotAStart,
    }
}

static_assertions::const_assert!(MAX_SLAB_PAGES <= 255);
static_assertions::const_assert!(MAX_SHARDS <= u32::BITS as usize);
