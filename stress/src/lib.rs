//! Seeded runs of many threads against Kmalloc.
//!
//! Every block carries a pattern made from its identity, and every byte of it is looked at when the block is freed or
//! resized, often by another thread than the one that wrote it. A block that is handed out twice, moved without its
//! content, not zeroed, or written to by the allocator shows as a spoiled pattern; one that overlaps another shows at
//! once in the map of claims. Each shape of load ends with all blocks freed and all threads gone, and then the heap
//! must prove that it is empty.
//!
//! [`ops`] is the language of operations and its interpreter, and [`targets`] what fuzzers do with it. [`shapes`] says
//! which threads allocate, hand over and free what, [`front`] which heap they do it on, [`soak`] runs all of it in turn
//! for as long as one likes, and [`progress`] tells how far it is and notices when nothing moves.
//!
//! What a thread draws from its generator never depends on what it receives from others or on the clock, so a seed
//! replays the stream of operations of each thread; how the streams interleave is up to the machine.

pub mod faults;
pub mod front;
mod lane;
pub mod ops;
pub mod progress;
#[cfg(feature = "schedules")]
pub mod schedules;
pub mod shapes;
pub mod soak;
pub mod targets;
#[cfg(feature = "yields")]
mod yields;

pub use lane::{Draw, Lane};

use front::{look, Front, System};
use ops::Profile;
use shapes::Shape;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Something that a right allocator cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// When a shape ends.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After so many operations of each thread: the run does exactly the same again.
    Ops(u64),
    /// After so long: the streams are the same again, but may be cut off elsewhere.
    Time(Duration),
}

/// One run of one shape.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Chooses every operation.
    pub seed: u64,
    /// Threads that allocate; the watcher comes on top.
    pub threads: usize,
    /// When to end.
    pub limit: Limit,
    /// On what, and so which heap.
    pub system: System,
    /// Which sizes, where the shape does not say it.
    pub profile: Profile,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations drawn.
    pub ops: u64,
    /// Blocks verified to the last byte when they were resized or freed.
    pub verified: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Children that were forked, and ended well.
    pub forks: u64,
    /// Digest of all operation streams: two runs with the same seed, threads and `Limit::Ops` have the same.
    pub digest: u64,
}

impl Report {
    /// Adds what another thread or shape did.
    pub fn add(&mut self, other: Report) {
        self.ops += other.ops;
        self.verified += other.verified;
        self.bytes += other.bytes;
        self.refused += other.refused;
        self.forks += other.forks;
        self.digest ^= other.digest;
    }
}

/// Runs one shape, with a thread beside it that reclaims and reads the reports all the time, and then proves that the
/// heap serves again and is empty. No other thread of the process may be using the heap.
pub fn run(config: &Config, shape: Shape) -> Result<Report, Violation> {
    #[cfg(feature = "yields")]
    yields::install(config.seed);
    let (done, front) = (AtomicBool::new(false), config.system.front());
    // To reclaim is to make the kernel do what it has just undone.
    let pause = Duration::from_millis(if config.profile == Profile::Small { 100 } else { 4 });
    config.system.begin(config.seed);
    let report = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(front, &done, pause));
        let report = shapes::run(config, shape);
        done.store(true, Relaxed);
        // A join waits for the end of the thread itself, which the end of the scope does not.
        let watched = watcher.join().unwrap_or_else(|_| Err(Violation("the watcher panicked".to_owned())));
        report.and_then(|report| watched.map(|()| report))
    });
    config.system.end();
    let report = report?;
    shapes::serves_again(config)?;
    front.audit().map_err(|what| Violation(format!("{shape:?} on {:?}, in the end: {what}", config.system)))?;
    Ok(report)
}

/// Reclaims and reads until it is told to stop.
fn watch(front: &dyn Front, done: &AtomicBool, pause: Duration) -> Result<(), Violation> {
    while !done.load(Relaxed) {
        look(front)?;
        front.reclaim();
        thread::sleep(pause);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
