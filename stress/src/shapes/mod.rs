//! Shapes of load: who allocates, who frees, and in which order.

mod alone;
mod churn;
mod fork;
mod handover;

use crate::ops::Block;
use crate::{Config, Lane, Limit, Report, Violation};
use clap::ValueEnum;
use parking_lot::Mutex;
use std::alloc::Layout;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::thread;

/// A shape of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Each thread does whatever the language of operations has, and hands blocks to others, who own them from then on.
    Mixed,
    /// Pairs: one thread only allocates, the other only resizes and frees.
    OneToOne,
    /// All threads but one allocate, and that one frees.
    ManyToOne,
    /// One thread allocates, and all others free.
    OneToMany,
    /// Blocks go around a ring of 64 threads, verified and now and then resized or replaced by each.
    PassTheBlock,
    /// Short threads that leave blocks to be freed by later ones.
    Churn,
    /// Short threads that end while another one frees what they have allocated.
    ExitWhileFreed,
    /// Two threads in turn fill and empty the same slabs.
    PingPong,
    /// All threads fill up with blocks of about one size, empty themselves in another order, and take the next size.
    Phases,
    /// From one byte to 64 MiB, or to where the system refuses, and back; in one block or in many.
    Sawtooth,
    /// Children are forked while all threads allocate: they allocate, free the parent's blocks, start a thread, and
    /// exit.
    ForkStorm,
}

impl Shape {
    /// Those that run where none is named.
    pub const DEFAULT: [Shape; 10] = [
        Shape::Mixed,
        Shape::OneToOne,
        Shape::ManyToOne,
        Shape::OneToMany,
        Shape::PassTheBlock,
        Shape::Churn,
        Shape::ExitWhileFreed,
        Shape::PingPong,
        Shape::Phases,
        Shape::Sawtooth,
    ];
}

type Work = Result<Report, Violation>;

/// Runs the shape. When it returns without a violation, its threads have ended and its blocks are freed.
pub(crate) fn run(config: &Config, shape: Shape) -> Work {
    let (half, rest) = (config.threads.div_ceil(2), config.threads.saturating_sub(1).max(1));
    match shape {
        Shape::Mixed => handover::mixed(config),
        Shape::OneToOne => handover::queues(config, shape, half, 1, 1),
        Shape::ManyToOne => handover::queues(config, shape, 1, rest, 1),
        Shape::OneToMany => handover::queues(config, shape, 1, 1, rest),
        Shape::PassTheBlock => handover::pass_the_block(config),
        Shape::Churn => churn::survivors(config),
        Shape::ExitWhileFreed => churn::exit_while_freed(config),
        Shape::PingPong => alone::ping_pong(config),
        Shape::Phases => alone::phases(config),
        Shape::Sawtooth => alone::sawtooth(config),
        Shape::ForkStorm => fork::storm(config),
    }
}

/// After a run a heap has to serve every kind of request, whatever was refused before.
pub(crate) fn serves_again(config: &Config) -> Result<(), Violation> {
    let mut lane = Lane::new(config, Shape::Mixed, u32::MAX - 2, Limit::Ops(0));
    for size in [1, 100, 5000, 100 << 10, 3 << 20, 9 << 20] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        if !lane.alloc(layout, true)? {
            return Err(Violation(format!("{size} bytes are refused, though the system serves everything again")));
        }
    }
    lane.free_all()
}

/// Starts one thread for each item, joins them all, and adds up what they did. A violation stops the others.
fn on_threads<T: Send>(items: Vec<T>, work: impl Fn(T, &AtomicBool) -> Work + Sync) -> Work {
    let (work, stop) = (&work, &AtomicBool::new(false));
    thread::scope(|scope| {
        let start = |item| {
            scope.spawn(move || {
                let result = work(item, stop);
                if result.is_err() {
                    stop.store(true, Relaxed);
                }
                result
            })
        };
        let threads: Vec<_> = items.into_iter().map(start).collect();
        // All are joined, and not merely awaited by the scope: a join comes after the thread has given up its caches.
        let results: Vec<Work> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Violation("a thread panicked".to_owned()))))
            .collect();
        let mut total = Report::default();
        for result in results {
            total.add(result?);
        }
        Ok(total)
    })
}

/// One lane for each thread of the run.
fn lanes(config: &Config, shape: Shape) -> Vec<Lane> {
    (0..config.threads as u32).map(|n| Lane::new(config, shape, n, config.limit)).collect()
}

/// Blocks on their way from thread to thread.
type Batch = Vec<Block>;

/// Inboxes that threads leave behind when they end, with what was sent to them too late.
type Left = Mutex<Vec<Receiver<Batch>>>;

fn leave(left: &Left, inbox: Receiver<Batch>) {
    left.lock().push(inbox);
}

/// Frees what still lies in the inboxes of a shape whose threads have ended.
fn drain(config: &Config, shape: Shape, left: Left) -> Work {
    let mut lane = Lane::new(config, shape, u32::MAX, Limit::Ops(0));
    for batch in left.into_inner().into_iter().flatten() {
        lane.receive(batch);
        lane.free_all()?;
    }
    Ok(lane.report())
}
