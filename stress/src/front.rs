//! Front: the heaps that the shapes of load are driven against, each shared by all threads of a run.
//!
//! The process' own global allocator is the system's, and Kmalloc is driven as a value, so what the program keeps for
//! itself (queues, the map of claims) never comes from the heap that is on trial.

use crate::ops::{Direct, Subject};
use crate::Violation;
use allocator_core::heap::{Heap, Parts, Stats};
use allocator_core::reclaim::Epoch;
use allocator_core::slabinfo::{BuddyInfo, SlabInfo};
use allocator_core::sys::{FaultyOs, Plan, Unix};
use allocator_core::thread::Thread;
use allocator_global::Kmalloc;
use clap::ValueEnum;
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Once;

/// What is under the heap, and so which heap it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// `Kmalloc` as programs use it.
    Real,
    /// A heap of the same parts on a system that refuses one call in ten.
    Storm,
    /// A heap of the same parts on a system that gives no more than 160 MiB.
    Edge,
}

impl System {
    /// All of them.
    pub const ALL: [System; 3] = [System::Real, System::Storm, System::Edge];

    /// The heap on it.
    pub fn front(self) -> &'static dyn Front {
        match self {
            System::Real => &Process,
            System::Storm | System::Edge => &Beside,
        }
    }

    /// From now on the system is like this. `seed` says which calls are refused.
    pub(crate) fn begin(self, seed: u64) {
        match self {
            System::Real => {}
            System::Storm => OS.plan(Plan::OneIn(10, seed)),
            System::Edge => {
                OS.plan(Plan::Never);
                OS.limit(EDGE);
            }
        }
    }

    /// From now on the system serves everything.
    pub(crate) fn end(self) {
        OS.plan(Plan::Never);
        OS.limit(usize::MAX);
    }
}

/// Address space at the capacity edge.
const EDGE: usize = 160 << 20;

/// A heap that any number of threads use at the same time.
pub trait Front: Sync {
    /// Allocates; `None` is a refusal.
    fn alloc(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>>;
    /// Changes the size of a block. On a refusal it is as it was.
    ///
    /// # Safety
    /// As for [`Subject::realloc`].
    unsafe fn realloc(&self, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>>;
    /// Frees a block.
    ///
    /// # Safety
    /// As for [`Subject::free`].
    unsafe fn free(&self, ptr: NonNull<u8>, layout: Layout);
    /// Whether the heap says that it handed this out.
    fn owns(&self, ptr: NonNull<u8>) -> bool;
    /// Gives back what is free.
    fn reclaim(&self);
    /// System calls refused so far.
    fn refused(&self) -> u64;
    /// Figures.
    fn stats(&self) -> Stats;
    /// The reports, as text.
    fn reports(&self) -> [String; 2];
    /// Proves that the heap is valid and empty, when no other thread has blocks or caches.
    fn audit(&self) -> Result<(), &'static str>;
}

/// One thread's way to a heap that all share.
#[derive(Clone, Copy)]
pub struct Shared(pub &'static dyn Front);

impl Subject for Shared {
    fn lanes(&self) -> usize {
        1
    }
    fn alloc(&mut self, _: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        self.0.alloc(layout, zeroed)
    }
    unsafe fn realloc(&mut self, _: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: by contract.
        unsafe { self.0.realloc(ptr, layout, size) }
    }
    unsafe fn free(&mut self, _: usize, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: by contract.
        unsafe { self.0.free(ptr, layout) };
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        self.0.owns(ptr)
    }
    // A lane begins and ends with its thread.
    fn attach(&mut self, _: usize) {}
    fn detach(&mut self, _: usize) {}
    fn reclaim(&mut self, _: usize) {
        self.0.reclaim();
    }
    // What cannot be said while others use the heap is not asked.
    fn validate(&mut self) -> Option<Result<Stats, &'static str>> {
        None
    }
    fn fail(&mut self, _: Plan) {}
    fn refused(&self) -> u64 {
        self.0.refused()
    }
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The heap of the process: `Kmalloc`, with the fast path that programs have.
struct Process;

impl Front for Process {
    fn alloc(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        Direct.alloc(0, layout, zeroed)
    }
    unsafe fn realloc(&self, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: by contract.
        unsafe { Direct.realloc(0, ptr, layout, size) }
    }
    unsafe fn free(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: by contract.
        unsafe { Direct.free(0, ptr, layout) };
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        Kmalloc::owns(ptr.as_ptr())
    }
    fn reclaim(&self) {
        Kmalloc::reclaim();
    }
    fn refused(&self) -> u64 {
        0
    }
    fn stats(&self) -> Stats {
        Kmalloc::stats()
    }
    fn reports(&self) -> [String; 2] {
        [Kmalloc::slabinfo().to_string(), Kmalloc::buddyinfo().to_string()]
    }
    fn audit(&self) -> Result<(), &'static str> {
        Kmalloc::reclaim();
        Kmalloc::validate()?;
        Kmalloc::audit()
    }
}

static OS: FaultyOs<Unix> = FaultyOs::new(Unix);
static EPOCH: Epoch = Epoch::beside();
static PARTS: Parts = Parts::new();
// SAFETY: no other heap has its parts.
static HEAP: Heap = unsafe { Heap::new(&OS, Some(&EPOCH), &PARTS) };

/// The calling thread's block of `HEAP`; given back when the thread ends.
struct Attached(Cell<Option<&'static Thread>>);

thread_local!(static THREAD: Attached = const { Attached(Cell::new(None)) });

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // SAFETY: the calling thread's block, which nothing names any more.
            unsafe { HEAP.detach(thread) };
        }
    }
}

