//! A heap of its own as a subject: several thread blocks, all used by one thread in turn, on a system that refuses
//! calls as planned and remembers what it handed out. When the heap goes, everything that is left is unmapped, so a
//! million heaps can follow each other in a process.

use super::{Placing, Subject};
use allocator_core::heap::{Heap, Parts, Stats};
use allocator_core::huge::HugePages;
use allocator_core::page_counter::Limits;
use allocator_core::reclaim::{Epoch, Reclaim};
use allocator_core::sync::Park;
use allocator_core::sys::{Call, FaultyOs, Guarded, Os, Plan, Unix};
use allocator_core::thread::Thread;
use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lanes of an instance.
const LANES: usize = 4;
/// Processors that the system says it has, so that the shards are the same on every machine.
const CPUS: usize = 3;

/// A system that knows what is mapped.
pub struct Tracked {
    inner: Placing,
    mappings: Mutex<Mappings>,
}

#[derive(Default)]
struct Mappings {
    /// The end of each by its start.
    ends: BTreeMap<usize, usize>,
    /// What was asked for and must not be.
    wrong: Option<String>,
}

impl Mappings {
    fn add(&mut self, ptr: NonNull<u8>, len: usize) {
        self.ends.insert(ptr.as_ptr() as usize, ptr.as_ptr() as usize + len);
    }

    /// True if every byte of the range is mapped.
    fn has(&self, start: usize, end: usize) -> bool {
        let mut at = start;
        while at < end {
            match self.ends.range(..=at).next_back() {
                Some((_, e)) if *e > at => at = *e,
                _ => return false,
            }
        }
        true
    }

    fn expect(&mut self, call: &str, ptr: NonNull<u8>, len: usize) {
        let start = ptr.as_ptr() as usize;
        if !self.has(start, start + len) && self.wrong.is_none() {
            self.wrong = Some(format!("{call} of {len} bytes at {ptr:p}, which are not all mapped"));
        }
    }

    fn remove(&mut self, ptr: NonNull<u8>, len: usize) {
        let (start, end) = (ptr.as_ptr() as usize, ptr.as_ptr() as usize + len);
        while let Some((s, e)) = self.ends.range(..end).next_back().map(|(s, e)| (*s, *e)) {
            if e <= start {
                break;
            }
            self.ends.remove(&s);
            if s < start {
                self.ends.insert(s, start);
            }
            if end < e {
                self.ends.insert(end, e);
            }
        }
    }
}

impl Tracked {
    fn mappings(&self) -> MutexGuard<'_, Mappings> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Park for Tracked {
    fn wait(&self, word: &AtomicU32, expected: u32) {
        if !waits::yields() {
            self.inner.wait(word, expected);
        }
    }
    fn wait_for(&self, word: &AtomicU32, expected: u32, millis: u32) {
        if !waits::yields() {
            self.inner.wait_for(word, expected, millis);
        }
    }
    // Under a scheduler nobody sleeps: a wait returns for no reason, as it may.
    fn wake_one(&self, word: &AtomicU32) {
        self.inner.wake_one(word);
    }
    fn wake_all(&self, word: &AtomicU32) {
        self.inner.wake_all(word);
    }
    fn nap(&self) {
        if !waits::yields() {
            self.inner.nap();
        }
    }
    fn current(&self) -> usize {
        waits::current().unwrap_or_else(|| self.inner.current())
    }
}

/// Who decides which thread runs: the kernel, or a scheduler of our own (`schedules`).
#[cfg(feature = "schedules")]
use crate::schedules as waits;
#[cfg(not(feature = "schedules"))]
mod waits {
    pub(super) fn yields() -> bool {
        false
    }
    pub(super) fn current() -> Option<usize> {
        None
    }
}

