//! Shapes in which threads meet in slabs and pages only.

use super::{lanes, on_threads, Batch, Shape, Work};
use crate::{Config, Lane, Limit, Violation};
use parking_lot::Mutex;
use std::sync::atomic::AtomicBool;

const MIB: usize = 1 << 20;

fn each_alone(config: &Config, shape: Shape, work: fn(&mut Lane, usize, &AtomicBool) -> Result<(), Violation>) -> Work {
    on_threads(lanes(config, shape).into_iter().enumerate().collect(), |(n, mut lane), stop| {
        work(&mut lane, n, stop)?;
        lane.free_all()?;
        Ok(lane.report())
    })
}

pub(super) fn ping_pong(config: &Config) -> Work {
    /// Two numbers of objects that are beyond what a sheaf holds, or just what one holds, of classes of all kinds.
    const SIZES: [(usize, usize); 8] =
        [(64, 70), (8192, 9), (256, 70), (32 << 10, 5), (16, 130), (1024, 40), (16 << 10, 2), (100, 64)];
    /// Operations on one size, so that both threads are mostly at the same one.
    const LONG: u64 = 2000;
    let pots: Vec<Mutex<Batch>> = (0..config.threads.div_ceil(2)).map(|_| Mutex::default()).collect();
    let mut total =
        on_threads(lanes(config, Shape::PingPong).into_iter().enumerate().collect(), |(n, mut lane), stop| {
            let pot = &pots[n / 2];
            let mut ops = 0;
            while let Some(draw) = lane.next(stop) {
                ops += 1;
                let (size, most) = SIZES[(ops / LONG) as usize % SIZES.len()];
                lane.alloc(draw.near(size), draw.zeroed())?;
                if lane.len() >= most.min(draw.which() % (2 * most)) {
                    // Mine go into the pot, and what the other has left there is mine to free.
                    let mine = lane.give(most);
                    let theirs = std::mem::replace(&mut *pot.lock(), mine);
                    lane.receive(theirs);
                    lane.free_all()?;
                }
            }
            lane.free_all()?;
            Ok(lane.report())
        })?;
    let mut lane = Lane::new(config, Shape::PingPong, u32::MAX, Limit::Ops(0));
    for pot in pots {
        lane.receive(pot.into_inner());
    }
    lane.free_all()?;
    total.add(lane.report());
    Ok(total)
}

pub(super) fn phases(config: &Config) -> Work {
    const SIZES: [usize; 10] = [16, 40, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 900_000];
    /// Bytes of one phase of one thread.
    const PHASE: usize = 2 * MIB;
    each_alone(config, Shape::Phases, |lane, thread, stop| {
        for phase in thread.. {
            let size = SIZES[phase * 7 % SIZES.len()];
            let count = (PHASE / size).clamp(4, 3000);
            for _ in 0..count {
                let Some(draw) = lane.next(stop) else { return Ok(()) };
                lane.alloc(draw.near(size), draw.zeroed())?;
            }
            // In another order than they came. A few stay behind, in the way of the next size.
            while lane.len() > 3 * (phase % 8) {
                lane.free(lane.len() * 7919 / 3 % lane.len())?;
            }
        }
        Ok(())
    })
}

/// How many operations of the other shapes one of the sawtooth stands for: at the top it moves as many bytes as ten
/// thousand of them.
const SAWTOOTH_WEIGHT: u64 = 32;

pub(super) fn sawtooth(config: &Config) -> Work {
    let limit = match config.limit {
        Limit::Ops(ops) => Limit::Ops(ops.div_ceil(SAWTOOTH_WEIGHT)),
        time => time,
    };
    each_alone(&Config { limit, ..*config }, Shape::Sawtooth, |lane, thread, stop| {
        // More than a few threads at the full height would be a test of the machine's memory.
        let top = if thread < 4 { 64 * MIB } else { 4 * MIB };
        for tooth in 0.. {
            if tooth % 2 == 0 {
                // One block, by realloc: up in random steps until it is refused, and down in other ones.
                let Some(draw) = lane.next(stop) else { break };
                if !lane.alloc(draw.near(2), draw.zeroed())? {
                    continue;
                }
                let mut rising = true;
                while rising || lane.size(0) > 1 {
                    let Some(draw) = lane.next(stop) else { return Ok(()) };
                    let (size, choice) = (lane.size(0), usize::from(draw.choice()));
                    let step = size / 2 + size * choice / 128 + draw.which() % 500 + 1;
                    let next = if rising { (size + step).min(top) } else { size / (2 + choice % 6) };
                    lane.resize(0, next.max(1))?;
                    rising &= lane.size(0) == next && next < top;
                }
            } else {
                // Many blocks, until they are refused: arenas come at the top and may go at the bottom.
                let mut bytes = 0;
                while bytes < top {
                    let Some(draw) = lane.next(stop) else { return Ok(()) };
                    if !lane.alloc(draw.near(top >> (draw.other() % 8 + 2)), draw.zeroed())? {
                        break;
                    }
                    bytes += lane.size(lane.len() - 1);
                }
            }
            lane.free_all()?;
        }
        Ok(())
    })
}
