//! Models of what lies above the buddy: the shipped types, with the small numbers of `config`, on a system that is a
//! block of memory.
//!
//! What a thread gets is touched: a cell that loom watches stands for each page run or object, so loom fails a model in
//! which two have it at once, or in which one does not see what the last one did. Each model ends, when all threads
//! are joined, with the checks of the layers concerned.
//!
//! `LOOM_MAX_PREEMPTIONS` (2 if it is not set) and loom's other variables bound the search.

mod areas;
mod arenas;
mod epoch;
mod heaps;
mod pages;
mod slabs;
mod threads;

use crate::arena::Ground;
use crate::cache::Caches;
use crate::config::ADDRESS_BITS;
use crate::page_counter::Urgency;
use crate::reclaim::{Garbage, Reclaim, Slot};
use crate::sync::{loom_park::Futex, Park, Word};
use crate::sys::{Guarded, Os};
use crate::thread::Registry;
use crate::vmalloc::{Site, Vmalloc};
use crate::zone::{Caller, Zone};
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use std::alloc::Layout;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;

/// Runs `run` in every interleaving within loom's bounds, and says how many there were.
pub(crate) fn check(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    // A run of the whole heap is long; one without end still ends here.
    builder.max_branches = builder.max_branches.max(10_000);
    // Loom looks at its clock once in so many runs.
    builder.checkpoint_interval = builder.checkpoint_interval.min(1000);
    let (started, runs) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let (limit, counted) = (builder.max_duration, runs.clone());
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        run();
    });
    let (runs, time) = (runs.load(Relaxed), started.elapsed());
    let cut = limit.is_some_and(|limit| time >= limit);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!(
        "{name}: {runs} runs in {time:.1?}, {}",
        if cut { "cut short by LOOM_MAX_DURATION" } else { "to the end" }
    );
}

/// A cell that stands for memory.
struct Watched(UnsafeCell<u32>);
// SAFETY: whether its users are ordered is what loom checks.
unsafe impl Sync for Watched {}
// SAFETY: as above.
unsafe impl Send for Watched {}

struct Mapping {
    start: usize,
    len: usize,
    /// It counts as address space.
    reserved: bool,
    watched: Arc<Watched>,
}

/// A system of one block, whose addresses the table can tell apart. What was unmapped is not handed out again.
pub(crate) struct Memory {
    block: NonNull<u8>,
    next: AtomicUsize,
    mappings: std::sync::Mutex<Vec<Mapping>>,
    /// How many bytes at most can still be reserved.
    reservable: AtomicUsize,
    keeps: AtomicBool,
    futex: Futex,
    touched: std::sync::Mutex<HashMap<usize, Arc<Watched>>>,
    /// What was last said of huge pages by where it begins; `None`: such advice is refused.
    advised: loom::sync::Mutex<Option<HashMap<usize, bool>>>,
}

const BLOCK: Layout = match Layout::from_size_align(1 << ADDRESS_BITS, 1 << ADDRESS_BITS) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

// SAFETY: the block is handed out piece by piece; its users answer for what they do there.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> Self {
        // SAFETY: the block has a length.
        let block = unsafe { std::alloc::alloc_zeroed(BLOCK) };
        Self {
            block: NonNull::new(block).expect("memory for a model"),
            next: AtomicUsize::new(0),
            mappings: std::sync::Mutex::default(),
            reservable: AtomicUsize::new(usize::MAX),
            keeps: AtomicBool::new(false),
            futex: Futex::new(),
            touched: std::sync::Mutex::default(),
            advised: loom::sync::Mutex::new(None),
        }
    }

    /// From now on advice about huge pages is taken.
    fn takes_advice(&self) {
        *self.advised.lock().unwrap() = Some(HashMap::new());
    }

    /// Whether it was last said that what begins there is to be huge.
    fn is_huge(&self, address: usize) -> bool {
        self.advised.lock().unwrap().as_ref().is_some_and(|advised| advised.get(&address) == Some(&true))
    }

    /// From now on no more than `bytes` bytes can be reserved.
    fn reservable(&self, bytes: usize) {
        self.reservable.store(bytes, Relaxed);
    }

    /// From now on the system takes back nothing.
    fn keeps_everything(&self) {
        self.keeps.store(true, Relaxed);
    }

    fn watched(&self, address: usize) -> Arc<Watched> {
        let mappings = self.mappings.lock().unwrap();
        let found = mappings.iter().find(|m| (m.start..m.start + m.len).contains(&address));
        found.expect("memory that is mapped").watched.clone()
    }

    fn place(&self, len: usize, reserved: bool) -> Option<NonNull<u8>> {
        // Windows of the address table are as long as a chunk: what is entered there begins one.
        let align = if len >= crate::config::CHUNK_SIZE { crate::config::CHUNK_SIZE } else { 64 };
        let start = self.next.load(Relaxed).next_multiple_of(align);
        assert!(start + len <= BLOCK.size(), "a model needs more memory than it has");
        self.next.store(start + len, Relaxed);
        // SAFETY: inside the block.
        let ptr = unsafe { self.block.add(start) };
        let watched = Arc::new(Watched(UnsafeCell::new(0)));
        self.mappings.lock().unwrap().push(Mapping { start: ptr.as_ptr() as usize, len, reserved, watched });
        Some(ptr)
    }

    /// Writes to memory, as its owner does.
    fn touch(&self, address: usize) {
        let cell = {
            let mut touched = self.touched.lock().unwrap();
            touched.entry(address).or_insert_with(|| Arc::new(Watched(UnsafeCell::new(0)))).clone()
        };
        // SAFETY: loom fails the model if anybody else is here.
        cell.0.with_mut(|value| unsafe { *value += 1 });
    }

    /// What was touched of a range.
    fn touched_in(&self, start: usize, len: usize) -> Vec<usize> {
        let mut touched: Vec<_> = self.touched.lock().unwrap().keys().copied().collect();
        touched.retain(|address| (start..start + len).contains(address));
        touched.sort_unstable(); // a model does the same each time
        touched
    }

    /// Reads mapped memory: loom fails the model if it may be unmapped at the same time.
    fn look(&self, address: NonNull<u8>) {
        self.watched(address.as_ptr() as usize).0.with(|_| ());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the world ends.
        unsafe { std::alloc::dealloc(self.block.as_ptr(), BLOCK) };
    }
}

