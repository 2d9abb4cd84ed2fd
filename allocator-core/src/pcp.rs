//! pcp: a run of pages that a thread has freed, for the thread to take again.
//!
//! # Algorithm
//! A buffer that is allocated, filled and freed in turn costs some locked instructions on words that all threads share, to and
//! from the buddy each time. The kernel has lists of free pages for each processor in front of its buddy (`mm/page_alloc.c`,
//! `struct per_cpu_pages`); here each thread has room for one run, of [`PCP_PAGES`] pages at most, and keeps what it frees there
//! if that is as long as the last one it asked for (without an alignment), and there is none as long. A hit costs two locked instructions, on this room and on the tag of the run.
//!
//! To the buddy the pages of a kept run are in use, to the memmap they are nothing: who frees them again is told. Everybody
//! may empty the room: a tick does it for all threads, so one that sleeps holds no run for longer than that, and so does
//! whoever is about to be refused. Nothing is kept where kswapd is switched off, or memory is short. What was kept stays in a heap that is
//! too small for ticks, in one without a thread until somebody frees, and if kswapd is switched off in that very moment: a thread that
//! has written to its room reads the state without a fence in between.
//!
//! # Invariants
//! - Pp1: a run is in one room at most, and nobody else has it.
//! - Pp2: a room that is free is filled by its own thread alone.
//!
//! # Memory ordering
//! | step                             | order   | so that                                                      |
//! |----------------------------------|---------|--------------------------------------------------------------|
//! | `put`: store, or swap            | Release | who empties the room sees what the thread did to the pages   |
//! | `empty`: CAS                     | Acquire | as above                                                     |
//! | `take`: CAS                      | Relaxed | the thread itself has put what is there                      |
//! | first look at the room           | Relaxed | a stale value costs one failed CAS                           |
//!
//! A room that was seen free may be filled by a plain store: only its thread fills it (Pp2), and nobody else writes to it while
//! it is free. That the same run is there again between look and CAS does no harm: it is there. A signal handler that frees a run
//! in between makes the thread lose that one.

use crate::config::{PAGE_SIZE, PCP_PAGES};
use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::UnwatchedU32;
use crate::units::PageCount;
use core::ptr::{null_mut, NonNull};
use static_assertions::const_assert;

/// A run that nobody uses: its first byte, its length.
pub type Idle = (NonNull<u8>, PageCount);

/// Room for one run.
pub struct Pcp {
    /// Its first byte, and how many pages it has, added to it: it is aligned to more than that. Null: there is none.
    run: AtomicPtr<u8>,
    /// Pages of the run that the thread asked for last.
    wanted: UnwatchedU32,
}

const_assert!((PCP_PAGES as usize) < PAGE_SIZE);

impl Pcp {
    /// An empty one, as zeros are.
    #[cfg(kmalloc_loom)]
    pub fn new() -> Self {
        Self { run: AtomicPtr::new(null_mut()), wanted: UnwatchedU32::new(0) }
    }

    /// Takes the run, if it has so many pages. For its thread.
    #[inline]
    pub fn take(&self, n: PageCount) -> Option<NonNull<u8>> {
        self.wanted.store(n.get(), Relaxed);
        let run = self.run.load(Relaxed);
        if run as usize % PAGE_SIZE != n.get() as usize {
            return None;
        }
        self.run.compare_exchange(run, null_mut(), Relaxed, Relaxed).ok()?;
        Self::read(run).map(|(run, _)| run)
    }

    /// From now on nothing is wanted. For its thread.
    pub fn forget(&self) {
        self.wanted.store(0, Relaxed);
    }

    /// True if a run of so many pages would be kept: unless there is one like it. For its thread.
    #[inline]
    pub fn wants(&self, n: PageCount) -> bool {
        n.get() <= PCP_PAGES && n.get() == self.wanted.load(Relaxed) && n.get() as usize != self.pages()
    }

    /// Keeps a run that the caller owns and [`Pcp::wants`]. Returns the one of another length that had to go for it. For its thread.
    #[inline]
    pub fn put(&self, (run, n): Idle) -> Option<Idle> {
        let run = run.as_ptr().wrapping_add(n.get() as usize);
        if self.run.load(Relaxed).is_null() {
            self.run.store(run, Release);
            return None;
        }
        Self::read(self.run.swap(run, Release))
    }

    /// Takes the run, whoever's it is: the caller owns it. `None` also if its thread does something with it at this moment.
    pub fn empty(&self) -> Option<Idle> {
        let run = self.run.load(Relaxed);
        if run.is_null() {
            return None;
        }
        self.run.compare_exchange(run, null_mut(), Acquire, Relaxed).ok()?;
        Self::read(run)
    }

    /// Pages of the run, at about this moment.
    pub fn pages(&self) -> usize {
        self.run.load(Relaxed) as usize % PAGE_SIZE
    }

    #[inline]
    fn read(run: *mut u8) -> Option<Idle> {
        let n = run as usize % PAGE_SIZE;
        Some((NonNull::new(run.wrapping_sub(n))?, PageCount::new(n as u32)))
    }
}
