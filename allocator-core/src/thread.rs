//! Thread: a thread's sheaves and what they need, and the run of pages that it keeps; and the registry of all thread blocks.
//!
//! # Algorithm
//! A block is handed to a thread at its first slow call and taken back when it ends, to be handed to the next: blocks
//! stay mapped, so looking at the sheaves of another thread is always possible. Arrays are handed out on first use, in
//! the order in which the thread uses classes, so that its first few share one page of the system. A sheaf begins
//! small and doubles with each refill or overflow up to what its class may hold, and with each refill on up to four times
//! that, or eight times for the smallest objects, while the threads of its shard together hold no more than an eighth of the
//! shard's objects, or a half of small ones: with many objects alive, each of a batch is of another slab, and long sheaves go
//! to slabs less often. A refill fills it from slabs in part use, or takes what a new one has; an overflow sends its older
//! half home and keeps the newer one, which is warm. The first object of a class that a thread frees before it has allocated
//! any goes home if it is smaller than a cache line: else the thread would get it back at once, and write to one line in turn
//! with whoever has the object beside it (*passive false sharing*; Berger et al., Hoard, 2000). The others stay: a thread that
//! only frees must not take a lock for each.
//!
//! After a fork the child has the blocks of its parent's threads and one thread. The others' are *orphans*: their
//! `generation` is not the registry's. They are adopted, that is emptied and freed, when memory or a block is wanted.
//!
//! # Invariants
//! - Th1: a block was never used, or is in the free list, or exactly one thread has it, or it is an orphan.
//! - Th2: a block in the free list holds no object, no run and no handle, and its generation is zero.

use crate::cache::{Caches, Found};
use crate::config::{CHECKED, MAX_SHARDS, SHEAF_CAPACITY, SHEAF_LIMIT, THREAD_BATCH};
use crate::error::AllocError;
use crate::gate::Presence;
use crate::live;
use crate::page_counter::Urgency;
use crate::pcp::{Idle, Pcp};
use crate::reclaim;
use crate::sheaf::{Sheaves, Slots};
use crate::size_class::{SizeClass, CLASSES};
#[cfg(kmalloc_loom)]
use crate::sync::array_of;
use crate::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{const_unless_loom, lay, Mutex, Rank, Ranked, UnwatchedU32, Zeroed};
use crate::sys::{Kept, Os};
use crate::zone::{Caller, Zone};
use core::mem::size_of;
use core::ptr::{null_mut, NonNull};
use static_assertions::const_assert;

/// Bytes that processors pass to each other at a time.
const CACHE_LINE: usize = 64;

/// Capacity of a sheaf at first: what its thread may never ask for is little memory.
const fn first_capacity(class: SizeClass) -> usize {
    match class.size() {
        0..=256 => 4,
        257..=1024 => 2,
        _ => 1,
    }
}

/// Of the objects of a shard, its threads may hold one in so many, where that is more than what each may hold anyway: of
/// small ones, which are little memory and much of the work, a half.
const fn share(class: SizeClass) -> usize {
    if class.size() <= 512 {
        2
    } else {
        8
    }
}

/// Whether a sheaf may hold so many objects, more than usual, where its shard has so many slabs and threads.
fn allows(held: usize, class: SizeClass, slabs: usize, peers: usize) -> bool {
    slabs * class.slab_objects() >= held * share(class) * peers.max(1)
}