impl Park for Memory {
    fn wait(&self, word: &Word, expected: u32) {
        self.futex.wait(word, expected);
    }
    fn wait_for(&self, word: &Word, expected: u32, millis: u32) {
        self.futex.wait_for(word, expected, millis);
    }
    // All sleepers: there is one condition variable for the locks of a world, and waking too many is allowed.
    fn wake_one(&self, word: &Word) {
        self.futex.wake_all(word);
    }
    fn wake_all(&self, word: &Word) {
        self.futex.wake_all(word);
    }
    fn nap(&self) {
        self.futex.nap();
    }
    fn current(&self) -> usize {
        self.futex.current()
    }
}

// SAFETY: every piece of the block is handed out once, and it holds zeros.
unsafe impl Os for Memory {
    fn page_size(&self) -> usize {
        64
    }
    fn cpus(&self) -> usize {
        2
    }
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        self.place(len, false)
    }
    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        let left = self.reservable.load(Relaxed).checked_sub(len)?;
        self.reservable.store(left, Relaxed);
        self.place(len, true)
    }
    unsafe fn commit(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }
    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        if self.keeps.load(Relaxed) {
            return false;
        }
        let address = ptr.as_ptr() as usize;
        self.watched(address).0.with_mut(|_| ());
        // Loom's atomics in there are none any more: whoever uses one of them fails the model.
        // SAFETY: by contract nobody uses it.
        unsafe { ptr.as_ptr().write_bytes(0x5a, len) };
        let mut mappings = self.mappings.lock().unwrap();
        if mappings.iter().any(|m| m.start == address && m.reserved) {
            self.reservable.fetch_add(len, Relaxed);
        }
        mappings.retain(|m| m.start != address);
        true
    }
    unsafe fn advise_huge(&self, ptr: NonNull<u8>, _: usize, huge: bool) -> bool {
        let mut advised = self.advised.lock().unwrap();
        if let Some(advised) = &mut *advised {
            advised.insert(ptr.as_ptr() as usize, huge);
        }
        advised.is_some()
    }

    unsafe fn populate(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }

    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.touched_in(ptr.as_ptr() as usize, len).into_iter().for_each(|address| self.touch(address));
        // SAFETY: by contract nobody needs the content.
        unsafe { ptr.as_ptr().write_bytes(0, len) };
        true
    }
    unsafe fn resize(&self, _: NonNull<u8>, _: usize, _: usize) -> bool {
        false
    }
    unsafe fn relocate(&self, _: NonNull<u8>, _: usize, _: usize) -> Option<NonNull<u8>> {
        None
    }
    unsafe fn guard(&self, _: NonNull<u8>, _: usize) -> Option<Guarded> {
        None
    }
    unsafe fn unguard(&self, _: NonNull<u8>, _: usize, _: Guarded) -> bool {
        false
    }
    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &core::ffi::CStr) -> bool {
        false
    }
    fn resident(&self, _: NonNull<u8>, _: usize) -> Option<usize> {
        None
    }
    fn read(&self, _: &core::ffi::CStr, _: &mut [u8]) -> Option<usize> {
        None
    }
    fn yield_now(&self) {
        loom::thread::yield_now();
    }
    fn now(&self) -> u64 {
        0
    }
}

/// A scheme that destroys what was retired as soon as nobody is protected at all.
struct Fake {
    state: loom::sync::Mutex<(usize, Vec<Garbage>)>,
}

impl Fake {
    fn new() -> Self {
        Self { state: loom::sync::Mutex::new((0, Vec::new())) }
    }

    fn destroy(garbage: Vec<Garbage>) {
        for Garbage { destroy, context, object } in garbage {
            // SAFETY: who retired it has promised it, and nobody is protected.
            unsafe { destroy(context, object) };
        }
    }
}