// SAFETY: every answer is the inner system's, but for the number of processors.
unsafe impl Os for Tracked {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }
    fn cpus(&self) -> usize {
        CPUS
    }
    // The lock is held over the call: what one thread unmaps another may map before this is noted.
    fn map(&self, len: usize) -> Option<NonNull<u8>> {
        let mut mappings = self.mappings();
        self.inner.map(len).inspect(|ptr| mappings.add(*ptr, len))
    }
    fn reserve(&self, len: usize) -> Option<NonNull<u8>> {
        let mut mappings = self.mappings();
        self.inner.reserve(len).inspect(|ptr| mappings.add(*ptr, len))
    }
    unsafe fn commit(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.mappings().expect("commit", ptr, len);
        // SAFETY: by contract.
        unsafe { self.inner.commit(ptr, len) }
    }
    unsafe fn unmap(&self, ptr: NonNull<u8>, len: usize) -> bool {
        let mut mappings = self.mappings();
        mappings.expect("unmap", ptr, len);
        // SAFETY: by contract.
        let done = unsafe { self.inner.unmap(ptr, len) };
        if done {
            mappings.remove(ptr, len);
        }
        done
    }
    unsafe fn discard(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.mappings().expect("discard", ptr, len);
        // SAFETY: by contract.
        unsafe { self.inner.discard(ptr, len) }
    }
    unsafe fn advise_huge(&self, ptr: NonNull<u8>, len: usize, huge: bool) -> bool {
        self.mappings().expect("advise_huge", ptr, len);
        // SAFETY: by contract.
        unsafe { self.inner.advise_huge(ptr, len, huge) }
    }
    unsafe fn populate(&self, ptr: NonNull<u8>, len: usize) -> bool {
        self.mappings().expect("populate", ptr, len);
        // SAFETY: by contract.
        unsafe { self.inner.populate(ptr, len) }
    }
    unsafe fn resize(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> bool {
        let mut mappings = self.mappings();
        mappings.expect("resize", ptr, len);
        // SAFETY: by contract.
        let done = unsafe { self.inner.resize(ptr, len, new_len) };
        if done {
            mappings.remove(ptr, len);
            mappings.add(ptr, new_len);
        }
        done
    }
    unsafe fn relocate(&self, ptr: NonNull<u8>, len: usize, new_len: usize) -> Option<NonNull<u8>> {
        let mut mappings = self.mappings();
        mappings.expect("relocate", ptr, len);
        // SAFETY: by contract.
        let to = unsafe { self.inner.relocate(ptr, len, new_len) }?;
        mappings.remove(ptr, len);
        mappings.add(to, new_len);
        Some(to)
    }
    unsafe fn guard(&self, ptr: NonNull<u8>, len: usize) -> Option<Guarded> {
        // SAFETY: the caller's contract is the callee's.
        unsafe { self.inner.guard(ptr, len) }
    }

    unsafe fn unguard(&self, ptr: NonNull<u8>, len: usize, guarded: Guarded) -> bool {
        // SAFETY: the caller's contract is the callee's.
        unsafe { self.inner.unguard(ptr, len, guarded) }
    }

    unsafe fn name(&self, ptr: NonNull<u8>, len: usize, name: &core::ffi::CStr) -> bool {
        // SAFETY: the caller's contract is the callee's.
        unsafe { self.inner.name(ptr, len, name) }
    }

    fn resident(&self, ptr: NonNull<u8>, len: usize) -> Option<usize> {
        self.mappings().expect("resident", ptr, len);
        self.inner.resident(ptr, len)
    }

    fn written(&self, ptr: NonNull<u8>, len: usize, show: &mut dyn FnMut(NonNull<u8>, usize)) -> usize {
        self.mappings().expect("written", ptr, len);
        self.inner.written(ptr, len, show)
    }

    fn read(&self, path: &core::ffi::CStr, into: &mut [u8]) -> Option<usize> {
        self.inner.read(path, into)
    }
    fn yield_now(&self) {
        if !waits::yields() {
            self.inner.yield_now();
        }
    }
    fn now(&self) -> u64 {
        self.inner.now()
    }
}

/// What a lane has.
#[derive(Clone, Copy)]
enum Lane {
    /// Nothing yet; it asks for a block at its next call.
    Fresh,
    /// A thread block.
    Live(&'static Thread),
    /// It has ended: what it still asks for is served without a cache.
    Ended,
}

/// Everything that `stays` made and that is not yet freed: reachable, so that a leak checker can tell it from what was
/// lost.
static STAYS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// A value that stays until it is given to `goes`, or for ever.
fn stays<T>(value: T) -> &'static T {
    let value: &'static T = Box::leak(Box::new(value));
    STAYS.lock().unwrap_or_else(PoisonError::into_inner).insert(std::ptr::from_ref(value) as usize);
    #[cfg(test)]
    tests::STAYING.set(tests::STAYING.get() + 1);
    value
}

