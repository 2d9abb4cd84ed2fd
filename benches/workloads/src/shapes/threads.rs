//! What several threads do, each for itself or with each other's blocks.

use super::block::Block;
use crate::{timed, Done, Random, Scale};
use std::collections::VecDeque;
use std::sync::{Barrier, Condvar, Mutex};
use std::thread;

/// Does `work` in threads of their own, which begin together; gives each its number.
fn together(threads: usize, work: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        for i in 0..threads {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(i);
            });
        }
    });
}

/// `live` blocks in all, of which `n` are replaced at random, by so many threads.
fn live(threads: usize, live: usize, n: usize) -> Done {
    timed(2 * (live + n), || {
        together(threads, |i| {
            let mut random = Random::new(10 + i as u64);
            let mut blocks: Vec<Block> = (0..live / threads).map(|_| Block::new(random.log_uniform(4, 10))).collect();
            for _ in 0..n / threads {
                let place = random.below(blocks.len().max(1));
                let size = random.log_uniform(4, 10);
                if let Some(block) = blocks.get_mut(place) {
                    *block = Block::new(size);
                }
            }
        });
    })
}

pub(super) fn live_1(scale: Scale) -> Done {
    live(1, scale.of(300_000), scale.of(600_000))
}

pub(super) fn live_2(scale: Scale) -> Done {
    live(scale.threads(2), scale.of(300_000), scale.of(1_200_000))
}

/// Sets of blocks, as programs make them: of one size each, rising from set to set, more of the small ones. One set in
/// eight stays until the end of the round; the others go in the order in which they were made, the reverse, or mixed.
fn smartheap(threads: usize, n: usize) -> Done {
    const SIZES: [usize; 12] = [16, 24, 32, 48, 64, 96, 128, 200, 320, 512, 800, 1000];
    let set = |size: usize| 3000 / (size / 16);
    let per_round: usize = SIZES.iter().map(|size| set(*size)).sum::<usize>() * 8;
    timed(2 * n * per_round, || {
        together(threads, |_| {
            for round in 0..n / threads.min(n) {
                let mut kept = Vec::new();
                for pass in 0..8 {
                    for (i, size) in SIZES.into_iter().enumerate() {
                        let mut blocks: Vec<_> = (0..set(size)).map(|_| Block::new(size)).collect();
                        match (round + pass + i) % 8 {
                            0 => kept.push(blocks),
                            1..=3 => drop(blocks),
                            4..=5 => while blocks.pop().is_some() {},
                            _ => {
                                let mut k = 0;
                                while !blocks.is_empty() {
                                    k = (k + 7919) % blocks.len();
                                    blocks.swap_remove(k);
                                }
                            }
                        }
                    }
                }
            }
        });
    })
}

pub(super) fn smartheap_1(scale: Scale) -> Done {
    smartheap(1, scale.of(40))
}

pub(super) fn smartheap_2(scale: Scale) -> Done {
    smartheap(scale.threads(2), scale.of(80))
}

/// A server: each thread has 1,000 blocks of 10 to 500 bytes and replaces them at random; then it ends, and a successor
/// goes on with its blocks.
fn larson(threads: usize, successors: usize, n: usize) -> Done {
    const BLOCKS: usize = 1000;
    let size = |random: &mut Random| random.between(10, 501);
    let mut random = Random::new(20);
    let mut sets: Vec<Vec<Block>> =
        (0..threads).map(|_| (0..BLOCKS).map(|_| Block::new(size(&mut random))).collect()).collect();
    timed(2 * n, || {
        for successor in 0..successors {
            thread::scope(|scope| {
                for (i, set) in sets.iter_mut().enumerate() {
                    let mut random = Random::new((successor * threads + i) as u64);
                    scope.spawn(move || {
                        for _ in 0..n / threads / successors {
                            let place = random.below(BLOCKS);
                            set[place] = Block::new(size(&mut random));
                        }
                    });
                }
            });
        }
    })
}

pub(super) fn larson_2(scale: Scale) -> Done {
    larson(scale.threads(2), 20, scale.of(6_000_000))
}

pub(super) fn larson_8(scale: Scale) -> Done {
    larson(scale.threads(8), 20, scale.of(6_000_000))
}

/// Batches of blocks on their way from thread to thread, a few at a time.
struct Queue {
    batches: Mutex<(VecDeque<Vec<Block>>, usize)>,
    changed: Condvar,
}

/// Batches that a queue holds at most.
const DEPTH: usize = 16;

impl Queue {
    /// A queue that ends when so many producers have ended.
    fn new(producers: usize) -> Self {
        Self { batches: Mutex::new((VecDeque::with_capacity(DEPTH), producers)), changed: Condvar::new() }
    }

    fn push(&self, batch: Vec<Block>) {
        let mut queue = self.batches.lock().unwrap();
        while queue.0.len() == DEPTH {
            queue = self.changed.wait(queue).unwrap();
        }
        queue.0.push_back(batch);
        self.changed.notify_all();
    }