// SAFETY: the pointers in the garbage are handed on under the lock.
unsafe impl Sync for Fake {}

// SAFETY: what is retired while somebody is protected waits until nobody is.
unsafe impl Reclaim for Fake {
    unsafe fn protect(&self, _: &Slot, read: &mut dyn FnMut()) -> bool {
        self.state.lock().unwrap().0 += 1;
        read();
        let garbage = {
            let mut state = self.state.lock().unwrap();
            state.0 -= 1;
            if state.0 == 0 {
                core::mem::take(&mut state.1)
            } else {
                Vec::new()
            }
        };
        Self::destroy(garbage);
        true
    }
    unsafe fn retire(&self, _: &Slot, garbage: Garbage) -> bool {
        let now = {
            let mut state = self.state.lock().unwrap();
            if state.0 > 0 {
                state.1.push(garbage);
                return true;
            }
            vec![garbage]
        };
        Self::destroy(now);
        true
    }
    unsafe fn collect(&self, _: &Slot) {}
    unsafe fn leave(&self, _: &Slot) {}
}

/// The layers, and the system under them.
struct World {
    memory: Memory,
    reclaim: Fake,
    zone: Zone,
    caches: Caches,
    registry: Registry,
    vmalloc: Vmalloc,
}

// SAFETY: every part is made for sharing.
unsafe impl Sync for World {}

impl World {
    fn new() -> Self {
        Self {
            memory: Memory::new(),
            reclaim: Fake::new(),
            zone: Zone::new(),
            caches: Caches::new(),
            registry: Registry::new(),
            vmalloc: Vmalloc::new(),
        }
    }

    /// A caller that has a slot, and so can be protected.
    fn caller(&'static self, slot: &'static Slot) -> Caller<'static> {
        Caller { slot: Some(slot), ..self.stranger() }
    }

    /// A caller without a slot: it walks under the lock.
    fn stranger(&'static self) -> Caller<'static> {
        Caller { os: &self.memory, reclaim: Some(&self.reclaim), slot: None, urgency: Urgency::Usual }
    }

    /// A caller of a heap without any scheme.
    fn alone(&'static self) -> Caller<'static> {
        Caller { os: &self.memory, reclaim: None, slot: None, urgency: Urgency::Usual }
    }

    fn ground(&'static self) -> Ground {
        Ground { os: &self.memory, counter: &self.zone.counter, huge: &self.zone.huge }
    }

    fn site(&self) -> Site<'_> {
        let Zone { kept, table, counter, huge, .. } = &self.zone;
        Site { os: &self.memory, kept, table, counter, huge, urgency: Urgency::Usual }
    }

    /// Writes to memory, as its owner does.
    fn touch(&self, address: usize) {
        self.memory.touch(address);
    }

    fn arenas(&'static self) -> usize {
        let mut n = 0;
        self.zone.each_arena(self.alone(), &mut |_| {
            n += 1;
            true
        });
        n
    }

    /// Checks all layers, when so many pages must be free and nothing is left to others.
    fn rest(&'static self, free: usize) {
        let (mut pages, mut result) = (0, Ok(()));
        self.zone.each_arena(self.alone(), &mut |arena| {
            pages += arena.buddy().free_pages().0;
            self.memory.look(arena.base());
            result = result.and_then(|()| arena.validate());
            true
        });
        result.unwrap();
        assert_eq!(pages, free, "pages were lost, or won");
        self.caches.validate(self.alone(), |_, _| Ok(())).unwrap();
        self.vmalloc.validate(&self.memory).unwrap();
    }
}

/// Something that lives as long as one run of a model.
fn for_this_run<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// # Safety
/// It came from `for_this_run`, and nobody uses it any more.
unsafe fn end_of_run<T>(value: &'static T) {
    // SAFETY: by contract.
    drop(unsafe { Box::from_raw(core::ptr::from_ref(value).cast_mut()) });
}

type Step = fn(&'static World, &[usize]) -> usize;

/// Runs every interleaving: `prepare` alone, then the threads at once, each with what `prepare` returned; then `end`
/// with what each thread returned.
fn model<const THREADS: usize>(
    prepare: fn(&'static World) -> Vec<usize>,
    threads: [Step; THREADS],
    end: fn(&'static World, &[usize], [usize; THREADS]),
) {
    check(move || {
        let world = for_this_run(World::new());
        let prepared: &'static Vec<usize> = for_this_run(prepare(world));
        let threads = threads.map(|run| loom::thread::spawn(move || run(world, prepared)));
        let results = threads.map(|thread| thread.join().unwrap());
        end(world, prepared, results);
        // SAFETY: all threads have ended.
        unsafe { end_of_run(prepared) };
        // SAFETY: as above.
        unsafe { end_of_run(world) };
    });
}

/// Runs `run` with a slot of the calling thread.
fn with_slot<R>(run: impl FnOnce(&'static Slot) -> R) -> R {
    let slot = for_this_run(Slot::new());
    let result = run(slot);
    // SAFETY: its thread is done with it; the scheme here keeps nothing in it.
    unsafe { end_of_run(slot) };
    result
}
