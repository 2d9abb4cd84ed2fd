//! Mutex: a lock in one word that waits in the kernel.
//!
//! # Algorithm
//! The word is 0 (free), 1 (held) or 2 (held, and somebody may wait). A short spin, because critical sections are
//! a few hundred instructions; then the word becomes 2 and the thread sleeps while it is 2. Whoever comes out of the
//! wait takes the lock as 2, since others may wait still. Unlocking a 2 wakes one. This is the third mutex of
//! U. Drepper, "Futexes are tricky". A pure spin lock would burn the time slice of a preempted holder as soon as
//! threads outnumber cores; std's mutex may not be used inside an allocator.
//!
//! # Invariants
//! - Mu1: from the successful exchange to the unlock exactly one thread has the value.
//! - Mu2: while a thread sleeps, the word is 2 or a wake-up is under way.
//!
//! # Memory ordering
//! | step                      | order             | so that                                        |
//! |---------------------------|-------------------|------------------------------------------------|
//! | take: CAS 0→1, swap 2     | Acquire / Relaxed | we see what the last holder wrote              |
//! | give back: swap 0         | Release           | the next holder sees what we wrote             |
//! | look while spinning       | Relaxed           | only a hint; the CAS decides                   |
//!
//! # Lock order
//! kswapd < shard < zone < vmalloc < registry < kept. A thread takes locks in rising rank only; unit tests assert it.

use super::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use super::{const_unless_loom, hint, recheck, Park, UnsafeCell};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

const FREE: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;

/// Looks at a held lock before sleeping.
const SPINS: u32 = if cfg!(kmalloc_loom) { 1 } else { 64 };

/// The place of a lock in the lock order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// The right to tick.
    Kswapd,
    /// One shard of a cache.
    Shard,
    /// The list of arenas and its growth.
    Zone,
    /// The records of vmalloc areas.
    Vmalloc,
    /// The list of thread blocks, and the mempool.
    Registry,
    /// Ranges that the system did not take back.
    Kept,
}

/// What a lock is around, and its place in the lock order.
pub trait Ranked {
    /// The place.
    const RANK: Rank;
}

/// A value that one thread at a time may touch. Beside the value a word of 4 bytes, zero while nobody does.
pub struct Mutex<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and Mu1 gives it to one thread at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}
// SAFETY: as for `Sync`; a mutex owns its value.
unsafe impl<T: Send> Send for Mutex<T> {}

/// The right to use the value; gives the lock back when dropped. It stays with the thread that took the lock: to share it would be
/// to share the value, which need not be `Sync`.
pub struct Guard<'a, T: Ranked, P: Park + ?Sized> {
    mutex: &'a Mutex<T>,
    park: &'a P,
    stays: PhantomData<*const T>,
}

impl<T: Ranked> Mutex<T> {
    const_unless_loom! {
        /// A free lock around `value`.
        pub fn new(value: T) -> Self {
            Self { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
        }
    }

    /// Takes the lock, waiting for it if need be. Not for signal handlers that may interrupt its holder.
    #[inline]
    pub fn lock<'a, P: Park + ?Sized>(&'a self, park: &'a P) -> Guard<'a, T, P> {
        ranks::enter(T::RANK);
        #[cfg(all(not(kmalloc_loom), feature = "yields"))]
        super::yielding::window(super::Window::Lock);
        if self.word.compare_exchange(FREE, HELD, Acquire, Relaxed).is_err() {
            self.lock_contended(park);
        }
        Guard { mutex: self, park, stays: PhantomData }
    }

    #[cold]
    fn lock_contended<P: Park + ?Sized>(&self, park: &P) {
        for _ in 0..SPINS {
            if self.word.load(Relaxed) == FREE && self.word.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok() {
                return;
            }
            hint::spin_loop();
        }
        while self.word.swap(AWAITED, Acquire) != FREE {
            #[cfg(all(not(kmalloc_loom), feature = "yields"))]
            super::yielding::window(super::Window::Wait);
            park.wait(&self.word, AWAITED);
        }
    }
}

impl<T: Ranked, P: Park + ?Sized> Drop for Guard<'_, T, P> {
    #[inline]
    fn drop(&mut self) {
        ranks::leave(T::RANK);
        if recheck("somebody may wait", self.mutex.word.swap(FREE, Release) == AWAITED) {
            self.park.wake_one(&self.mutex.word);
        }
    }
}