/// A second heap of the same parts, whose system can be told to refuse.
struct Beside;

impl Beside {
    /// The calling thread's block; `None` if none can be had now, or the thread is about to end.
    fn thread() -> Option<&'static Thread> {
        let attached = |own: &Attached| {
            if own.0.get().is_none() {
                own.0.set(HEAP.attach());
            }
            own.0.get()
        };
        THREAD.try_with(attached).ok().flatten()
    }
}

/// What `allocator-global` does for the heap of the process: a fork waits until nobody is in the second heap.
pub(crate) fn register_beside() {
    fn own() -> Option<&'static Thread> {
        THREAD.try_with(|own| own.0.get()).ok().flatten()
    }
    unsafe extern "C" fn prepare() {
        HEAP.before_fork(own(), false);
    }
    unsafe extern "C" fn parent() {
        // SAFETY: `prepare` ran before, by this thread.
        unsafe { HEAP.after_fork_in_parent() };
    }
    unsafe extern "C" fn child() {
        // SAFETY: `prepare` ran before, by this thread; none of the others that used the heap then is in the child.
        unsafe { HEAP.after_fork_in_child(own(), false) };
    }
    static ONCE: Once = Once::new();
    // SAFETY: the handlers are functions of this program, which stay.
    ONCE.call_once(|| assert_eq!(unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) }, 0));
}

impl Front for Beside {
    fn alloc(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        match zeroed {
            // SAFETY: the block is the calling thread's.
            true => unsafe { HEAP.alloc_zeroed(Self::thread(), layout) },
            // SAFETY: as above.
            false => unsafe { HEAP.alloc(Self::thread(), layout) },
        }
        .ok()
    }
    unsafe fn realloc(&self, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the block is the calling thread's; the rest by contract.
        unsafe { HEAP.realloc(Self::thread(), ptr, layout, size) }.ok()
    }
    unsafe fn free(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the block is the calling thread's; the rest by contract.
        unsafe { HEAP.free(Self::thread(), ptr, layout) };
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        HEAP.owns(ptr.as_ptr() as usize)
    }
    fn reclaim(&self) {
        // SAFETY: the block is the calling thread's.
        unsafe { HEAP.reclaim(Self::thread()) };
    }
    fn refused(&self) -> u64 {
        OS.refused()
    }
    fn stats(&self) -> Stats {
        HEAP.stats(Self::thread())
    }
    fn reports(&self) -> [String; 2] {
        [SlabInfo(&HEAP, Self::thread()).to_string(), BuddyInfo(&HEAP, Self::thread()).to_string()]
    }
    fn audit(&self) -> Result<(), &'static str> {
        self.reclaim();
        HEAP.validate(Self::thread())?;
        HEAP.audit(Self::thread())
    }
}

/// Reads every report once. Figures may be off while others allocate, never absurd.
pub(crate) fn look(front: &dyn Front) -> Result<(), Violation> {
    let stats = front.stats();
    if stats.committed > stats.reserved {
        return Err(Violation(format!("more is committed than reserved: {stats:?}")));
    }
    for report in front.reports() {
        if !report.is_empty() && !report.ends_with('\n') {
            return Err(Violation(format!("a report breaks off: {report:?}")));
        }
    }
    Ok(())
}
