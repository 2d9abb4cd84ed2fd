//! Fault injection: workloads in which every system call fails in turn.
//!
//! A workload is a list of operations ([`workloads`]) on a system that chooses itself where mappings begin
//! ([`Placing`]), so it makes the same system calls each time: once where every long mapping is aligned by chance, once
//! where none is. It is run once for each number `n`, with the `n`-th call refused, until no call has that number.
//! After each run everything must hold that the interpreter checks on the way (a refusal is a refusal, contents are
//! intact), everything is freed while calls are still refused, and then, with none refused, the heap is valid,
//! reclaims, proves that it is empty, and can account for every byte that is mapped. The same heap then serves every
//! layer without a fault ([`workloads::probe`]), or, after more than two faults, the same operations again; and none of
//! that may be refused.
//!
//! What is counted is *injections* that differ: the workload, the numbers of the refused calls, and the places in the
//! allocator that made them ([`sites`]). Running the same again does not count.

pub mod sites;
pub mod workloads;

use crate::ops::{Claims, Instance, Placing, Player, Subject};
use crate::Violation;
use allocator_core::sys::{Call, Plan};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use workloads::{Play, Workload};

/// A run takes milliseconds; one that takes this long hangs.
const HANG: Duration = Duration::from_secs(100);

/// Furthest apart of two calls that are refused in one run: the second is to hit what the first refusal led to. So many
/// calls after the second such a run frees everything, whatever the workload has left to do.
pub const NEAR: u64 = 20;

/// Where mappings begin in the runs of a sweep. The second makes more calls.
const PLACINGS: [Placing; 2] = [Placing::Aligned, Placing::Unaligned];

/// What the watchdog looks at.
struct Beat {
    runs: AtomicU64,
    now: Mutex<String>,
}

static BEAT: Beat = Beat { runs: AtomicU64::new(0), now: Mutex::new(String::new()) };

/// Ends the process with a line about the current run when there is no progress.
pub fn watch_for_hangs() {
    std::thread::spawn(|| {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            std::thread::sleep(HANG / 20);
            let runs = BEAT.runs.load(Relaxed);
            if runs != seen {
                (seen, since) = (runs, Instant::now());
            } else if since.elapsed() > HANG {
                eprintln!("no end of {}", BEAT.now.lock().unwrap_or_else(PoisonError::into_inner));
                std::process::abort();
            }
        }
    });
}

/// What a sweep did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// System calls of the workload when none is refused, in both placings.
    pub calls: u64,
    /// Runs, each of the workload under a plan and then again without.
    pub runs: u64,
    /// Calls refused in all runs.
    pub refused: u64,
    /// Requests of the workload refused in all runs.
    pub nulls: u64,
    /// Injections of one fault that differ by workload, site and number.
    pub singles: u64,
    /// Injections of two faults that differ likewise.
    pub pairs: u64,
}

impl Totals {
    /// Adds another sweep.
    pub fn add(&mut self, other: Totals) {
        self.calls += other.calls;
        self.runs += other.runs;
        self.refused += other.refused;
        self.nulls += other.nulls;
        self.singles += other.singles;
        self.pairs += other.pairs;
    }
}

/// One workload and everything that was done to it.
pub struct Sweep<'w> {
    workload: &'w Workload,
    totals: Totals,
    calls: [u64; PLACINGS.len()],
    /// Each number is one placing's only.
    in_turn: bool,
    /// Of all its runs, one after the other: each ends with nothing claimed.
    claims: Claims,
    seen: HashSet<Vec<(u64, sites::Site)>>,
}

/// What one run saw.
struct Run {
    /// System calls until everything was freed.
    calls: u64,
    refused: u64,
}

impl<'w> Sweep<'w> {
    /// Runs the workload once in each placing without a fault. What is done with each call later is done in both placings,
    /// or in turn in one of them.
    pub fn new(workload: &'w Workload, in_turn: bool) -> Result<Self, Violation> {
        let mut this = Self {
            workload,
            totals: Totals::default(),
            calls: [0; PLACINGS.len()],
            in_turn,
            claims: Claims::default(),
            seen: HashSet::new(),
        };
        for (i, placing) in PLACINGS.into_iter().enumerate() {
            this.calls[i] = this.run(placing, Plan::Never, 0)?.calls;
        }
        this.totals.calls = this.calls.iter().sum();
        Ok(this)
    }

    /// From one number to the next in the same placing.
    fn step(&self) -> u64 {
        if self.in_turn {
            PLACINGS.len() as u64
        } else {
            1
        }
    }

