//! Soak: every shape on every system in turn, for as long as one likes, and on from where an earlier run ended.
//!
//! A soak is a row of slices. Slice `n` has a shape and a system by its place in the rota, and a seed made from the
//! soak's and `n`: so one slice can be run again by itself. After each one the heap must prove that it is empty.

use crate::front::System;
use crate::ops::Profile;
use crate::progress::PROGRESS;
use crate::shapes::Shape;
use crate::{run, Config, Limit, Report, Violation};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// What a soak is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Chooses the seeds of all slices.
    pub seed: u64,
    /// Threads that allocate.
    pub threads: usize,
    /// How long it runs, not counting earlier runs.
    pub time: Duration,
    /// It does not end before so many were verified, by this run and those before.
    pub verified: u64,
    /// What it is made of.
    pub shapes: Vec<Shape>,
    /// Time between two lines of progress.
    pub every: Duration,
}

/// How far a soak has come, over all its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The soak's seed.
    pub seed: u64,
    /// Slices that are done.
    pub slices: u64,
    /// Milliseconds that they took.
    pub millis: u64,
    /// Operations drawn.
    pub ops: u64,
    /// Blocks verified.
    pub verified: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
}

impl State {
    /// The beginning.
    pub fn new(seed: u64) -> Self {
        Self { seed, slices: 0, millis: 0, ops: 0, verified: 0, bytes: 0 }
    }

    /// As the earlier run left it in a file; `None` if there is no such file.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let numbers: Vec<u64> = text.lines().filter_map(|line| line.split_once(' ')?.1.parse().ok()).collect();
        match numbers[..] {
            [seed, slices, millis, ops, verified, bytes] => {
                Ok(Some(Self { seed, slices, millis, ops, verified, bytes }))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not the state of a soak")),
        }
    }

    /// Into a file, which always has the old state or the new one.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let Self { seed, slices, millis, ops, verified, bytes } = self;
        let new = path.with_extension("new");
        let lines = format!(
            "seed {seed}\nslices {slices}\nmilliseconds {millis}\noperations {ops}\nverified {verified}\nbytes {bytes}\n"
        );
        fs::write(&new, lines)?;
        fs::rename(new, path)
    }

    fn add(&mut self, report: Report, time: Duration) {
        self.slices += 1;
        self.millis += time.as_millis() as u64;
        self.ops += report.ops;
        self.verified += report.verified;
        self.bytes += report.bytes;
    }
}

/// Every shape on the real system, and again in the storm; those that take most are also led to the edge.
fn rota(shapes: &[Shape]) -> Vec<(Shape, System)> {
    let mut rota = Vec::new();
    for shape in shapes {
        rota.push((*shape, System::Real));
        rota.push((*shape, System::Storm));
        if matches!(shape, Shape::Sawtooth | Shape::Phases) {
            rota.push((*shape, System::Edge));
        }
    }
    rota
}

/// One for each time around. Many operations, and now and then larger blocks, with which the kernel is busier.
const PROFILES: [Profile; 8] = [
    Profile::Busy,
    Profile::Small,
    Profile::Small,
    Profile::Small,
    Profile::Program,
    Profile::Small,
    Profile::Small,
    Profile::Small,
];

/// Runs slices until the plan is done. `saved` is called after each one.
pub fn soak(plan: &Plan, state: &mut State, mut saved: impl FnMut(&State) -> io::Result<()>) -> Result<(), Violation> {
    let rota = rota(&plan.shapes);
    // Twice around at least, and not so long that little is left if a run is ended early.
    let slice = (plan.time / (2 * rota.len() as u32)).clamp(Duration::from_millis(200), Duration::from_secs(20));
    let (started, done) = (Instant::now(), AtomicBool::new(false));
    let before = state.verified;
    thread::scope(|scope| {
        scope.spawn(|| PROGRESS.report(plan.every, before, &done));
        let result = (|| {
            while started.elapsed() < plan.time || state.verified < plan.verified {
                let (shape, system) = rota[(state.slices % rota.len() as u64) as usize];
                let config = Config {
                    seed: seed_of(plan.seed, state.slices),
                    threads: plan.threads,
                    // The sawtooth moves many bytes for one block.
                    limit: Limit::Time(if shape == Shape::Sawtooth { slice / 4 } else { slice }),
                    system,
                    profile: PROFILES[(state.slices / rota.len() as u64) as usize % PROFILES.len()],
                };
                PROGRESS.doing(format!("slice {} {shape:?} on {system:?}", state.slices));
                let begin = Instant::now();
                let report = run(&config, shape).map_err(|what| {
                    let (n, seed) = (state.slices, config.seed);
                    Violation(format!("slice {n}, {shape:?} on {system:?}, seed {seed}: {what}"))
                })?;
                state.add(report, begin.elapsed());
                saved(state).map_err(|what| Violation(format!("the state cannot be saved: {what}")))?;
            }
            Ok(())
        })();
        done.store(true, Relaxed);
        result
    })
}

/// The seed of one slice.
fn seed_of(seed: u64, slice: u64) -> u64 {
    (seed ^ slice.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(23).wrapping_mul(0xd6e8_feb8_6659_fd93)
}