    fn pop(&self) -> Option<Vec<Block>> {
        let mut queue = self.batches.lock().unwrap();
        loop {
            match (queue.0.pop_front(), queue.1) {
                (None, 0) => return None,
                (None, _) => queue = self.changed.wait(queue).unwrap(),
                (batch, _) => {
                    self.changed.notify_all();
                    return batch;
                }
            }
        }
    }

    fn end(&self) {
        self.batches.lock().unwrap().1 -= 1;
        self.changed.notify_all();
    }
}

/// Blocks in a batch that goes from thread to thread.
const HANDED_OVER: usize = 100;

fn handover(producers: usize, consumers: usize, n: usize, size: fn(&mut Random) -> usize) -> Done {
    let queue = Queue::new(producers);
    let batches = n.div_ceil(HANDED_OVER * producers);
    timed(2 * batches * HANDED_OVER * producers, || {
        together(producers + consumers, |i| {
            if i < producers {
                let mut random = Random::new(30 + i as u64);
                for _ in 0..batches {
                    queue.push((0..HANDED_OVER).map(|_| Block::new(size(&mut random))).collect());
                }
                queue.end();
            } else {
                while let Some(batch) = queue.pop() {
                    assert!(!batch.is_empty());
                }
            }
        });
    })
}

pub(super) fn producer_consumer(scale: Scale) -> Done {
    handover(1, 1, scale.of(3_000_000), |_| 64)
}

pub(super) fn asymmetric(scale: Scale) -> Done {
    handover(1, 3, scale.of(1_000_000), |random| random.log_uniform(4, 12))
}

/// Threads in a ring: each allocates a batch, gives it to the next, and frees what it got.
pub(super) fn pass_the_block(scale: Scale) -> Done {
    let threads = scale.threads(4);
    let turns = scale.of(2_000_000) / HANDED_OVER / threads + 1;
    let queues: Vec<_> = (0..threads).map(|_| Queue::new(1)).collect();
    timed(2 * turns * HANDED_OVER * threads, || {
        together(threads, |i| {
            let mut random = Random::new(40 + i as u64);
            for _ in 0..turns {
                let batch = (0..HANDED_OVER).map(|_| Block::new(random.between(16, 257))).collect();
                queues[(i + 1) % threads].push(batch);
                let sum: usize = queues[i].pop().iter().flatten().map(|block| usize::from(block.first())).sum();
                assert!(sum > 0);
            }
        });
    })
}

/// What cache-scratch and cache-thrash write to a block before they free it.
const WRITES: usize = 100;

/// Each thread frees a block of 8 bytes that lies beside the others', and then allocates, writes to, and frees one.
pub(super) fn cache_scratch(scale: Scale) -> Done {
    let (threads, n) = (scale.threads(2), scale.of(1_000_000));
    let rounds = 100.min(n);
    timed(2 * n, || {
        for _ in 0..rounds {
            let given: Vec<_> = (0..threads).map(|_| Mutex::new(Some(Block::new(8)))).collect();
            together(threads, |i| {
                drop(given[i].lock().unwrap().take());
                for _ in 0..n / rounds / threads {
                    Block::new(8).scribble(WRITES);
                }
            });
        }
    })
}

/// Each thread allocates a block of 8 bytes, writes to it, and frees it.
pub(super) fn cache_thrash(scale: Scale) -> Done {
    let (threads, n) = (scale.threads(2), scale.of(1_000_000));
    timed(2 * n, || {
        together(threads, |_| {
            for _ in 0..n / threads {
                Block::new(8).scribble(WRITES);
            }
        });
    })
}

/// Two threads at a time allocate 400 blocks, free half, and leave the rest to the thread that started them.
pub(super) fn thread_churn(scale: Scale) -> Done {
    const BLOCKS: usize = 400;
    let (threads, n) = (scale.threads(2), scale.of(2000));
    timed(2 * n * BLOCKS, || {
        let mut left: VecDeque<Vec<Block>> = VecDeque::new();
        for round in 0..n.div_ceil(threads) {
            thread::scope(|scope| {
                let started: Vec<_> = (0..threads)
                    .map(|i| {
                        scope.spawn(move || {
                            let mut random = Random::new((round * threads + i) as u64);
                            let mut blocks: Vec<_> =
                                (0..BLOCKS).map(|_| Block::new(random.log_uniform(4, 11))).collect();
                            let mut turn = 0;
                            blocks.retain(|_| {
                                turn += 1;
                                turn % 2 == 0
                            });
                            blocks
                        })
                    })
                    .collect();
                left.extend(started.into_iter().map(|thread| thread.join().unwrap()));
            });
            if left.len() > 50 {
                left.drain(..25);
            }
        }
    })
}

/// Threads that allocate ten blocks and end, two at a time.
pub(super) fn short_threads(scale: Scale) -> Done {
    let (threads, n) = (scale.threads(2), scale.of(4000));
    timed(2 * n * 10, || {
        for _ in 0..n.div_ceil(threads) {
            together(threads, |i| {
                let blocks: Vec<_> = (1..11).map(|k| Block::new(k * 24 + i)).collect();
                assert_eq!(blocks.len(), 10);
            });
        }
    })
}
