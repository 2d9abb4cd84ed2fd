//! `stress`: runs shapes of load and ends with code 1 if Kmalloc did anything wrong.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stress::front::System;
use stress::ops::Profile;
use stress::progress::PROGRESS;
use stress::shapes::Shape;
use stress::soak::{soak, Plan, State};
use stress::{run, Config, Limit, Report, Violation};

/// Random loads of many threads on Kmalloc, every block verified to its last byte.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Each shape once, on one system
    Run(Run),
    /// Every shape on every system in turn, with a line of progress each second
    Soak(Soak),
    /// Few threads, which a scheduler lets go on in an order that a seed chooses
    #[cfg(feature = "schedules")]
    Schedules(Schedules),
}

#[cfg(feature = "schedules")]
#[derive(Args)]
struct Schedules {
    /// How long to run, each time with the next seed
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The first seed [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// So many runs instead of a time
    #[arg(long)]
    runs: Option<u64>,
}

#[cfg(feature = "schedules")]
fn schedules(arguments: &Schedules) -> Result<(), Violation> {
    let first = arguments.seed.unwrap_or_else(from_the_clock);
    println!("schedules from seed {first} on");
    let (started, mut total) = (Instant::now(), stress::schedules::Done::default());
    let (mut runs, mut told) = (0, Instant::now());
    while arguments.runs.map_or(started.elapsed().as_secs() < arguments.seconds, |most| runs < most) {
        let done = stress::schedules::run(first.wrapping_add(runs))?;
        total.counts.add(done.counts);
        total.windows += done.windows;
        runs += 1;
        if told.elapsed().as_secs() >= 10 {
            println!("{runs} schedules, {} operations, {} windows", total.counts.ops, total.windows);
            told = Instant::now();
        }
    }
    let stress::ops::Counts { ops, verified, refused, .. } = total.counts;
    println!(
        "schedules: {runs} from seed {first}, {ops} operations, {verified} verified, {refused} refused, {} windows",
        total.windows
    );
    if runs > 0 && total.windows == 0 {
        return Err(Violation("no thread met a window: every schedule was one of whole calls".into()));
    }
    Ok(())
}

#[derive(Args)]
struct Common {
    /// Chooses every operation; the same seed, threads and ops replay the same streams [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Threads that allocate [default: 4 for each processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Only these shapes [default: all but the fork storm]
    #[arg(long = "shape", value_enum, num_args = 1..)]
    shapes: Vec<Shape>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// How long to run, all shapes together
    #[arg(long, default_value_t = 10, conflicts_with = "ops")]
    seconds: u64,
    /// Operations of each thread in each shape, instead of a time; a 32nd of it in the sawtooth, whose blocks are large
    #[arg(long)]
    ops: Option<u64>,
    /// What is under the heap
    #[arg(long, value_enum, default_value = "real")]
    system: System,
    /// Which sizes, where the shape does not say it
    #[arg(long, value_enum, default_value = "program")]
    profile: Profile,
}

#[derive(Args)]
struct Soak {
    #[command(flatten)]
    common: Common,
    /// How long to run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Goes on until so many blocks were verified, however long that takes
    #[arg(long, default_value_t = 0)]
    verified: u64,
    /// Seconds between two lines of progress
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// A file that remembers how far the soak has come; if it is there, the soak goes on, with the seed in it
    #[arg(long)]
    state: Option<PathBuf>,
}

fn from_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs().rotate_left(32) ^ u64::from(now.subsec_nanos())
}

impl Common {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(from_the_clock)
    }

    fn threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or(4 * processors, usize::from)
    }

    fn shapes(&self) -> Vec<Shape> {
        if self.shapes.is_empty() {
            Shape::DEFAULT.to_vec()
        } else {
            self.shapes.clone()
        }
    }
}

fn run_all(arguments: &Run) -> Result<(), Violation> {
    let (seed, threads, shapes) = (arguments.common.seed(), arguments.common.threads(), arguments.common.shapes());
    let limit = match arguments.ops {
        Some(ops) => Limit::Ops(ops),
        None => Limit::Time(Duration::from_secs(arguments.seconds) / shapes.len() as u32),
    };
    let config = Config { seed, threads, limit, system: arguments.system, profile: arguments.profile };
    println!("seed {seed}, {threads} threads, on {:?}", config.system);
    let mut total = Report::default();
    for shape in shapes {
        let started = Instant::now();
        let report = run(&config, shape).map_err(|what| Violation(format!("seed {seed}, {shape:?}: {what}")))?;
        let Report { ops, verified, bytes, refused, .. } = report;
        let (name, mib, time) = (format!("{shape:?}"), bytes >> 20, started.elapsed().as_secs_f64());
        println!("{name:<15} {ops:>11} ops {verified:>11} verified {mib:>8} MiB {refused:>6} refused {time:>7.1} s");
        if report.forks > 0 {
            println!("{name:<15} {:>11} forks, each child allocated, freed and ended", report.forks);
        }
        total.add(report);
    }
    println!("{} operations, {} blocks verified, streams {:016x}", total.ops, total.verified, total.digest);
    Ok(())
}

fn soak_all(arguments: &Soak) -> Result<(), Violation> {
    let failed = |what: std::io::Error| Violation(format!("the state file: {what}"));
    let earlier = match &arguments.state {
        Some(path) => State::load(path).map_err(failed)?,
        None => None,
    };
    let mut state = earlier.unwrap_or_else(|| State::new(arguments.common.seed()));
    let plan = Plan {
        seed: state.seed,
        threads: arguments.common.threads(),
        time: Duration::from_secs(arguments.seconds),
        verified: arguments.verified,
        shapes: arguments.common.shapes(),
        every: Duration::from_secs(arguments.every),
    };
    let hooks = if cfg!(feature = "yields") { ", yields in race windows" } else { "" };
    println!("seed {}, {} threads, from slice {}{hooks}", state.seed, plan.threads, state.slices);
    soak(&plan, &mut state, |state| arguments.state.as_ref().map_or(Ok(()), |path| state.save(path)))?;
    let State { seed, slices, millis, ops, verified, bytes } = state;
    let (seconds, mean) = (millis / 1000, bytes / verified.max(1));
    println!(
        "soak: seed {seed}, {seconds} s, {slices} slices, {ops} operations, {verified} verified, {mean} bytes on average"
    );
    Ok(())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => {
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                // Without lines of its own; it is here to notice when nothing moves.
                scope.spawn(|| PROGRESS.report(Duration::MAX, 0, &done));
                let result = run_all(&arguments);
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                result
            })
        }
        Command::Soak(arguments) => soak_all(&arguments),
        #[cfg(feature = "schedules")]
        Command::Schedules(arguments) => schedules(&arguments),
    };
    match result {
        Ok(()) => {
            println!("everything is freed; the heap is valid and empty");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}
