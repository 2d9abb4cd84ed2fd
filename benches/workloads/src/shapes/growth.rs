//! Growth, and blocks so large that the system's page faults are most of the work.

use super::block::Block;
use crate::{timed, Done, Random, Scale};
use std::hint::black_box;

fn vectors(n: usize, length: usize) -> Done {
    timed(n * length, || {
        for _ in 0..n {
            let mut numbers = Vec::new();
            for i in 0..length {
                numbers.push(black_box(i as u64));
            }
            black_box(&numbers);
        }
    })
}

pub(super) fn vec_small(scale: Scale) -> Done {
    vectors(scale.of(500_000), 100)
}

pub(super) fn vec_large(scale: Scale) -> Done {
    vectors(scale.of(30), 1 << 20)
}

pub(super) fn vec_huge(scale: Scale) -> Done {
    let slices = scale.of(512 << 8);
    let slice = [7; 4096];
    timed(slices, || {
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..slices {
            bytes.extend_from_slice(black_box(&slice));
        }
        black_box(&bytes);
    })
}

/// `live` blocks at a time, each replaced by the next in turn.
fn ring(live: usize, sizes: &[usize], n: usize, make: impl Fn(usize) -> Block) -> Done {
    let mut blocks: Vec<Option<Block>> = (0..live).map(|_| None).collect();
    timed(2 * n, || {
        for i in 0..n {
            blocks[i % live] = Some(make(sizes[i % sizes.len()]));
        }
        blocks.clear();
    })
}

fn sizes(seed: u64, low: usize, high: usize) -> Vec<usize> {
    let mut random = Random::new(seed);
    (0..1021).map(|_| random.log_uniform(low, high)).collect()
}

fn touched(one_in: usize) -> impl Fn(usize) -> Block {
    move |size| {
        let mut block = Block::new(size);
        block.touch(one_in);
        block
    }
}

pub(super) fn pages(scale: Scale) -> Done {
    ring(500, &sizes(1, 12, 15), scale.of(700_000), touched(1))
}

pub(super) fn large(scale: Scale) -> Done {
    ring(16, &sizes(2, 16, 22), scale.of(3000), touched(1))
}

pub(super) fn huge(scale: Scale) -> Done {
    ring(4, &sizes(3, 23, 25), scale.of(40), touched(1))
}

pub(super) fn zeroed(scale: Scale) -> Done {
    let make = |size| {
        let mut block = Block::zeroed(size);
        block.touch(8);
        block
    };
    ring(16, &sizes(4, 16, 22), scale.of(3000), make)
}
