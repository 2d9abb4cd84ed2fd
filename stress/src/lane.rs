//! Lane: one thread's part of a run: its generator, its clock, its blocks.

use crate::front::Shared;
use crate::ops::{Block, Claims, Limits, Op, Player, Profile, Record};
use crate::progress::PROGRESS;
use crate::shapes::Shape;
use crate::{Config, Limit, Report, Violation};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::alloc::Layout;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::LazyLock;
use std::thread;
use std::time::Instant;

/// Whose every address is, for all heaps of the process.
static CLAIMS: LazyLock<Claims> = LazyLock::new(Claims::default);

/// Every block is verified from end to end. Where there are forks, each page that is touched again is copied.
fn limits(shape: Shape) -> Limits {
    let (bytes, blocks) = if shape == Shape::ForkStorm { (1 << 20, 200) } else { (128 << 20, 4000) };
    Limits { bytes, blocks, whole: usize::MAX }
}

/// Operations between two looks at the clock, and at the progress of all. Those of the sawtooth take long enough.
fn interval(shape: Shape) -> u64 {
    if shape == Shape::Sawtooth {
        1
    } else {
        64
    }
}

/// What was drawn for one operation. All of it is drawn each time, whatever of it is used then.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    record: Record,
    profile: Profile,
}

impl Draw {
    /// The operation that the language makes of it.
    pub fn op(&self) -> Op {
        Op::decode(self.profile, self.record)
    }

    /// A size and an alignment.
    pub fn layout(&self) -> Layout {
        let [_, _, align, band, low, high, ..] = self.record;
        self.profile.layout(band, u16::from_le_bytes([low, high]), align)
    }

    /// Which of 256 things to do.
    pub fn choice(&self) -> u8 {
        self.record[0]
    }

    /// Which of the other threads, or how many; and whether zeros are asked for.
    pub fn other(&self) -> usize {
        usize::from(self.record[1])
    }

    /// Whether zeros are asked for.
    pub fn zeroed(&self) -> bool {
        self.record[1] % 4 == 3
    }

    /// Which of the thread's blocks.
    pub fn which(&self) -> usize {
        usize::from(u16::from_le_bytes([self.record[6], self.record[7]]))
    }

    /// About this size: a half of it up to all of it.
    pub fn near(&self, size: usize) -> Layout {
        let fine = usize::from(u16::from_le_bytes([self.record[4], self.record[5]]));
        Layout::from_size_align(size.div_ceil(2) + size / 2 * fine / 0x1_0000, 8)
            .expect("sizes are far below the limit")
    }
}

/// One thread's part of a run.
pub struct Lane {
    player: Player<'static, Shared>,
    rng: ChaCha8Rng,
    profile: Profile,
    limit: Limit,
    interval: u64,
    started: Instant,
    ops: u64,
    digest: u64,
    told: (u64, u64, usize),
}

impl Lane {
    /// `label` is unique among the lanes of a run.
    pub fn new(config: &Config, shape: Shape, label: u32, limit: Limit) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream((shape as u64) << 32 | u64::from(label));
        Self {
            player: Player::new(Shared(config.system.front()), &CLAIMS, limits(shape), label),
            rng,
            profile: config.profile,
            limit,
            interval: interval(shape),
            started: Instant::now(),
            ops: 0,
            digest: 0,
            told: (0, 0, 0),
        }
    }

    /// What to do next, or `None` when the lane is at its end or another one has found a violation.
    pub fn next(&mut self, stop: &AtomicBool) -> Option<Draw> {
        let over = match self.limit {
            Limit::Ops(ops) => self.ops >= ops,
            // However late its thread began, a lane does something.
            Limit::Time(time) => {
                self.ops > 0 && self.ops % self.interval == self.interval - 1 && self.started.elapsed() >= time
            }
        };
        if over || stop.load(Relaxed) {
            return None;
        }
        let drawn: u64 = self.rng.random();
        self.ops += 1;
        self.digest = (self.digest.rotate_left(7) ^ drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.ops.is_multiple_of(self.interval) {
            self.tell();
        }
        if drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56 == 0 {
            thread::yield_now(); // elsewhere than at the end of a time slice
        }
        Some(Draw { record: drawn.to_le_bytes(), profile: self.profile })
    }

    /// Adds what was done since the last time to the progress of all.
    fn tell(&mut self) {
        let now = (self.ops, self.player.counts().verified, self.player.bytes());
        PROGRESS.ops.fetch_add(now.0 - self.told.0, Relaxed);
        PROGRESS.verified.fetch_add(now.1 - self.told.1, Relaxed);
        PROGRESS.live.fetch_add(now.2.wrapping_sub(self.told.2), Relaxed); // wraps on the way down
        self.told = now;
    }

    /// Does an operation of the language.
    pub fn play(&mut self, op: Op) -> Result<(), Violation> {
        self.player.play(op)
    }

    /// Allocates a block, which becomes the lane's last. False if it was refused.
    pub fn alloc(&mut self, layout: Layout, zeroed: bool) -> Result<bool, Violation> {
        self.player.alloc(0, layout, zeroed)
    }

    /// How many blocks the lane has.
    pub fn len(&self) -> usize {
        self.player.blocks(0).len()
    }

    /// Whether the lane has no blocks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of a block.
    pub fn size(&self, index: usize) -> usize {
        self.player.blocks(0)[index].layout().size()
    }

    /// Verifies a block and changes its size, if that is not refused. It becomes the last.
    pub fn resize(&mut self, index: usize, size: usize) -> Result<(), Violation> {
        self.player.resize(0, index, size)
    }

    /// Verifies a block. It becomes the last.
    pub fn verify(&mut self, index: usize) -> Result<(), Violation> {
        self.player.verify(0, index)
    }

    /// Verifies a block and frees it; the last takes its place.
    pub fn free(&mut self, index: usize) -> Result<(), Violation> {
        self.player.free(0, index)
    }

    /// Verifies and frees all blocks.
    pub fn free_all(&mut self) -> Result<(), Violation> {
        self.player.free_all()
    }

    /// Takes up to `n` blocks out of the lane, the last ones first, for another to receive.
    pub fn give(&mut self, n: usize) -> Vec<Block> {
        (0..n.min(self.len())).map(|_| self.player.give(0, self.len() - 1)).collect()
    }

    /// Puts blocks that another gave into the lane.
    pub fn receive(&mut self, blocks: Vec<Block>) {
        for block in blocks {
            self.player.receive(0, block);
        }
    }

    /// What the lane did.
    pub fn report(&self) -> Report {
        let counts = self.player.counts();
        Report {
            ops: self.ops,
            verified: counts.verified,
            bytes: counts.bytes,
            refused: counts.refused,
            forks: 0,
            digest: self.digest,
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.tell();
        // What is left is not this lane's any more: on the way to others, or lost with a violation.
        PROGRESS.live.fetch_sub(self.told.2, Relaxed);
    }
}
