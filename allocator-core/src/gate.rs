//! Gate: who is inside the allocator, and how a fork waits until nobody is.
//!
//! A child has the memory of its parent and one of its threads. A lock that another thread held would stay held for
//! ever, pages on their way between two words would be lost. So a fork waits until every thread has left the allocator
//! and lets none in until both processes go on; then the child's heap is as sound as the parent's, lock-free parts and
//! the reclamation scheme included, and needs no repair.
//!
//! # Algorithm
//! Whoever comes in says so in a word of its own (a thread block's, or one that all threads without a block share) and
//! then looks whether the gate is closed; whoever closes it first says so and then looks at all those words. A fence
//! lies between saying and looking on both sides, so that one of the two sees the other (Dekker). Who finds the gate
//! closed goes out again and sleeps. The thread that closed it passes: fork handlers of others, run between ours, may
//! allocate. Pops and pushes in sheaves do not pass the gate, nor does a thread that keeps a run of pages or takes it again: who is
//! stopped within one loses an object or a run that was its own.
//!
//! Waiting has an end. If somebody stays inside (a thread that is stopped there, or the forking thread itself, from a
//! signal handler), the fork goes on without us, and the child may only `exec`: it is *damaged*, and says so.
//!
//! # Invariants
//! - Ga1: once [`Gate::close`] has returned true, nobody but its caller is inside until [`Gate::open`].
//! - Ga2: `owner` names the closer while the gate is closed, from when [`Gate::close`] begins to wait until [`Gate::open`] begins, and is
//!   zero otherwise.
//! - Ga3: in a child, nobody but the closer says that it is inside until [`Gate::open_in_child`] has opened it. A thread that has a block
//!   is the closer; the others look before they speak.
//!
//! # Memory ordering
//! | step                               | order            | so that                                              |
//! |------------------------------------|------------------|------------------------------------------------------|
//! | say *inside*, fence, look at state | Relaxed, SeqCst  | closer and newcomer cannot both miss each other      |
//! | close, fence, look at the words    | Relaxed, SeqCst  | as above                                             |
//! | leave                              | Release          | the closer sees what was done inside                 |
//! | the closer sees a word of zero     | Acquire          | as above                                             |
//! | open / find it open                | Release, Acquire | who comes in sees what the closer did meanwhile      |