/// The block of one thread. It begins with the sheaves, so that a pointer to it is a pointer to them.
#[cfg_attr(not(kmalloc_loom), repr(C, align(4096)))]
#[cfg_attr(kmalloc_loom, repr(C, align(64)))]
pub struct Thread {
    sheaves: Sheaves,
    slot: reclaim::Slot,
    presence: Presence,
    pcp: Pcp,
    /// The registry that made it; never changes then.
    registry: AtomicPtr<Registry>,
    /// The block as it was mapped, with what lies between its fields, which by a reference nobody may write to; never changes.
    block: AtomicPtr<Thread>,
    /// The registry's when the thread got the block; zero in the free list.
    generation: AtomicU32,
    /// For the front end: where the thread's stack begins and ends, once it is known.
    stack: [AtomicUsize; 2],
    /// Chosen when a thread gets the block, so that each shard has about as many threads.
    shard: AtomicU32,
    /// One if the thread is the heap's own.
    service: AtomicU32,
    /// One if a mapping begins here that has no name yet.
    unnamed: UnwatchedU32,
    /// One while the thread asks the program for memory back.
    relieving: UnwatchedU32,
    /// The registry's, when it last gave back what it was asked for.
    obeyed: UnwatchedU32,
    /// Slots of `arrays` that sheaves have.
    slots_used: AtomicU32,
    /// Not zero if slots were used since the memory behind them was freed last; under the lock of the registry.
    slots_touched: AtomicU32,
    /// The next block ever made; never changes once it is set.
    next: AtomicPtr<Thread>,
    /// The next free block; under the lock of the registry.
    next_free: AtomicPtr<Thread>,
    arrays: Slots<ARRAY_SLOTS>,
    long_arrays: LongArrays,
}

/// For the longest sheaves, a page of the system for each class that may have one; most programs touch few of them.
#[cfg_attr(not(kmalloc_loom), repr(align(4096)))]
struct LongArrays([Slots<SHEAF_LIMIT>; LONG_CLASSES]);

/// Slots of the array of a class: for all that its sheaf may hold, or twice as much as usual.
const fn array_slots(class: SizeClass) -> usize {
    if class.sheaf_limit() < 2 * SHEAF_CAPACITY {
        class.sheaf_limit()
    } else {
        2 * SHEAF_CAPACITY
    }
}

/// Slots of the arrays of all classes, and how many classes, the first ones, may need more.
const ARRAY_SLOTS: usize = slots_and_long_classes().0;
const LONG_CLASSES: usize = slots_and_long_classes().1;

const fn slots_and_long_classes() -> (usize, usize) {
    let (mut slots, mut long, mut n) = (0, 0, 0);
    while let Some(class) = SizeClass::new(n) {
        slots += array_slots(class);
        if class.sheaf_limit() > array_slots(class) {
            assert!(long == n && class.sheaf_limit() <= SHEAF_LIMIT);
            long += 1;
        }
        n += 1;
    }
    (slots, long)
}

const_assert!(size_of::<Thread>() <= 128 << 10);
const_assert!(core::mem::offset_of!(Thread, arrays) <= 2 * 1024); // two arrays share the first 4 KiB with the header

// SAFETY: zeros are sheaves and a slot that were never used, zero words, null pointers and empty arrays.
unsafe impl Zeroed for Thread {
    #[cfg(kmalloc_loom)]
    fn zeroed() -> Self {
        Self {
            sheaves: Sheaves::new(),
            slot: reclaim::Slot::new(),
            presence: Presence::new(),
            pcp: Pcp::new(),
            registry: AtomicPtr::new(null_mut()),
            block: AtomicPtr::new(null_mut()),
            generation: AtomicU32::new(0),
            stack: array_of!(2, AtomicUsize, AtomicUsize::new(0)),
            shard: AtomicU32::new(0),
            service: AtomicU32::new(0),
            unnamed: UnwatchedU32::new(0),
            relieving: UnwatchedU32::new(0),
            obeyed: UnwatchedU32::new(0),
            slots_used: AtomicU32::new(0),
            slots_touched: AtomicU32::new(0),
            next: AtomicPtr::new(null_mut()),
            next_free: AtomicPtr::new(null_mut()),
            arrays: Slots::new(),
            long_arrays: LongArrays(array_of!(LONG_CLASSES, Slots<SHEAF_LIMIT>, Slots::new())),
        }
    }
}