    /// The first number of the first or the second placing.
    fn first_of(&self, placing: u64) -> u64 {
        placing.min(self.step())
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Every call fails alone.
    pub fn singles(&mut self) -> Result<(), Violation> {
        for (placing_number, placing) in (1..).zip(PLACINGS) {
            let (mut n, mut beyond) = (self.first_of(placing_number), 0);
            // Where two threads meet, the number of calls changes a little from run to run.
            while beyond < 3 {
                let run = self.run(placing, Plan::Nth(n), 1)?;
                beyond = if run.refused == 0 { beyond + 1 } else { 0 };
                n += self.step();
            }
        }
        Ok(())
    }

    /// One call in `every` fails with all that follow; each k-th fails; all of one kind do.
    pub fn storms(&mut self, every: usize) -> Result<(), Violation> {
        for ((placing_number, placing), calls) in (1..).zip(PLACINGS).zip(self.calls) {
            let from = (1..=calls).step_by(every).map(Plan::From);
            let each = (self.first_of(placing_number)..=calls.min(100)).step_by(self.step() as usize).map(Plan::Each);
            for plan in from.chain(each).chain(Call::ALL.map(Plan::Kind)) {
                self.run(placing, plan, 0)?;
            }
        }
        Ok(())
    }

    /// Every two calls that are near each other, but `from` calls apart at least, fail, until `end`. True if all were
    /// tried.
    pub fn pairs(&mut self, from: u64, end: Instant) -> Result<bool, Violation> {
        // By distance, so that a sweep that is cut off has been everywhere.
        for apart in from..=NEAR {
            for (placing, calls) in PLACINGS.into_iter().zip(self.calls) {
                for n in 1..=calls {
                    if Instant::now() >= end {
                        return Ok(false);
                    }
                    self.run(placing, Plan::Pair(n, n + apart), 2)?;
                }
            }
        }
        Ok(true)
    }

    /// One run under a plan. `planned`: how many refusals it names, if it names them one by one.
    fn run(&mut self, placing: Placing, plan: Plan, planned: usize) -> Result<Run, Violation> {
        let name = format!("{} under {plan:?}, mappings {placing:?}", self.workload.name);
        BEAT.now.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&name);
        sites::record(planned > 0);
        let done =
            run(self.workload, &self.claims, placing, plan).map_err(|what| Violation(format!("{name}: {what}")))?;
        BEAT.runs.fetch_add(1, Relaxed);
        let hit = sites::take();
        self.totals.runs += 1;
        self.totals.refused += done.0.refused;
        self.totals.nulls += done.1;
        if planned > 0 && hit.len() == planned && self.seen.insert(hit) {
            match planned {
                1 => self.totals.singles += 1,
                _ => self.totals.pairs += 1,
            }
        }
        Ok(done.0)
    }
}

/// The workload under a plan, and again without. Also returns how many requests were refused.
fn run(workload: &Workload, claims: &Claims, placing: Placing, plan: Plan) -> Result<(Run, u64), Violation> {
    let mut instance = Instance::watched(workload.with_epoch, placing, workload.lanes, Some(sites::watcher));
    instance.fail(plan);
    let mut player = Player::new(instance, claims, workload.limits, 0);
    let last = match plan {
        Plan::Pair(_, second) => second + NEAR,
        _ => u64::MAX,
    };
    workload.play(&mut player, claims, last)?;
    player.validate()?;
    player.free_all()?;
    let os = player.subject().os();
    let run = Run { calls: os.calls(), refused: os.refused() };
    let nulls = player.counts().refused;
    player.settle()?;
    match plan {
        Plan::Nth(_) | Plan::Pair(..) => workloads::probe().into_iter().try_for_each(|op| player.play(op))?,
        _ => workload.play(&mut player, claims, u64::MAX)?,
    }
    player.finish()?;
    Ok((run, nulls))
}

impl Workload {
    /// Plays it; what one thread does alone ends with the `last` system call.
    fn play(&self, player: &mut Player<'_, Instance>, claims: &Claims, last: u64) -> Result<(), Violation> {
        match &self.play {
            Play::Alone(ops) => {
                for op in ops {
                    if player.subject().os().calls() >= last {
                        break;
                    }
                    player.play(*op)?;
                }
                Ok(())
            }
            Play::Together(first, second) => workloads::together(player, claims, self.limits, first, second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Limits;

    /// Sites are recorded for the process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn a_sweep_refuses_every_call_once_and_knows_where_it_was_made() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = Limits { bytes: 64 << 20, blocks: 10_000, whole: 512 };
        let play = Play::Alone(workloads::probe());
        let workload = Workload { name: "probe", with_epoch: true, lanes: 4, limits, play };
        let mut sweep = Sweep::new(&workload, false).unwrap();
        sweep.singles().unwrap();
        let Totals { calls, runs, refused, singles, pairs, .. } = sweep.totals();
        assert!(calls > 10, "{calls} calls");
        // For each placing one run without a fault, one for each call, three beyond the last. Sites that both reach at
        // the same number count once.
        assert!(runs == refused + 8 && pairs == 0, "{:?}", sweep.totals());
        assert!(calls / 2 < singles && singles < refused, "{:?}", sweep.totals());
        let sites = sites::all();
        assert!(sites.iter().any(|site| site.starts_with("Reserve arena.rs")), "{sites:?}");
        assert!(sites.iter().all(|site| site.contains(".rs:")), "{sites:?}");
        // The same again makes the same calls in the same lines.
        sweep.singles().unwrap();
        let again = sweep.totals();
        assert_eq!((again.refused, again.singles), (2 * refused, singles));
        // In turn, half of them.
        let mut sweep = Sweep::new(&workload, true).unwrap();
        sweep.singles().unwrap();
        let half = sweep.totals().refused;
        assert!(half.abs_diff(refused / 2) <= 1, "{half} of {refused}");
    }

    #[test]
    fn a_storm_and_pairs_leave_every_heap_whole() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let workloads = workloads::all(1);
        let workload = workloads.iter().find(|workload| workload.name == "areas").unwrap();
        let mut sweep = Sweep::new(workload, true).unwrap();
        sweep.storms(16).unwrap();
        sweep.pairs(1, Instant::now() + Duration::from_secs(5)).unwrap();
        let totals = sweep.totals();
        assert!(totals.nulls > 0 && totals.pairs > 0, "{totals:?}");
    }
}
