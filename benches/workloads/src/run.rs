//! How much of the work a run does, and what it says at the end.

use std::time::{Duration, Instant};

/// How much of the full work a run does, and by how many threads.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    part: f64,
    threads: Option<usize>,
}

impl Scale {
    /// All of it.
    pub const FULL: Self = Self { part: 1.0, threads: None };

    /// This part of it.
    pub fn new(part: f64) -> Self {
        Self { part, ..Self::FULL }
    }

    /// By so many threads, where the row does not fix their number.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// So much of `n`, and at least one.
    pub fn of(self, n: usize) -> usize {
        ((n as f64 * self.part) as usize).max(1)
    }

    /// Threads of a row that uses `usual` of them.
    pub fn threads(self, usual: usize) -> usize {
        self.threads.unwrap_or(usual)
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// How long the work itself took: neither preparation nor the process.
    pub time: Duration,
    /// Operations that the row counts: calls of the allocator where it makes them itself, else units of its work.
    pub operations: u64,
}

/// Does the work and takes its time.
pub fn timed(operations: usize, work: impl FnOnce()) -> Done {
    let begin = Instant::now();
    work();
    Done { time: begin.elapsed(), operations: operations as u64 }
}

/// A generator of numbers that is the same everywhere and costs next to nothing (xorshift64*).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// One that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        (((self.draw() >> 32) * n as u64) >> 32) as usize
    }

    /// A number of `low..high`.
    #[inline]
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low)
    }

    /// A number of `1 << low..1 << high`: as likely to lie between one pair of powers of two as between another.
    #[inline]
    pub fn log_uniform(&mut self, low: usize, high: usize) -> usize {
        let base = 1 << self.between(low, high);
        base + self.below(base)
    }
}
