//! What one thread does alone.

use super::block::Block;
use crate::{timed, Done, Random, Scale};

/// Sizes drawn beforehand, so that drawing them is not part of the work: a power of two of them.
const DRAWN: usize = 1 << 12;

fn drawn(seed: u64, mut size: impl FnMut(&mut Random) -> usize) -> Vec<usize> {
    let mut random = Random::new(seed);
    (0..DRAWN).map(|_| size(&mut random)).collect()
}

fn pairs(sizes: &[usize], n: usize) -> Done {
    timed(2 * n, || {
        for i in 0..n {
            drop(Block::new(sizes[i & (DRAWN - 1)]));
        }
    })
}

pub(super) fn pair_fixed(scale: Scale) -> Done {
    pairs(&[48; DRAWN], scale.of(8_000_000))
}

pub(super) fn pair_mixed(scale: Scale) -> Done {
    pairs(&drawn(1, |random| random.between(8, 1025)), scale.of(6_000_000))
}

pub(super) fn pair_mid(scale: Scale) -> Done {
    pairs(&drawn(2, |random| random.between(1 << 10, (32 << 10) + 1)), scale.of(3_000_000))
}

/// Blocks in a batch.
const BATCH: usize = 10_000;

/// In which order a batch is freed.
enum Order {
    Lifo,
    Fifo,
    Random,
}

fn batches(sizes: &[usize], order: Order, n: usize) -> Done {
    let mut random = Random::new(3);
    let mut turns: Vec<usize> = (0..BATCH).collect();
    match order {
        Order::Lifo => turns.reverse(),
        Order::Fifo => {}
        Order::Random => (1..BATCH).rev().for_each(|i| turns.swap(i, random.below(i + 1))),
    }
    let mut blocks: Vec<Option<Block>> = (0..BATCH).map(|_| None).collect();
    timed(2 * BATCH * n, || {
        for _ in 0..n {
            for (i, block) in blocks.iter_mut().enumerate() {
                *block = Some(Block::new(sizes[i & (DRAWN - 1)]));
            }
            for &turn in &turns {
                blocks[turn] = None;
            }
        }
    })
}

pub(super) fn batch_lifo(scale: Scale) -> Done {
    batches(&[48; DRAWN], Order::Lifo, scale.of(300))
}

pub(super) fn batch_fifo(scale: Scale) -> Done {
    batches(&[48; DRAWN], Order::Fifo, scale.of(300))
}

pub(super) fn batch_random(scale: Scale) -> Done {
    batches(&[48; DRAWN], Order::Random, scale.of(200))
}

pub(super) fn batch_mixed(scale: Scale) -> Done {
    batches(&drawn(4, |random| random.between(16, 513)), Order::Fifo, scale.of(200))
}

/// Each phase allocates so many bytes in blocks of its own mix of sizes, and frees all but one in `SURVIVORS`.
const PHASE_BYTES: usize = 24 << 20;
const SURVIVORS: usize = 20;
/// Mixes of sizes: from and to a power of two.
const MIXES: [(usize, usize); 8] = [(4, 6), (6, 9), (12, 14), (4, 8), (9, 12), (14, 17), (5, 10), (7, 8)];

pub(super) fn phases(scale: Scale) -> Done {
    let mut random = Random::new(5);
    let sizes = MIXES.map(|(low, high)| {
        let mut left = scale.of(PHASE_BYTES) as isize;
        let mut sizes = Vec::new();
        while left > 0 {
            let size = random.log_uniform(low, high);
            sizes.push(size);
            left -= size as isize;
        }
        sizes
    });
    let all: usize = sizes.iter().map(Vec::len).sum();
    let mut survivors = Vec::with_capacity(all / SURVIVORS + sizes.len());
    let mut blocks = Vec::with_capacity(sizes.iter().map(Vec::len).max().unwrap_or(0));
    timed(2 * all, || {
        for sizes in &sizes {
            for &size in sizes {
                let mut block = Block::new(size);
                block.touch(1);
                blocks.push(block);
            }
            for (i, block) in blocks.drain(..).enumerate() {
                if i % SURVIVORS == 0 {
                    survivors.push(block);
                }
            }
        }
        survivors.clear();
    })
}

/// Blocks alive at a time.
const ALIGNED: usize = 4096;

pub(super) fn aligned(scale: Scale) -> Done {
    let mut random = Random::new(6);
    let mut draw = || {
        let align = 1 << random.between(4, 13);
        (random.between(1, 2 * align + 1), align, random.below(ALIGNED))
    };
    let requests: Vec<_> = (0..1 << 16).map(|_| draw()).collect();
    let mut blocks: Vec<Option<Block>> = (0..ALIGNED).map(|_| None).collect();
    let n = scale.of(1_500_000);
    timed(2 * n, || {
        for i in 0..n {
            let (size, align, place) = requests[i & ((1 << 16) - 1)];
            blocks[place] = Some(Block::aligned(size, align));
        }
        blocks.clear();
    })
}