/// Frees what `stays` made.
///
/// # Safety
/// Nobody uses it any more.
unsafe fn goes<T>(value: *const T) {
    STAYS.lock().unwrap_or_else(PoisonError::into_inner).remove(&(value as usize));
    #[cfg(test)]
    tests::STAYING.set(tests::STAYING.get() - 1);
    // SAFETY: from `Box::leak`, and by contract the last use.
    drop(unsafe { Box::from_raw(value.cast_mut()) });
}

/// A heap of its own. It is unmapped when it is dropped, provided that it was finished.
pub struct Instance {
    /// All three are freed by `drop`, and until then shared only with each other and with the lanes.
    os: &'static FaultyOs<Tracked>,
    parts: &'static Parts,
    heap: &'static Heap,
    lanes: Vec<Lane>,
    /// Nothing is out, and nothing was asked for since that was proved.
    finished: bool,
}

thread_local! {
    /// One scheme for all instances of a thread, since it has no end: nothing of a heap stays behind in it, because
    /// nobody else is protected while the heap retires something.
    static EPOCH: &'static Epoch = stays(Epoch::beside());
}

impl Instance {
    /// An empty heap; with crossbeam-epoch, or walking its arenas under a lock.
    pub fn new(with_epoch: bool, placing: Placing) -> Self {
        Self::watched(with_epoch, placing, LANES, None)
    }

    /// As [`Instance::new`], with this many lanes, and `watcher` told of every call that is refused.
    pub fn watched(with_epoch: bool, placing: Placing, lanes: usize, watcher: Option<fn(Call, u64)>) -> Self {
        let os = stays(FaultyOs::watched(Tracked { inner: placing, mappings: Mutex::default() }, watcher));
        let scheme = with_epoch.then(|| EPOCH.with(|epoch| *epoch as &dyn Reclaim));
        let parts = stays(Parts::new());
        // SAFETY: the parts are this heap's.
        let heap = stays(unsafe { Heap::new(os, scheme, parts) });
        Self { os, parts, heap, lanes: vec![Lane::Fresh; lanes], finished: false }
    }

    /// The system, to plan and count its refusals.
    pub fn os(&self) -> &'static FaultyOs<Tracked> {
        self.os
    }

    /// The heap, for other threads as well.
    ///
    /// # Safety
    /// It is not used any more when the instance is finished.
    pub unsafe fn heap(&mut self) -> &'static Heap {
        self.finished = false;
        self.heap
    }

    /// That every byte which the system gave and did not get back is an arena's, an area's, kept, or the heap's own.
    fn account(&self) -> Result<(), String> {
        let stats = self.heap.stats(None);
        let known = stats.reserved + stats.area_bytes + stats.kept + stats.own;
        let mappings = self.os.inner().mappings().ends.iter().map(|(start, end)| end - start).sum::<usize>();
        let mapped = self.os.mapped();
        if (mapped, mapped) != (known, mappings) {
            return Err(format!(
                "{mapped} bytes are mapped, in mappings of {mappings}; of {known} the heap knows: {stats:?}"
            ));
        }
        Ok(())
    }

    fn thread(&mut self, lane: usize) -> Option<&'static Thread> {
        self.finished = false;
        if let Lane::Fresh = self.lanes[lane] {
            if let Some(thread) = self.heap.attach() {
                self.lanes[lane] = Lane::Live(thread);
            }
        }
        match self.lanes[lane] {
            Lane::Live(thread) => Some(thread),
            Lane::Fresh | Lane::Ended => None,
        }
    }
}