// Not `Sync`, so a reference to a block stays with the thread that got it: the safe functions of `Heap` that take one
// use its slot. What other threads look at by way of the registry are atomics.
static_assertions::assert_not_impl_any!(Thread: Sync);
static_assertions::assert_not_impl_any!(&'static Thread: Send);

impl Thread {
    /// Its sheaves.
    #[inline(always)]
    pub fn sheaves(&self) -> &Sheaves {
        &self.sheaves
    }

    /// Its place in the reclamation scheme.
    pub fn slot(&self) -> &reclaim::Slot {
        &self.slot
    }

    /// Whether the thread is inside the allocator.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The run that it keeps.
    pub(crate) fn pcp(&self) -> &Pcp {
        &self.pcp
    }

    /// Whether it is one of this registry's blocks.
    pub(crate) fn is_of(&self, registry: &Registry) -> bool {
        core::ptr::eq(self.registry.load(Relaxed), registry)
    }

    /// Words for the front end, zero at first: where the thread's stack begins and ends.
    pub fn stack(&self) -> &[AtomicUsize; 2] {
        &self.stack
    }

    /// What the thread may take where there is a limit: on the way to give memory back, all.
    pub fn urgency(&self) -> Urgency {
        if self.is_relieving() {
            Urgency::Reserve
        } else {
            Urgency::Usual
        }
    }

    /// True while the thread asks the program for memory back.
    pub fn is_relieving(&self) -> bool {
        self.relieving.load(Relaxed) != 0
    }

    /// Notes that it begins to, or ends.
    pub fn set_relieving(&self, relieving: bool) {
        self.relieving.store(relieving.into(), Relaxed);
    }

    /// The number of its shard.
    pub fn shard(&self) -> usize {
        self.shard.load(Relaxed) as usize
    }

    /// Fills the empty sheaf of a class and takes one object of it. So many threads, `peers`, have its shard.
    ///
    /// # Safety
    /// The calling thread has the block.
    #[cold]
    pub unsafe fn refill(
        &self,
        caches: &Caches,
        zone: &'static Zone,
        caller: Caller<'_>,
        class: SizeClass,
        peers: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let sheaf = self.sheaves.of(class);
        // SAFETY: by contract.
        if !unsafe { self.widen(class) } {
            // SAFETY: by contract.
            unsafe { self.lengthen(class, caches.slabs(class, self.shard()), peers) };
        }
        // SAFETY: by contract; `widen` gave it an array.
        let slots = unsafe { sheaf.slots() };
        let taken = caches.refill(zone, caller, class, self.shard(), slots)?;
        let n = slots.len();
        if taken < n {
            slots.copy_within(n - taken..n, 0);
        }
        sheaf.set_len(taken);
        // SAFETY: by contract.
        unsafe { sheaf.pop() }.ok_or(AllocError::OutOfMemory)
    }

    /// Makes room in the full sheaf of a class, and puts `object` there. So many threads, `peers`, have its shard.
    ///
    /// # Safety
    /// The calling thread has the block; `object` is of this class, and the caller gives it up for good.
    #[cold]
    pub unsafe fn overflow(
        &self,
        caches: &Caches,
        zone: &Zone,
        caller: Caller<'_>,
        class: SizeClass,
        object: NonNull<u8>,
        peers: usize,
    ) -> Result<(), Found> {
        let sheaf = self.sheaves.of(class);
        let first = sheaf.capacity() == 0;
        // SAFETY: by contract.
        if !unsafe { self.widen(class) } {
            // SAFETY: by contract; a sheaf that cannot be widened has an array.
            let slots = unsafe { sheaf.slots() };
            let (len, least) = (sheaf.len(), class.sheaf_capacity());
            let long = len > least && !allows(len, class, caches.slabs(class, self.shard()), peers);
            let newer = if long { least / 2 } else { len / 2 };
            caches.flush(zone, caller, class, &mut slots[..len - newer])?;
            slots.copy_within(len - newer..len, 0);
            sheaf.set_len(newer);
            if long {
                sheaf.set_capacity(least);
            }
        } else if first && class.size() < CACHE_LINE {
            // Another thread has allocated it, and may have its neighbours still.
            return caches.flush(zone, caller, class, &mut [object.as_ptr()]);
        }
        // SAFETY: by contract.
        let pushed = unsafe { sheaf.push(object) };
        debug_assert!(pushed);
        Ok(())
    }

    /// Gives the sheaf of a class an array, or doubles its capacity. False if it is as long as sheaves usually are.
    ///
    /// # Safety
    /// The calling thread has the block.
    unsafe fn widen(&self, class: SizeClass) -> bool {
        let (sheaf, most) = (self.sheaves.of(class), class.sheaf_capacity());
        match sheaf.capacity() {
            0 => {
                let used = self.slots_used.load(Relaxed);
                self.slots_used.store(used + array_slots(class) as u32, Relaxed);
                // SAFETY: by contract; there are so many for each class, and no other sheaf has these.
                unsafe { sheaf.attach(self.arrays.at(used as usize), first_capacity(class).min(most)) };
                true
            }
            now if now < most => {
                sheaf.set_capacity((now * 2).min(most));
                true
            }
            _ => false,
        }
    }

    /// Doubles the capacity of the sheaf of a class, which is as long as usual or longer, and empty: if the slabs of the shard,
    /// of which there are so many, have objects enough.
    ///
    /// # Safety
    /// The calling thread has the block.
    unsafe fn lengthen(&self, class: SizeClass, slabs: usize, peers: usize) {
        let sheaf = self.sheaves.of(class);
        let longer = (2 * sheaf.capacity()).min(class.sheaf_limit());
        let long = self.long_arrays.0.get(class.index()).filter(|_| longer > array_slots(class));
        // A long array is a page more: too much for the objects of one slab.
        let slabs = slabs.saturating_sub(long.is_some().into());
        if longer > sheaf.capacity() && allows(longer, class, slabs, peers) {
            // SAFETY: by contract; the long one is this class's, and as long as its sheaf may ever be.
            unsafe { sheaf.attach(long.map_or(sheaf.start(), |array| array.at(0)), longer) };
        }
    }

    /// Sends every object home, and gives the run back that it keeps.
    ///
    /// # Safety
    /// The calling thread has the block.
    pub unsafe fn flush(&self, caches: &Caches, zone: &Zone, caller: Caller<'_>) -> Result<(), Found> {
        if let Some(run) = self.pcp.empty() {
            zone.give_back_kept(run);
        }
        for class in SizeClass::all() {
            let sheaf = self.sheaves.of(class);
            let len = sheaf.len();
            if len > 0 {
                // SAFETY: by contract; a sheaf with objects has an array.
                let slots = unsafe { sheaf.slots() };
                caches.flush(zone, caller, class, &mut slots[..len])?;
                sheaf.set_len(0);
                sheaf.set_capacity(sheaf.capacity().min(class.sheaf_capacity()));
            }
        }
        Ok(())
    }

    /// Takes the word of the sheaves of a thread that is no more: what lies in them is not the program's, though the
    /// thread may have been stopped before it said so. Does nothing without the feature `checked`.
    ///
    /// # Safety
    /// The calling thread has the block.
    pub unsafe fn settle(&self, zone: &Zone) {
        for class in SizeClass::all().take(if CHECKED { CLASSES } else { 0 }) {
            let sheaf = self.sheaves.of(class);
            if !sheaf.is_empty() {
                // SAFETY: by contract; a sheaf with objects has an array.
                let objects = unsafe { sheaf.slots() };
                objects[..sheaf.len()].iter().for_each(|object| live::forget(zone, *object, class));
            }
        }
    }

    /// Checks that its sheaves hold nothing but objects of their class that are out of their slabs (Sh1).
    ///
    /// # Safety
    /// The calling thread has the block.
    pub unsafe fn validate(&self, caches: &Caches, zone: &Zone, caller: Caller<'_>) -> Result<(), &'static str> {
        for class in SizeClass::all() {
            let sheaf = self.sheaves.of(class);
            if sheaf.len() > sheaf.capacity() || sheaf.capacity() > class.sheaf_limit() {
                return Err("sheaf: holds more than it may (Sh1)");
            }
            if !sheaf.is_empty() {
                // SAFETY: by contract; a sheaf with objects has an array.
                let objects = unsafe { sheaf.slots() };
                for object in &objects[..sheaf.len()] {
                    caches.check_out(zone, caller, class, *object)?;
                    if CHECKED && live::check(zone, *object, class).is_ok() {
                        return Err("live: an object is in a sheaf (Lv1)");
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes it as new. It holds no object any more.
    fn reset(&self) {
        SizeClass::all().for_each(|class| self.sheaves.of(class).detach());
        self.slots_used.store(0, Relaxed);
        self.relieving.store(0, Relaxed); // a fork may have left it so
        self.pcp.forget();
        self.stack.iter().for_each(|word| word.store(0, Relaxed));
    }
}

struct Blocks {
    free: *mut Thread,
    /// Blocks of the youngest mapping that were never used, and the first of them: not even touched yet.
    fresh: u32,
    next_fresh: *mut Thread,
    /// Threads of the program that have one, and threads of the heap itself.
    live: usize,
    services: usize,
    mappings: usize,
    /// Forks that led to this process.
    forks: u32,
    orphans: usize,
    /// Threads that forks have left behind, adopted or not.
    lost: usize,
}

impl Blocks {
    /// What blocks that are handed out now say.
    fn generation(&self) -> u32 {
        self.forks + 1
    }
}

// SAFETY: blocks that are free or were never used belong to the lock around them.
unsafe impl Send for Blocks {}

impl Ranked for Blocks {
    const RANK: Rank = Rank::Registry;
}

/// All thread blocks of a heap.
pub struct Registry {
    all: AtomicPtr<Thread>,
    blocks: Mutex<Blocks>,
    /// How many threads have each shard; changed under the lock.
    in_shard: [UnwatchedU32; MAX_SHARDS],
    /// How often threads were asked for what is in their sheaves. It orders nothing: a thread sees it some time.
    asked: UnwatchedU32,
}

impl Registry {
    const_unless_loom! {
        /// No blocks.
        pub fn new() -> Self {
            Self {
                all: AtomicPtr::new(null_mut()),
                in_shard: [const { UnwatchedU32::new(0) }; MAX_SHARDS],
                asked: UnwatchedU32::new(0),
                blocks: Mutex::new(Blocks {
                    free: null_mut(),
                    fresh: 0,
                    next_fresh: null_mut(),
                    live: 0,
                    services: 0,
                    mappings: 0,
                    forks: 0,
                    orphans: 0,
                    lost: 0,
                }),
            }
        }
    }

    /// A block for a thread that begins. A thread of the heap itself is a `service`: it is counted nowhere, and allocates
    /// nothing to speak of. `None` if the system refuses memory for one.
    pub fn attach(&self, os: &dyn Os, kept: &Kept, shards: usize, service: bool) -> Option<NonNull<Thread>> {
        let mut blocks = self.blocks.lock(os);
        let block = match NonNull::new(blocks.free) {
            None => self.make(os, kept, &mut blocks)?,
            Some(block) => {
                // SAFETY: blocks stay mapped; this one is free.
                blocks.free = unsafe { block.as_ref() }.next_free.load(Relaxed);
                block
            }
        };
        // SAFETY: blocks stay mapped.
        let thread = unsafe { block.as_ref() };
        thread.generation.store(blocks.generation(), Relaxed);
        let fewest =
            self.in_shard[..shards.clamp(1, MAX_SHARDS)].iter().enumerate().min_by_key(|(_, n)| n.load(Relaxed));
        let shard = fewest.map_or(0, |(shard, _)| shard);
        thread.shard.store(shard as u32, Relaxed);
        thread.service.store(service.into(), Relaxed);
        thread.obeyed.store(self.asked.load(Relaxed), Relaxed);
        if service {
            blocks.services += 1;
        } else {
            self.in_shard[shard].fetch_add(1, Relaxed);
            blocks.live += 1;
        }
        Some(block)
    }

    /// A block that was never used.
    fn make(&self, os: &dyn Os, kept: &Kept, blocks: &mut Blocks) -> Option<NonNull<Thread>> {
        if blocks.fresh == 0 {
            let memory = kept.map(os, THREAD_BATCH * size_of::<Thread>())?;
            // SAFETY: the new mapping is aligned to a page of the system, and holds zeros, which are valid blocks.
            let first = unsafe { lay::<Thread>(memory, THREAD_BATCH) };
            // SAFETY: valid, as above.
            unsafe { first.as_ref() }.unnamed.store(1, Relaxed);
            blocks.next_fresh = first.as_ptr();
            blocks.fresh = THREAD_BATCH as u32;
            blocks.mappings += 1;
        }
        let block = NonNull::new(blocks.next_fresh)?;
        blocks.fresh -= 1;
        blocks.next_fresh = blocks.next_fresh.wrapping_add(1);
        // SAFETY: mapped, and nobody else knows it.
        let new = unsafe { block.as_ref() };
        new.registry.store(core::ptr::from_ref(self).cast_mut(), Relaxed);
        new.block.store(block.as_ptr(), Relaxed);
        new.next.store(self.all.load(Relaxed), Relaxed);
        self.all.store(block.as_ptr(), Release);
        Some(block)
    }

    /// Takes the block of a thread that ends back.
    ///
    /// # Safety
    /// The thread had it, holds no object, no run and no handle in it any more (Th2), and will not use it again.
    pub unsafe fn detach(&self, os: &dyn Os, thread: &Thread) {
        let used = thread.slots_used.load(Relaxed);
        thread.reset();
        let mut blocks = self.blocks.lock(os);
        thread.slots_touched.store(thread.slots_touched.load(Relaxed).max(used), Relaxed);
        thread.generation.store(0, Relaxed);
        thread.next_free.store(blocks.free, Relaxed);
        blocks.free = thread.block.load(Relaxed);
        if thread.service.load(Relaxed) != 0 {
            blocks.services -= 1;
        } else {
            self.in_shard[thread.shard()].fetch_sub(1, Relaxed);
            blocks.live -= 1;
        }
    }

    /// In a child, before anything else: every block but `own` is an orphan now.
    pub fn fork(&self, os: &dyn Os, own: Option<&Thread>) {
        let mut blocks = self.blocks.lock(os);
        blocks.forks += 1;
        let before = blocks.orphans;
        blocks.orphans = blocks.live + blocks.services - usize::from(own.is_some());
        // Those that nobody has adopted since an earlier fork are counted already.
        blocks.lost += blocks.orphans - before;
        if let Some(own) = own {
            own.generation.store(blocks.generation(), Relaxed);
        }
    }

    /// Orphans, if there are any. Each is the caller's own once it is shown, to be emptied and detached.
    pub fn adopt<'a>(&'a self, os: &'a dyn Os) -> impl Iterator<Item = &'a Thread> + 'a {
        let any = self.blocks.lock(os).orphans > 0;
        self.iter().take_while(move |_| any).filter(move |block| {
            let mut blocks = self.blocks.lock(os);
            let now = blocks.generation();
            let orphan = ![0, now].contains(&block.generation.load(Relaxed));
            if orphan {
                block.generation.store(now, Relaxed);
                blocks.orphans -= 1;
            }
            orphan
        })
    }

    /// Threads of the parent, if this is a child. Each may have been stopped with an object between its sheaf and its
    /// hands.
    pub fn lost(&self, os: &dyn Os) -> usize {
        self.blocks.lock(os).lost
    }

    /// Every thread's word that says whether it is inside.
    pub fn presences(&self) -> impl Iterator<Item = &Presence> {
        self.iter().map(Thread::presence)
    }

    /// The runs that threads keep. Each is the caller's own once it is shown.
    pub fn kept_runs(&self) -> impl Iterator<Item = Idle> + '_ {
        self.iter().filter_map(|thread| thread.pcp.empty())
    }

    /// Pages of those runs, at about this moment.
    pub fn kept_pages(&self) -> usize {
        self.iter().map(|thread| thread.pcp.pages()).sum()
    }

    /// Every block ever made, newest first.
    fn iter(&self) -> impl Iterator<Item = &Thread> {
        // SAFETY: blocks stay mapped, and the list only grows in front.
        let block = |block: *mut Thread| unsafe { block.as_ref() };
        core::iter::successors(block(self.all.load(Acquire)), move |last| block(last.next.load(Relaxed)))
    }

    /// Frees the memory behind the arrays of free blocks that were used since. A refusal costs memory, nothing else.
    pub fn shrink(&self, os: &dyn Os) {
        let blocks = self.blocks.lock(os);
        let mut next = NonNull::new(blocks.free);
        while let Some(block) = next {
            let start = os.whole_pages(block.as_ptr() as usize + core::mem::offset_of!(Thread, arrays));
            let end = (block.as_ptr() as usize + size_of::<Thread>()) & !(os.page_size() - 1);
            // SAFETY: blocks stay mapped; this one is free.
            let thread = unsafe { block.as_ref() };
            next = NonNull::new(thread.next_free.load(Relaxed));
            if start < end && thread.slots_touched.load(Relaxed) > 0 {
                // SAFETY: between the start and the end of the block.
                let arrays = unsafe { block.cast::<u8>().add(start - block.as_ptr() as usize) };
                // SAFETY: whole pages of arrays that nobody has (Th2); slots of zeros are initialised too.
                if unsafe { os.discard(arrays, end - start) } {
                    thread.slots_touched.store(0, Relaxed);
                }
            }
        }
    }

    /// Gives the mappings of blocks names, and no huge pages. A refusal costs those, or memory, nothing else.
    pub fn name(&self, os: &dyn Os) {
        for first in self.iter().filter(|block| block.unnamed.swap(0, Relaxed) != 0) {
            let len = os.whole_pages(THREAD_BATCH * size_of::<Thread>());
            let Some(mapping) = NonNull::new(first.block.load(Relaxed)) else { continue };
            // SAFETY: it begins a mapping of so many bytes, which stays.
            unsafe { os.name(mapping.cast(), len, c"kmalloc threads") };
            // SAFETY: as above.
            unsafe { os.advise_huge(mapping.cast(), len, false) };
        }
    }

    /// Bytes mapped for blocks.
    pub fn own_bytes(&self, os: &dyn Os) -> usize {
        self.blocks.lock(os).mappings * os.whole_pages(THREAD_BATCH * size_of::<Thread>())
    }

    /// Asks all threads for what is in their sheaves. Each sends it home at its next slow call.
    pub fn ask_back(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    /// True if this thread was asked since it was last told so.
    #[inline]
    pub fn has_asked(&self, thread: &Thread) -> bool {
        let asked = self.asked.load(Relaxed);
        let news = thread.obeyed.load(Relaxed) != asked;
        if news {
            thread.obeyed.store(asked, Relaxed);
        }
        news
    }

    /// Threads that have the shard of this one, at about this moment.
    pub fn peers(&self, thread: &Thread) -> usize {
        self.in_shard[thread.shard()].load(Relaxed) as usize
    }

    /// Threads of the program that have a block now.
    pub fn live(&self, os: &dyn Os) -> usize {
        self.blocks.lock(os).live
    }

    /// Objects of a class in all sheaves, at about this moment.
    pub fn cached(&self, class: SizeClass) -> usize {
        self.iter().map(|thread| thread.sheaves.of(class).len()).sum()
    }
}