use crate::sync::atomic::{
    fence, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use crate::sync::{const_unless_loom, Park};

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const DAMAGED: u32 = 2;

/// Naps of the closer before it gives up: some seconds. To be inside takes microseconds, or as long as a system call; or as long as it
/// takes to copy a block, where `realloc` can do nothing else.
const PATIENCE: u32 = 100_000;

/// A thread's word: not zero while the thread is inside.
pub struct Presence(AtomicU32);

impl Presence {
    const_unless_loom! {
        /// Of a thread that is outside.
        pub fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// True if its thread is inside; for that thread.
    pub fn is_inside(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

/// Why nobody may come in, for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barred {
    /// The thread is inside already: a signal handler interrupted it there.
    Interrupted,
    /// The process was forked while a thread was inside.
    Damaged,
}

impl Barred {
    /// What is wrong, in words.
    pub const fn what(self) -> &'static str {
        match self {
            Barred::Interrupted => "a signal handler called the allocator that it had interrupted",
            Barred::Damaged => "this process was forked while a thread was in the allocator; it can only exec",
        }
    }
}

/// The gate of one heap.
pub struct Gate {
    state: AtomicU32,
    /// How often the closer has closed it: a fork handler may fork. Only the closer's.
    depth: AtomicU32,
    /// Threads inside that have no block.
    guests: Presence,
    /// The thread that closed the gate.
    owner: AtomicUsize,
}

/// Being inside; dropping it leaves.
#[must_use = "whoever drops it is outside"]
pub struct Inside<'a> {
    gate: &'a Gate,
    presence: Option<&'a Presence>,
}

impl Gate {
    const_unless_loom! {
        /// An open gate.
        pub fn new() -> Self {
            Self { state: AtomicU32::new(OPEN), depth: AtomicU32::new(0), guests: Presence::new(), owner: AtomicUsize::new(0) }
        }
    }

    /// Comes in, and waits before a closed gate. `presence` is the calling thread's, if it has a block. Costs a fence.
    #[inline(always)]
    pub fn enter<'a, P: Park + ?Sized>(
        &'a self,
        park: &P,
        presence: Option<&'a Presence>,
    ) -> Result<Inside<'a>, Barred> {
        if presence.is_some_and(Presence::is_inside) {
            return Err(Barred::Interrupted);
        }
        if presence.is_none() {
            self.wait_as_guest(park);
        }
        match self.announce(presence) {
            (OPEN, inside) => Ok(inside),
            (state, inside) => self.enter_closed(park, state, inside),
        }
    }

    /// Waits before a closed gate without having said anything. In a child it is closed until what its parent's threads had said is
    /// forgotten, and a thread that another handler has started there must not be among them.
    #[cold]
    #[inline(never)] // threads with a block need the registers
    fn wait_as_guest<P: Park + ?Sized>(&self, park: &P) {
        while self.state.load(Relaxed) == CLOSED && !self.is_mine(park) {
            park.wait(&self.state, CLOSED);
        }
    }

    /// Says that the caller is inside, and then looks at the state.
    #[inline(always)]
    fn announce<'a>(&'a self, presence: Option<&'a Presence>) -> (u32, Inside<'a>) {
        match presence {
            Some(Presence(word)) => word.store(1, Relaxed), // the thread's own word
            None => _ = self.guests.0.fetch_add(1, Relaxed),
        }
        fence(SeqCst);
        (self.state.load(Acquire), Inside { gate: self, presence })
    }

    #[cold]
    fn enter_closed<'a, P: Park + ?Sized>(
        &'a self,
        park: &P,
        mut state: u32,
        mut inside: Inside<'a>,
    ) -> Result<Inside<'a>, Barred> {
        let presence = inside.presence;
        loop {
            match state {
                OPEN => return Ok(inside),
                CLOSED if self.is_mine(park) => return Ok(inside),
                CLOSED => {
                    drop(inside);
                    park.wait(&self.state, CLOSED);
                }
                _ => return Err(Barred::Damaged),
            }
            (state, inside) = self.announce(presence);
        }
    }

    /// Only the closer can find its own number there, and it finds what it wrote last.
    fn is_mine<P: Park + ?Sized>(&self, park: &P) -> bool {
        self.owner.load(Relaxed) == park.current()
    }

    /// Closes the gate and waits until nobody is inside. `everyone` gives the words of all threads that have a block.
    /// Whoever has closed it may close it again, and then opens it as often. False if somebody stays inside, or if the
    /// calling thread is `inside`: then nobody is kept out who was not.
    pub fn close<'a, P: Park + ?Sized, I: Iterator<Item = &'a Presence>>(
        &'a self,
        park: &P,
        inside: bool,
        everyone: impl FnOnce() -> I,
    ) -> bool {
        if inside {
            // A signal handler that forks, and has interrupted a call between the closing of another fork and its opening.
            if self.state.load(Relaxed) == CLOSED && self.is_mine(park) {
                self.depth.store(self.depth.load(Relaxed) + 1, Relaxed);
            }
            return false;
        }
        // Acquire: what another closer did before it opened comes before us.
        while let Err(state) = self.state.compare_exchange(OPEN, CLOSED, Acquire, Relaxed) {
            if state == DAMAGED {
                return false;
            }
            if self.is_mine(park) {
                self.depth.store(self.depth.load(Relaxed) + 1, Relaxed);
                return true;
            }
            park.wait(&self.state, CLOSED);
        }
        self.owner.store(park.current(), Relaxed);
        fence(SeqCst);
        let mut patience = PATIENCE;
        for Presence(word) in everyone().chain([&self.guests]) {
            while word.load(Acquire) != 0 {
                if patience == 0 {
                    self.open(park);
                    return false;
                }
                patience -= 1;
                park.nap();
            }
        }
        true
    }

    /// Opens the gate, or takes one closing back, if the calling thread has closed it. True if it had.
    pub fn open<P: Park + ?Sized>(&self, park: &P) -> bool {
        let mine = self.state.load(Relaxed) == CLOSED && self.is_mine(park);
        let depth = self.depth.load(Relaxed);
        if mine && depth > 0 {
            self.depth.store(depth - 1, Relaxed);
        } else if mine {
            self.owner.store(0, Relaxed);
            self.state.store(OPEN, Release);
            park.wake_all(&self.state);
        }
        mine
    }

    /// Opens the gate in a child, where the words of threads that are no more say what they said last: some thread may
    /// have been about to find the gate closed. `before` runs while nobody can come in: a thread that another handler has started
    /// may wait there. False if the calling thread had not closed it, or is `inside`: then nobody comes in.
    pub fn open_in_child<'a, P: Park + ?Sized>(
        &'a self,
        park: &P,
        inside: bool,
        everyone: impl Iterator<Item = &'a Presence>,
        before: impl FnOnce(),
    ) -> bool {
        if inside || self.state.load(Relaxed) != CLOSED || !self.is_mine(park) {
            self.state.store(DAMAGED, Relaxed);
            park.wake_all(&self.state); // a thread that a handler of others started may wait already
            return false;
        }
        for Presence(word) in everyone.chain([&self.guests]) {
            if word.load(Relaxed) != 0 {
                word.store(0, Relaxed); // no write where none is needed: the page is shared with the parent
            }
        }
        self.depth.store(0, Relaxed); // the child of a handler's fork is not in the middle of another
        before();
        self.open(park)
    }
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.presence {
            Some(Presence(word)) => word.store(0, Release),
            None => _ = self.gate.guests.0.fetch_sub(1, Release),
        }
    }
}