impl Subject for Instance {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }
    fn alloc(&mut self, lane: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        let thread = self.thread(lane);
        match zeroed {
            // SAFETY: the block is this lane's, and all lanes are this thread.
            true => unsafe { self.heap.alloc_zeroed(thread, layout) },
            // SAFETY: as above.
            false => unsafe { self.heap.alloc(thread, layout) },
        }
        .ok()
    }
    unsafe fn realloc(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let thread = self.thread(lane);
        // SAFETY: the block is this lane's; the rest by contract.
        unsafe { self.heap.realloc(thread, ptr, layout, size) }.ok()
    }
    unsafe fn free(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout) {
        let thread = self.thread(lane);
        // SAFETY: the block is this lane's; the rest by contract.
        unsafe { self.heap.free(thread, ptr, layout) };
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        self.heap.owns(ptr.as_ptr() as usize)
    }
    fn attach(&mut self, lane: usize) {
        if let Lane::Ended = self.lanes[lane] {
            self.lanes[lane] = Lane::Fresh;
        }
    }
    fn detach(&mut self, lane: usize) {
        if let Lane::Live(thread) = std::mem::replace(&mut self.lanes[lane], Lane::Ended) {
            // SAFETY: the block was this lane's, which has forgotten it.
            unsafe { self.heap.detach(thread) };
        }
    }
    fn reclaim(&mut self, lane: usize) {
        let thread = self.thread(lane);
        // SAFETY: the block is this lane's.
        unsafe { self.heap.reclaim(thread) };
    }
    fn tick(&mut self, lane: usize) {
        let thread = self.thread(lane);
        // SAFETY: the block is this lane's.
        unsafe { self.heap.tick(thread) };
    }
    fn set(&mut self, what: u8, value: u16) {
        let value = usize::from(value);
        let thread = self.thread(0);
        match what % 9 {
            few @ 0..=1 => {
                let more = value << [10, 14][usize::from(few)];
                let limits = Limits::of(self.heap.counter().usage() + more);
                // More may be in use than that: an error, and nothing changes.
                // SAFETY: the block is this lane's.
                let _ = unsafe { self.heap.set_limits(thread, limits) };
            }
            // SAFETY: as above.
            2 => unsafe { self.heap.set_limits(thread, Limits::default()) }.expect("no limit is too low"),
            3 => _ = self.heap.set_watermarks(Some(value << 8), Some(value << 9)),
            4 => self.heap.set_guard_pages(value % 2 == 1),
            5 => self.heap.set_huge_pages([HugePages::Auto, HugePages::Never, HugePages::Always][value % 3]),
            6 => self.heap.set_sparse_zeros(value % 2 == 1),
            7 => self.heap.set_cgroup(value % 2 == 1),
            _ => self.heap.set_purge_after(thread, [None, Some(0), Some(1000)][value % 3]),
        }
    }
    fn validate(&mut self) -> Option<Result<Stats, &'static str>> {
        let mut live =
            self.lanes.iter().filter_map(|lane| if let Lane::Live(thread) = lane { Some(*thread) } else { None });
        // One at least, for what is not of a thread.
        let checked = self.heap.validate(live.next()).and_then(|()| live.try_for_each(|t| self.heap.validate(Some(t))));
        Some(checked.map(|()| self.heap.stats(None)))
    }
    fn fail(&mut self, plan: Plan) {
        self.os.plan(plan);
    }
    fn refused(&self) -> u64 {
        self.os.refused() + self.heap.counter().failures()
    }
    fn finish(&mut self) -> Result<(), String> {
        self.os.plan(Plan::Never);
        self.set(2, 0);
        (0..self.lanes.len()).for_each(|lane| self.detach(lane));
        self.attach(0);
        self.reclaim(0); // destroys what was retired as well
        let Lane::Live(thread) = self.lanes[0] else { return Err("no thread block, though no call fails".to_owned()) };
        self.heap.audit(Some(thread))?;
        self.detach(0);
        self.account()?;
        self.lanes.fill(Lane::Fresh);
        if let Some(wrong) = self.os.inner().mappings().wrong.take() {
            return Err(wrong);
        }
        self.finished = true;
        Ok(())
    }
}

/// A thread as a subject: it has one lane, and the heap of an instance that others use as well.
pub struct Visitor {
    os: &'static FaultyOs<Tracked>,
    heap: &'static Heap,
    thread: Option<&'static Thread>,
}

