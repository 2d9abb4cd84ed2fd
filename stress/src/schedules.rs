//! Schedules: the whole allocator under a scheduler that chooses at random which thread goes on, at every place where
//! two of them can meet. Only with the feature `schedules`.
//!
//! # Algorithm
//! Threads are tasks of `shuttle` on one thread of the system, so that nothing but a seed decides what happens. The
//! allocator is the shipped one over real memory: its door to atomics (`sync::yielding`) has a hook in every window that a
//! race can be made of, and here the hook asks the scheduler. Waits of the allocator ask it as well. What loom cannot (a heap
//! with arenas, slabs, sheaves, areas and refused system calls, for hundreds of operations of several threads) is tried
//! here by chance, one of many schedules a run; and every run can be run again by its seed.
//!
//! Half of the seeds choose by dice at each window (`RandomScheduler`); the others change priorities at a few windows
//! of the whole run (`PctScheduler`; Burckhardt et al., ASPLOS 2010), which finds what needs a thread to stop for long.
//!
//! crossbeam-epoch has no hooks: what it does between two windows is one step. Nor are stale reads of weak memory
//! models tried; that is loom's part.

use crate::ops::{Block, Claims, Counts, Instance, Limits, Op, Placing, Player, Profile, Subject, Visitor};
use crate::Violation;
use allocator_core::sync::{at_windows, Window};
use allocator_core::sys::Plan;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

// Tasks share the thread of the system.
thread_local!(static ACTIVE: Cell<bool> = const { Cell::new(false) });

/// Windows so far, of all runs.
static WINDOWS: AtomicU64 = AtomicU64::new(0);

/// A place where another thread may go on.
fn window(what: Window) {
    if ACTIVE.get() && matches!(what, Window::Change | Window::Look | Window::Tell) {
        WINDOWS.fetch_add(1, Relaxed);
        shuttle::thread::sleep(Duration::ZERO); // to this scheduler a step as any other
    }
}

/// Lets another thread go on, if a scheduler decides; true if one does.
pub(crate) fn yields() -> bool {
    if ACTIVE.get() {
        shuttle::thread::yield_now();
    }
    ACTIVE.get()
}

/// The number of the calling task, if a scheduler decides which runs.
pub(crate) fn current() -> Option<usize> {
    ACTIVE.get().then(|| usize::from(shuttle::current::me()) + 1)
}

/// What one schedule did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Operations, and blocks verified.
    pub counts: Counts,
    /// Places where the scheduler could choose.
    pub windows: u64,
}

/// Operations of one thread in one run.
const OPS: usize = 60;
/// Steps of one run; one that takes more hangs.
const STEPS: usize = 5_000_000;

/// Plays what the seed says, in the order that the seed says. The same seed does the same again, if the system's
/// addresses are the same (`setarch --addr-no-randomize`).
pub fn run(seed: u64) -> Result<Done, Violation> {
    at_windows(window);
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (result, before) = (counts.clone(), WINDOWS.load(Relaxed));
    let body = move || {
        ACTIVE.set(true);
        let done = play(seed);
        ACTIVE.set(false);
        match done {
            Ok(done) => *result.lock().unwrap_or_else(PoisonError::into_inner) = done,
            Err(Violation(what)) => panic!("{what}"),
        }
    };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        if seed.is_multiple_of(2) {
            Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(body)
        } else {
            // The first time it learns how long a run is.
            Runner::new(PctScheduler::new_from_seed(seed, 3, 2), config).run(body)
        }
    }));
    ACTIVE.set(false);
    let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
    match ended {
        Ok(_) => Ok(Done { counts, windows: WINDOWS.load(Relaxed) - before }),
        Err(what) => {
            let text =
                what.downcast_ref::<String>().cloned().or_else(|| what.downcast_ref::<&str>().map(|&s| s.to_owned()));
            Err(Violation(format!("schedule {seed}: {}", text.unwrap_or_default())))
        }
    }
}

/// The first thread of a run: starts the others, waits for them, and lets the heap prove that it is empty.
fn play(seed: u64) -> Result<Counts, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let profile = [Profile::Objects, Profile::Runs, Profile::Program, Profile::Everything][rng.random_range(0..4)];
    let placing = [Placing::Aligned, Placing::Unaligned][rng.random_range(0..2)];
    let threads = rng.random_range(2..=4);
    // Every byte is written and looked at in a few ends only: it is the order that is tried here.
    let limits = Limits { bytes: 48 << 20, blocks: 2000, whole: 64 };
    // Nobody lets another thread run while this lock is held.
    let shared = Arc::new(Shared { claims: Claims::default(), pot: Mutex::default() });
    let mut instance = Instance::new(rng.random(), placing);
    // SAFETY: all threads have ended before the instance is finished.
    let heap = unsafe { instance.heap() };
    let os = instance.os();
    if rng.random_range(0..4) == 0 {
        os.plan(Plan::OneIn(8, seed));
    }
    let tasks: Vec<_> = (0..threads)
        .map(|number| {
            let (shared, seed) = (shared.clone(), rng.random());
            shuttle::thread::spawn(move || {
                let player = Player::new(Visitor::new(heap, os), &shared.claims, limits, number + 1);
                one_thread(player, &shared.pot, profile, seed)
            })
        })
        .collect();
    let mut total = Counts::default();
    let mut first_error = Ok(());
    for task in tasks {
        match task.join() {
            Ok(Ok(counts)) => total.add(counts),
            Ok(Err(violation)) => first_error = Err(violation),
            Err(_) => first_error = Err(Violation("a thread panicked".to_owned())),
        }
    }
    first_error?;
    let mut rest = Player::new(instance, &shared.claims, limits, 0);
    for block in std::mem::take(&mut *shared.pot.lock().unwrap_or_else(PoisonError::into_inner)) {
        rest.receive(0, block);
    }
    rest.free_all()?;
    total.add(rest.counts());
    rest.finish()?;
    Ok(total)
}

/// What the threads of a run have in common beside the heap.
struct Shared {
    claims: Claims,
    pot: Mutex<Vec<Block>>,
}

fn one_thread(
    mut player: Player<'_, Visitor>,
    pot: &Mutex<Vec<Block>>,
    profile: Profile,
    seed: u64,
) -> Result<Counts, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pot = || pot.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..OPS {
        match rng.random_range(0..16) {
            0 if !player.blocks(0).is_empty() => {
                let block = player.give(0, rng.random_range(0..player.blocks(0).len()));
                pot().push(block);
            }
            1 => {
                let block = pot().pop();
                block.into_iter().for_each(|block| player.receive(0, block));
            }
            2 if rng.random_range(0..4) == 0 => {
                let whole = player.subject().stop_the_others();
                whole.map_err(|what| Violation(format!("with all others stopped: {what}")))?;
            }
            3 if rng.random_range(0..4) == 0 => player.subject().detach(0),
            _ => player.play(Op::decode(profile, rng.random()))?,
        }
    }
    player.free_all()?;
    player.finish()
}