#[cfg(all(test, not(kmalloc_loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sys::Unix;
    use std::thread;

    fn nobody<'a>() -> core::iter::Empty<&'a Presence> {
        core::iter::empty()
    }

    /// Another thread does not come in before the gate is opened once more, and then does.
    fn waits_until_it_opens(gate: &Gate, theirs: &Presence) {
        thread::scope(|scope| {
            let other = scope.spawn(|| gate.enter(&Unix, Some(theirs)).is_ok());
            thread::sleep(core::time::Duration::from_millis(20));
            assert!(!other.is_finished());
            assert!(gate.open(&Unix));
            assert!(other.join().unwrap());
        });
    }

    #[test]
    fn the_closer_passes_and_others_wait_until_it_opens() {
        let (gate, mine, theirs) = (Gate::new(), Presence::new(), Presence::new());
        assert!(gate.close(&Unix, false, || [&mine, &theirs].into_iter()));
        assert!(gate.enter(&Unix, Some(&mine)).is_ok() && gate.enter(&Unix, None).is_ok());
        waits_until_it_opens(&gate, &theirs);
        assert!(!gate.open(&Unix), "open already");
    }

    #[test]
    fn a_gate_that_was_closed_twice_stays_closed_until_it_was_opened_twice() {
        let (gate, theirs) = (Gate::new(), Presence::new());
        assert!(gate.close(&Unix, false, nobody) && gate.close(&Unix, false, nobody));
        assert!(gate.open(&Unix));
        waits_until_it_opens(&gate, &theirs);
        assert!(gate.close(&Unix, false, nobody) && gate.close(&Unix, false, nobody));
        assert!(gate.open_in_child(&Unix, false, nobody(), || ()), "a child has one handler to run, not two");
        assert!(gate.enter(&Unix, Some(&theirs)).is_ok());
    }

    #[test]
    fn who_is_inside_can_neither_come_in_again_nor_close() {
        let (gate, mine) = (Gate::new(), Presence::new());
        let inside = gate.enter(&Unix, Some(&mine));
        assert_eq!(gate.enter(&Unix, Some(&mine)).err(), Some(Barred::Interrupted));
        assert!(!gate.close(&Unix, mine.is_inside(), nobody));
        drop(inside);
        assert!(gate.close(&Unix, mine.is_inside(), nobody) && gate.open(&Unix));
    }

    /// Class of bug: a fork between the closing and the opening of another one ends that.
    #[test]
    fn who_forks_inside_while_its_gate_is_closed_leaves_it_closed_and_has_a_damaged_child() {
        let (gate, mine, theirs) = (Gate::new(), Presence::new(), Presence::new());
        assert!(gate.close(&Unix, false, nobody));
        let inside = gate.enter(&Unix, Some(&mine)).unwrap();
        assert!(!gate.close(&Unix, mine.is_inside(), nobody) && gate.open(&Unix));
        drop(inside);
        waits_until_it_opens(&gate, &theirs);
        assert!(gate.close(&Unix, false, nobody) && !gate.close(&Unix, true, nobody));
        assert!(!gate.open_in_child(&Unix, true, nobody(), || panic!("nobody comes in")));
        assert_eq!(gate.enter(&Unix, None).err(), Some(Barred::Damaged));
    }

    /// Class of bug: in a child, a thread that another handler has started leaves what the child's handler has forgotten, and the
    /// count of who is inside is wrong for ever.
    #[test]
    fn a_thread_that_waits_in_a_child_is_not_forgotten_with_those_of_the_parent() {
        let gate = Gate::new();
        assert!(gate.close(&Unix, false, nobody));
        gate.guests.0.store(3, Relaxed); // threads of the parent that were about to find it closed
        thread::scope(|scope| {
            let other = scope.spawn(|| gate.enter(&Unix, None).is_ok());
            thread::sleep(core::time::Duration::from_millis(20));
            assert!(!other.is_finished());
            assert_eq!(gate.guests.0.load(Relaxed), 3, "it says nothing yet");
            assert!(gate.open_in_child(&Unix, false, nobody(), || ()));
            assert!(other.join().unwrap());
        });
        assert_eq!(gate.guests.0.load(Relaxed), 0);
        assert!(gate.close(&Unix, false, nobody) && gate.open(&Unix));
    }

    #[test]
    fn a_child_of_a_fork_that_did_not_close_lets_nobody_in() {
        let (gate, stuck) = (Gate::new(), Presence::new());
        assert!(gate.close(&Unix, false, nobody));
        stuck.0.store(1, Relaxed); // a thread that was about to find it closed
        assert!(gate.open_in_child(&Unix, false, [&stuck].into_iter(), || ()));
        assert!(gate.enter(&Unix, Some(&stuck)).is_ok());
        assert!(!gate.open_in_child(&Unix, false, nobody(), || ()));
        assert_eq!(gate.enter(&Unix, None).err(), Some(Barred::Damaged));
    }
}