impl Visitor {
    /// Without a block yet.
    pub fn new(heap: &'static Heap, os: &'static FaultyOs<Tracked>) -> Self {
        Self { os, heap, thread: None }
    }

    /// Stops all others outside the heap for a moment, as a fork does: then it must be whole.
    pub fn stop_the_others(&self) -> Result<(), &'static str> {
        self.heap.before_fork(self.thread, false);
        let whole = self.heap.validate(self.thread);
        // SAFETY: this thread called `before_fork`.
        unsafe { self.heap.after_fork_in_parent() };
        whole
    }

    fn thread(&mut self) -> Option<&'static Thread> {
        if self.thread.is_none() {
            self.thread = self.heap.attach();
        }
        self.thread
    }
}

impl Subject for Visitor {
    fn lanes(&self) -> usize {
        1
    }
    fn alloc(&mut self, _: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        let thread = self.thread();
        match zeroed {
            // SAFETY: the block is the calling thread's.
            true => unsafe { self.heap.alloc_zeroed(thread, layout) },
            // SAFETY: as above.
            false => unsafe { self.heap.alloc(thread, layout) },
        }
        .ok()
    }
    unsafe fn realloc(&mut self, _: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let thread = self.thread();
        // SAFETY: the block is the calling thread's; the rest by contract.
        unsafe { self.heap.realloc(thread, ptr, layout, size) }.ok()
    }
    unsafe fn free(&mut self, _: usize, ptr: NonNull<u8>, layout: Layout) {
        let thread = self.thread();
        // SAFETY: the block is the calling thread's; the rest by contract.
        unsafe { self.heap.free(thread, ptr, layout) };
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        self.heap.owns(ptr.as_ptr() as usize)
    }
    fn attach(&mut self, _: usize) {}
    fn detach(&mut self, _: usize) {
        if let Some(thread) = self.thread.take() {
            // SAFETY: the block is the calling thread's, and it has forgotten it.
            unsafe { self.heap.detach(thread) };
        }
    }
    fn reclaim(&mut self, _: usize) {
        let thread = self.thread();
        // SAFETY: the block is the calling thread's.
        unsafe { self.heap.reclaim(thread) };
    }
    fn tick(&mut self, _: usize) {
        let thread = self.thread();
        // SAFETY: the block is the calling thread's.
        unsafe { self.heap.tick(thread) };
    }
    fn validate(&mut self) -> Option<Result<Stats, &'static str>> {
        None
    }
    fn fail(&mut self, _: Plan) {}
    fn refused(&self) -> u64 {
        self.os.refused() + self.heap.counter().failures()
    }
    fn finish(&mut self) -> Result<(), String> {
        self.detach(0);
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.finished {
            return; // blocks are out, or worse: it stays
        }
        let heap: *const Heap = self.heap;
        let parts: *const Parts = self.parts;
        // SAFETY: it is finished: nothing is out, lanes are detached, and what was retired is destroyed.
        unsafe { goes(heap) };
        // SAFETY: only the heap had them.
        unsafe { goes(parts) };
        let left = std::mem::take(&mut self.os.inner().mappings().ends);
        for (start, end) in left {
            let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(start)).expect("a mapping is not at zero");
            // SAFETY: a mapping of the heap, which is no more.
            unsafe { Unix.unmap(ptr, end - start) };
        }
        let os: *const FaultyOs<Tracked> = self.os;
        // SAFETY: only the heap had it.
        unsafe { goes(os) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// What this thread has made to stay and not freed.
        pub(super) static STAYING: Cell<isize> = const { Cell::new(0) };
    }

    #[test]
    fn an_instance_that_is_finished_leaves_nothing() {
        let use_one = || {
            let mut instance = Instance::new(true, Placing::Aligned);
            let layout = Layout::new::<[u64; 6]>();
            let block = instance.alloc(0, layout, false).unwrap();
            // SAFETY: just allocated.
            unsafe { instance.free(0, block, layout) };
            instance.finish().unwrap();
        };
        use_one(); // the scheme of this thread stays
        let before = STAYING.get();
        use_one();
        assert_eq!(STAYING.get(), before);
    }
}