impl<T: Ranked, P: Park + ?Sized> Deref for Guard<'_, T, P> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock (Mu1), and it is borrowed for as long as the reference lives.
        self.mutex.value.with_mut(|value| unsafe { &*value })
    }
}

impl<T: Ranked, P: Park + ?Sized> DerefMut for Guard<'_, T, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        self.mutex.value.with_mut(|value| unsafe { &mut *value })
    }
}

/// The ranks that the running thread holds. Only unit tests can afford a thread-local for it.
#[cfg(all(test, not(kmalloc_loom)))]
mod ranks {
    extern crate std;
    use super::Rank;
    use std::{cell::RefCell, vec::Vec};

    std::thread_local!(static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) });

    pub(super) fn enter(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            assert!(held.last().map_or(true, |top| *top < rank), "lock order: {rank:?} while holding {held:?}");
            held.push(rank);
        });
    }
    pub(super) fn leave(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            let at = held.iter().rposition(|r| *r == rank).expect("a lock that was not taken");
            held.remove(at);
        });
    }
}

#[cfg(not(all(test, not(kmalloc_loom))))]
mod ranks {
    use super::Rank;
    #[inline(always)]
    pub(super) fn enter(_: Rank) {}
    #[inline(always)]
    pub(super) fn leave(_: Rank) {}
}

#[cfg(test)]
impl Ranked for usize {
    const RANK: Rank = Rank::Shard;
}

#[cfg(test)]
impl Ranked for () {
    const RANK: Rank = Rank::Zone;
}

#[cfg(test)]
static_assertions::assert_not_impl_any!(Guard<'static, usize, dyn Park>: Send, Sync);

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sync::Word;
    use std::sync::Arc;

    /// Never sleeps: what a system that refuses futexes looks like. Counts how often it was asked to.
    #[derive(Default)]
    struct NoFutex(core::sync::atomic::AtomicUsize);
    impl Park for NoFutex {
        fn wait(&self, _: &Word, _: u32) {
            self.0.fetch_add(1, Relaxed);
            std::thread::yield_now();
        }
        fn wake_one(&self, _: &Word) {}
        fn wake_all(&self, _: &Word) {}
        fn wait_for(&self, _: &Word, _: u32, _: u32) {}
        fn nap(&self) {}
        fn current(&self) -> usize {
            1
        }
    }

    #[test]
    fn a_lock_without_futexes_still_excludes() {
        let mutex = Arc::new(Mutex::new(0usize));
        let threads: std::vec::Vec<_> = (0..4)
            .map(|_| {
                let mutex = mutex.clone();
                std::thread::spawn(move || (0..10_000).for_each(|_| *mutex.lock(&NoFutex::default()) += 1))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*mutex.lock(&NoFutex::default()), 40_000);
    }

    /// Class of bug: a lock that burns the time of whoever should give it back.
    #[test]
    fn who_waits_for_a_lock_sleeps() {
        let (mutex, park) = (Mutex::new(0usize), NoFutex::default());
        let mut held = mutex.lock(&park);
        std::thread::scope(|scope| {
            scope.spawn(|| *mutex.lock(&park) += 1);
            while park.0.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            *held += 1;
            drop(held);
        });
        assert_eq!(*mutex.lock(&park), 2);
    }

    #[test]
    #[should_panic(expected = "lock order")]
    fn a_lock_of_lower_rank_inside_a_higher_one_is_found() {
        let (low, high) = (Mutex::new(0usize), Mutex::new(()));
        let park = NoFutex::default();
        let _high = high.lock(&park);
        let _low = low.lock(&park);
    }
}

#[cfg(all(test, kmalloc_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::loom_park::Futex;
    use loom::sync::Arc;
    use loom::thread;

    fn exclusion(threads: usize) {
        crate::loom_tests::check(move || {
            let shared = Arc::new((Mutex::new(0usize), Futex::new()));
            // The thread that loom starts with only joins: to run it beside the others costs a preemption.
            let others: Vec<_> = (0..threads)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || *shared.0.lock(&shared.1) += 1)
                })
                .collect();
            others.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(*shared.0.lock(&shared.1), threads);
        });
    }

    #[test]
    fn two_threads_exclude_each_other_and_none_sleeps_for_ever() {
        exclusion(2);
    }

    #[test]
    fn three_threads_exclude_each_other_and_none_sleeps_for_ever() {
        exclusion(3);
    }
}