#[cfg(all(test, kmalloc_loom))]
mod loom_tests {
    use super::*;
    use crate::loom_tests::check;
    use crate::sync::loom_park::Futex;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// A gate, two threads' words, and what is inside: a cell that the gate alone protects from the closer.
    struct World {
        gate: Gate,
        futex: Futex,
        words: [Presence; 2],
        cells: [UnsafeCell<u32>; 3],
    }

    // SAFETY: a cell is touched by its thread while inside and by whoever has closed the gate; loom checks it.
    unsafe impl Sync for World {}
    // SAFETY: as above.
    unsafe impl Send for World {}

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                gate: Gate::new(),
                futex: Futex::new(),
                words: [Presence::new(), Presence::new()],
                cells: [UnsafeCell::new(0), UnsafeCell::new(0), UnsafeCell::new(0)],
            })
        }

        /// Thread `i` works inside; number 2 has no block.
        fn work(&self, i: usize) {
            let inside = self.gate.enter(&self.futex, self.words.get(i)).expect("nothing bars it");
            // SAFETY: see `World`.
            self.cells[i].with_mut(|cell| unsafe { *cell += 1 });
            drop(inside);
        }

        /// A fork: all is looked at while nobody is inside, and the closer may come in.
        fn fork(&self) {
            assert!(self.gate.close(&self.futex, false, || self.words.iter()), "nobody stays inside");
            self.touch_all();
            drop(self.gate.enter(&self.futex, None).expect("the closer passes"));
            self.touch_all();
            assert!(self.gate.open(&self.futex));
        }

        fn touch_all(&self) {
            for cell in &self.cells {
                // SAFETY: see `World`.
                cell.with_mut(|cell| unsafe { *cell += 10 });
            }
        }
    }

    #[test]
    fn nobody_is_inside_while_the_gate_is_closed() {
        check(|| {
            let world = World::new();
            let others: Vec<_> = [0, 2]
                .into_iter()
                .map(|i| {
                    let world = world.clone();
                    thread::spawn(move || world.work(i))
                })
                .collect();
            world.fork();
            others.into_iter().for_each(|t| t.join().unwrap());
            world.work(1);
        });
    }

    #[test]
    fn a_thread_that_comes_twice_meets_a_fork_once_or_not_at_all() {
        check(|| {
            let world = World::new();
            let other = {
                let world = world.clone();
                thread::spawn(move || (0..2).for_each(|_| world.work(0)))
            };
            world.fork();
            other.join().unwrap();
        });
    }

    #[test]
    fn forks_at_once_take_turns() {
        check(|| {
            let world = World::new();
            let other = {
                let world = world.clone();
                thread::spawn(move || {
                    world.fork();
                    world.work(1);
                })
            };
            world.fork();
            world.fork();
            other.join().unwrap();
        });
    }
}
