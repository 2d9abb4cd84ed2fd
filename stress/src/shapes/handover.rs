//! Shapes in which blocks go from one thread to another.

use super::{drain, lanes, leave, on_threads, Batch, Left, Shape, Work};
use crate::ops::Action;
use crate::{Config, Lane, Limit};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender, TryRecvError};
use std::time::Duration;

pub(super) fn mixed(config: &Config) -> Work {
    let (outboxes, inboxes): (Vec<Sender<Batch>>, Vec<_>) = (0..config.threads).map(|_| channel()).unzip();
    let lanes =
        lanes(config, Shape::Mixed).into_iter().zip(inboxes).map(|(lane, inbox)| (lane, inbox, outboxes.clone()));
    let lanes = lanes.collect();
    drop(outboxes);
    let left = Left::default();
    let mut total = on_threads(lanes, |(mut lane, inbox, outboxes), stop| {
        while let Some(draw) = lane.next(stop) {
            let op = draw.op();
            match op.action {
                Action::Hand { which, count, .. } => {
                    let batch = lane.give(usize::from(count) % 32 + 1);
                    if let Err(returned) = outboxes[usize::from(which) % outboxes.len()].send(batch) {
                        lane.receive(returned.0); // that thread has ended
                    }
                }
                // The watcher reclaims all the time; of these one in sixteen is enough.
                Action::Reclaim if draw.other() % 16 != 0 => {}
                _ => lane.play(op)?,
            }
            while let Ok(batch) = inbox.try_recv() {
                lane.receive(batch);
            }
        }
        lane.free_all()?;
        leave(&left, inbox);
        Ok(lane.report())
    })?;
    total.add(drain(config, Shape::Mixed, left)?);
    Ok(total)
}

enum Role {
    Producer(Lane, Vec<SyncSender<Batch>>),
    Consumer(Lane, Receiver<Batch>),
}

/// Groups of producers, who only allocate, and consumers, who only resize and free.
pub(super) fn queues(config: &Config, shape: Shape, groups: usize, producers: usize, consumers: usize) -> Work {
    /// Blocks that are handed over together, at most.
    const BATCH: usize = 64;
    let mut roles = Vec::new();
    for _ in 0..groups {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..consumers).map(|_| sync_channel(16)).unzip();
        for _ in 0..producers {
            let lane = Lane::new(config, shape, roles.len() as u32, config.limit);
            roles.push(Role::Producer(lane, senders.clone()));
        }
        for receiver in receivers {
            let lane = Lane::new(config, shape, roles.len() as u32, Limit::Ops(0));
            roles.push(Role::Consumer(lane, receiver));
        }
    }
    on_threads(roles, |role, stop| match role {
        Role::Producer(mut lane, senders) => {
            let mut turn = 0;
            while let Some(draw) = lane.next(stop) {
                lane.alloc(draw.layout(), draw.zeroed())?;
                if lane.len() >= BATCH || draw.which() % BATCH == 0 {
                    let batch = lane.give(BATCH);
                    turn += 1;
                    if let Err(returned) = senders[turn % senders.len()].send(batch) {
                        lane.receive(returned.0);
                        break; // the consumer has ended, which it does by a violation only
                    }
                }
            }
            lane.free_all()?;
            Ok(lane.report())
        }
        Role::Consumer(mut lane, receiver) => {
            let mut received = 0;
            for batch in receiver {
                lane.receive(batch);
                received += 1;
                if received % 2 == 0 && !lane.is_empty() {
                    let size = lane.size(0);
                    lane.resize(0, size + size / 2)?;
                }
                lane.free_all()?;
            }
            Ok(lane.report())
        }
    })
}

pub(super) fn pass_the_block(config: &Config) -> Work {
    const RING: usize = 64;
    /// Batches for each thread, and blocks in each.
    const BATCHES: usize = 3;
    const BATCH: usize = 12;
    let limit = match config.limit {
        Limit::Ops(ops) => Limit::Ops((ops * config.threads as u64).div_ceil(RING as u64)),
        time => time,
    };
    let (mut outboxes, inboxes): (Vec<Sender<Batch>>, Vec<_>) = (0..RING).map(|_| channel()).unzip();
    outboxes.rotate_left(1); // thread `n` sends to thread `n + 1`
    let first = Limit::Ops((RING * BATCHES * BATCH) as u64);
    let mut first = Lane::new(config, Shape::PassTheBlock, u32::MAX - 1, first);
    let never = AtomicBool::new(false);
    for outbox in outboxes.iter().cycle() {
        let mut more = true;
        while more && first.len() < BATCH {
            match first.next(&never) {
                Some(draw) => _ = first.alloc(draw.layout(), draw.zeroed())?,
                None => more = false,
            }
        }
        let batch = first.give(BATCH);
        outbox.send(batch).expect("its inbox is here");
        if !more {
            break;
        }
    }
    let ring = outboxes
        .into_iter()
        .zip(inboxes)
        .enumerate()
        .map(|(n, (outbox, inbox))| (Lane::new(config, Shape::PassTheBlock, n as u32, limit), outbox, inbox));
    let left = Left::default();
    let mut total = on_threads(ring.collect(), |(mut lane, outbox, inbox), stop| {
        while let Some(draw) = lane.next(stop) {
            let batch = loop {
                match inbox.try_recv() {
                    Ok(batch) => break Some(batch),
                    Err(TryRecvError::Disconnected) => break None,
                    Err(TryRecvError::Empty) if stop.load(Relaxed) => break None,
                    Err(TryRecvError::Empty) => match inbox.recv_timeout(Duration::from_millis(20)) {
                        Ok(batch) => break Some(batch),
                        Err(_) => continue,
                    },
                }
            };
            let Some(batch) = batch else { break }; // the one before has ended
            lane.receive(batch);
            let replaced = usize::from(draw.choice()) % BATCH;
            for index in (0..lane.len()).rev() {
                lane.verify(index)?; // which becomes the last: those before it stay where they are
            }
            for _ in 0..replaced.min(lane.len()) {
                lane.free(0)?;
            }
            if !lane.is_empty() && draw.other() < 64 {
                lane.resize(draw.which() % lane.len(), draw.layout().size())?;
            }
            while lane.len() < BATCH && lane.alloc(draw.layout(), draw.zeroed())? {}
            let batch = lane.give(BATCH);
            if let Err(returned) = outbox.send(batch) {
                lane.receive(returned.0);
            }
        }
        lane.free_all()?;
        leave(&left, inbox);
        Ok(lane.report())
    })?;
    total.add(first.report());
    total.add(drain(config, Shape::PassTheBlock, left)?);
    Ok(total)
}
