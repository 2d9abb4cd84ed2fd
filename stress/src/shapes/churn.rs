//! Shapes of short threads.

use super::{on_threads, Batch, Shape, Work};
use crate::{Config, Lane, Limit, Report, Violation};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

/// Operations of one short thread.
const LIFE: u64 = 200;

/// Each thread of the run starts short threads, one after another.
fn lives(config: &Config, one_life: impl Fn(u32, Limit, &AtomicBool) -> Work + Sync) -> Work {
    let spawners = (0..config.threads as u32).collect();
    on_threads(spawners, |spawner: u32, stop| {
        let started = Instant::now();
        let mut total = Report::default();
        for life in 0u32.. {
            let limit = match config.limit {
                Limit::Ops(ops) => LIFE.min(ops.saturating_sub(u64::from(life) * LIFE)),
                Limit::Time(time) if life == 0 || started.elapsed() < time => LIFE,
                Limit::Time(_) => 0,
            };
            if limit == 0 || stop.load(Relaxed) {
                break;
            }
            let label = life.wrapping_mul(config.threads as u32) + spawner;
            total.add(one_life(label, Limit::Ops(limit), stop)?);
        }
        Ok(total)
    })
}

fn joined(result: thread::Result<Work>) -> Work {
    result.unwrap_or_else(|_| Err(Violation("a thread panicked".to_owned())))
}

pub(super) fn survivors(config: &Config) -> Work {
    /// Batches that may lie there.
    const MOST: usize = 400;
    let survivors = Mutex::new(Vec::<Batch>::new());
    let pool = || survivors.lock();
    let one_life = |mut lane: Lane, stop: &AtomicBool| -> Work {
        while let Some(draw) = lane.next(stop) {
            match draw.choice() {
                0..=165 => _ = lane.alloc(draw.layout(), draw.zeroed())?,
                166..=245 if !lane.is_empty() => lane.free(draw.which() % lane.len())?,
                _ => {
                    let found = {
                        let mut pool = pool();
                        let len = pool.len();
                        (len != 0).then(|| pool.swap_remove(draw.which() % len))
                    };
                    lane.receive(found.unwrap_or_default());
                }
            }
        }
        // A third survives the thread, as long as the pool is not full; the rest goes now.
        let survivors = lane.give(lane.len() / 3);
        let full = pool().len() >= MOST;
        match full {
            true => lane.receive(survivors),
            false => pool().push(survivors),
        }
        lane.free_all()?;
        Ok(lane.report())
    };
    let mut total = lives(config, |label, limit, stop| {
        let lane = Lane::new(config, Shape::Churn, label, limit);
        joined(thread::scope(|scope| scope.spawn(|| one_life(lane, stop)).join()))
    })?;
    let mut lane = Lane::new(config, Shape::Churn, u32::MAX, Limit::Ops(0));
    for batch in pool().drain(..) {
        lane.receive(batch);
    }
    lane.free_all()?;
    total.add(lane.report());
    Ok(total)
}

pub(super) fn exit_while_freed(config: &Config) -> Work {
    /// One per life, so that the slabs of few classes are met from both sides.
    const SIZES: [usize; 8] = [48, 200, 700, 64, 2500, 120, 9000, 32];
    lives(config, |label, limit, stop| {
        let mut owner = Lane::new(config, Shape::ExitWhileFreed, label, limit);
        let mut other = Lane::new(config, Shape::ExitWhileFreed, u32::MAX - 1 - label, Limit::Ops(0));
        let (sender, receiver) = channel::<Batch>();
        let size = SIZES[label as usize / 3 % SIZES.len()];
        thread::scope(|scope| {
            let owner = scope.spawn(move || {
                while let Some(draw) = owner.next(stop) {
                    owner.alloc(draw.near(size), draw.zeroed())?;
                    if draw.choice() < 24 {
                        let batch = owner.give(draw.other() % 16);
                        // The other one receives until it finds a violation, which ends everything.
                        if let Err(returned) = sender.send(batch) {
                            owner.receive(returned.0);
                        }
                    } else if draw.choice() < 40 && !owner.is_empty() {
                        owner.free(draw.which() % owner.len())?;
                    }
                }
                // A part goes by the owner's hands, and the rest is still being freed when the thread ends.
                for _ in 0..owner.len() / 3 {
                    owner.free(0)?;
                }
                let batch = owner.give(owner.len());
                if let Err(returned) = sender.send(batch) {
                    owner.receive(returned.0);
                    owner.free_all()?;
                }
                Ok(owner.report())
            });
            for batch in receiver {
                other.receive(batch);
                other.free_all()?;
            }
            let mut total = joined(owner.join())?;
            total.add(other.report());
            Ok(total)
        })
    })
}
