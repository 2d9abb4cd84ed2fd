//! Dispatch: the global allocator of this program, which is Kmalloc or the system's, as chosen at start.
//!
//! # The choice
//! The first allocation comes before `main`, so it is the first allocation that decides: it reads the environment
//! variable [`CHOICE_VARIABLE`] through `getenv`, which allocates nothing, and remembers the answer. Several threads
//! that get there at once read the same answer, because nothing in this program sets variables of its own process.
//! Both allocators stand behind the same load and the same two compares, so neither is ahead by the dispatch.
//!
//! # The counters
//! Every call is counted for the allocator that serves it. A thread counts in a slot of its own by a plain load and
//! store. The thread-local that names the slot has no destructor, so calls from the destructors of other thread-locals
//! are counted too, and the slots are static, so no count is lost when a thread ends. Slots are never handed back;
//! threads beyond the last one share it and pay for an atomic add.

use allocator_global::Kmalloc;
use serde::{Deserialize, Serialize};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicU8, AtomicUsize, Ordering::Relaxed};

/// The environment variable that chooses, with the values of [`Choice::name`]. Unset means Kmalloc.
pub(crate) const CHOICE_VARIABLE: &CStr = c"INDEXER_ALLOCATOR";

/// Which of the two allocators serves this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Choice {
    /// Kmalloc, the allocator of this workspace.
    Kmalloc,
    /// `malloc` and its kin.
    System,
}

impl Choice {
    /// The value of [`CHOICE_VARIABLE`] that makes this choice.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Choice::Kmalloc => "kmalloc",
            Choice::System => "system",
        }
    }

    /// What this process has chosen.
    pub(crate) fn of_this_process() -> Choice {
        if chosen() == KMALLOC {
            Choice::Kmalloc
        } else {
            Choice::System
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

const UNDECIDED: u8 = 0;
const KMALLOC: u8 = 1;
const SYSTEM: u8 = 2;

static CHOSEN: AtomicU8 = AtomicU8::new(UNDECIDED);

#[inline(always)]
fn chosen() -> u8 {
    match CHOSEN.load(Relaxed) {
        UNDECIDED => decide(),
        chosen => chosen,
    }
}

#[cold]
fn decide() -> u8 {
    // SAFETY: the name is a C string; nothing in this process changes the environment.
    let value = unsafe { libc::getenv(CHOICE_VARIABLE.as_ptr()) };
    let chosen = if value.is_null() {
        KMALLOC
    } else {
        // SAFETY: `getenv` returned a C string of the environment, which nobody changes.
        let value = unsafe { CStr::from_ptr(value) };
        if value == c"system" {
            SYSTEM
        } else {
            KMALLOC
        }
    };
    CHOSEN.store(chosen, Relaxed);
    chosen
}

/// Calls of one kind or another that an allocator has served.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Calls {
    /// `alloc` and `alloc_zeroed`.
    pub(crate) allocations: u64,
    /// `realloc`.
    pub(crate) reallocations: u64,
    /// `dealloc`.
    pub(crate) frees: u64,
}

impl Calls {
    /// Calls of all kinds.
    pub(crate) fn total(&self) -> u64 {
        self.allocations + self.reallocations + self.frees
    }
}

#[derive(Clone, Copy)]
enum Call {
    Allocation,
    Reallocation,
    Free,
}

/// Counters of one thread: three kinds of call for Kmalloc, then three for the system. A cache line of its own.
#[repr(align(128))]
struct Slot([AtomicU64; 6]);

const SLOTS: usize = 128;
const SHARED_SLOT: usize = SLOTS - 1;
static COUNTERS: [Slot; SLOTS] = [const { Slot([const { AtomicU64::new(0) }; 6]) }; SLOTS];
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Number of this thread's slot, plus one; zero before its first call.
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

#[inline(always)]
fn count(chosen: u8, call: Call) {
    let counter = if chosen == KMALLOC { call as usize } else { call as usize + 3 };
    let slot = SLOT.with(Cell::get);
    if slot.wrapping_sub(1) < SHARED_SLOT {
        // The slot is this thread's alone, so nothing is lost between the load and the store.
        let counter = &COUNTERS[slot - 1].0[counter];
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    } else {
        count_slowly(counter);
    }
}

#[cold]
fn count_slowly(counter: usize) {
    if SLOT.with(Cell::get) == 0 {
        let slot = NEXT_SLOT.fetch_add(1, Relaxed).min(SHARED_SLOT);
        SLOT.with(|own| own.set(slot + 1));
    }
    COUNTERS[SLOT.with(Cell::get) - 1].0[counter].fetch_add(1, Relaxed);
}

/// Calls served so far by the allocator named; exact when the other threads have been joined.
pub(crate) fn calls_served_by(choice: Choice) -> Calls {
    let first = if choice == Choice::Kmalloc { 0 } else { 3 };
    let sum = |call: Call| COUNTERS.iter().map(|slot| slot.0[first + call as usize].load(Relaxed)).sum();
    Calls { allocations: sum(Call::Allocation), reallocations: sum(Call::Reallocation), frees: sum(Call::Free) }
}

/// The global allocator of this program.
pub(crate) struct Dispatch;

static OURS: Kmalloc = Kmalloc::new();

// SAFETY: every method hands its arguments, unchanged, to the one allocator that serves this process. The choice never
// changes once made, so a block goes back to the allocator that it came from.
unsafe impl GlobalAlloc for Dispatch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let chosen = chosen();
        count(chosen, Call::Allocation);
        if chosen == KMALLOC {
            // SAFETY: the caller keeps the contract of `alloc`.
            unsafe { OURS.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let chosen = chosen();
        count(chosen, Call::Free);
        if chosen == KMALLOC {
            // SAFETY: the caller keeps the contract of `dealloc`, and the block came from the same allocator.
            unsafe { OURS.dealloc(ptr, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(ptr, layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let chosen = chosen();
        count(chosen, Call::Allocation);
        if chosen == KMALLOC {
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            unsafe { OURS.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let chosen = chosen();
        count(chosen, Call::Reallocation);
        if chosen == KMALLOC {
            // SAFETY: the caller keeps the contract of `realloc`, and the block came from the same allocator.
            unsafe { OURS.realloc(ptr, layout, new_size) }
        } else {
            // SAFETY: as above.
            unsafe { System.realloc(ptr, layout, new_size) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispatch_counts_the_calls_of_threads_that_have_ended() {
        struct FreedLate(#[allow(dead_code)] Box<u64>);
        thread_local!(static LATE: Cell<Option<FreedLate>> = const { Cell::new(None) });
        const THREADS: u64 = 300; // more than there are slots
        let choice = Choice::of_this_process();
        let before = calls_served_by(choice);
        for _ in 0..THREADS {
            let thread = std::thread::spawn(|| LATE.set(Some(FreedLate(Box::new(7)))));
            thread.join().unwrap();
        }
        let after = calls_served_by(choice);
        assert!(after.allocations - before.allocations >= THREADS);
        assert!(after.frees - before.frees >= THREADS);
    }

    #[test]
    fn dispatch_leaves_the_other_allocator_alone() {
        let other = match Choice::of_this_process() {
            Choice::Kmalloc => Choice::System,
            Choice::System => Choice::Kmalloc,
        };
        drop(vec![1u8; 100]);
        assert_eq!(calls_served_by(other), Calls::default());
    }
}
