//! `faults`: refuses every system call of every workload in turn, and ends with code 1 if Kmalloc did anything wrong.

use clap::Parser;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use stress::faults::{sites, watch_for_hangs, workloads, Sweep, Totals};
use stress::Violation;

/// Every n-th system call of every workload fails, alone and with all that follow; then every k-th, and each kind.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Workloads this many times as long
    #[arg(long, default_value_t = 1)]
    scale: usize,
    /// Not each call, and each k, with mappings in both placings: odd ones in one, even ones in the other
    #[arg(long)]
    in_turn: bool,
    /// Only one call in so many fails together with all that follow; each fails alone whatever this is
    #[arg(long, default_value = "1")]
    thin: NonZeroUsize,
    /// Two calls near each other fail in one run as well
    #[arg(long)]
    pairs: bool,
    /// Only pairs that are so many calls apart at least, to go on where a sweep was cut off
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// For so long two calls fail, all workloads together
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Only how many calls each workload makes
    #[arg(long)]
    count: bool,
    /// Only each N-th workload from the I-th on, so that several processes share the work
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = share)]
    share: (usize, usize),
    /// Only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

fn share(text: &str) -> Result<(usize, usize), &'static str> {
    let number = |text: &str| text.parse().map_err(|_| "not a number");
    let (first, all) = text.split_once('/').ok_or("not I/N")?;
    let (first, all) = (number(first)?, number(all)?);
    if first < all {
        Ok((first, all))
    } else {
        Err("I is not below N")
    }
}

/// Processor time of this process.
fn cpu() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn sweep(arguments: &Arguments) -> Result<Totals, Violation> {
    let mut workloads = workloads::all(arguments.scale);
    let mut number = (0..).map(|n| n % arguments.share.1);
    workloads.retain(|_| number.next() == Some(arguments.share.0));
    workloads.retain(|workload| workload.name.contains(&arguments.only));
    println!(
        "{:<26} {:>6} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7}",
        "workload", "calls", "singles", "pairs", "runs", "refused", "nulls", "cpu s"
    );
    let mut total = Totals::default();
    let mut left = Duration::from_secs(arguments.seconds);
    for (i, workload) in workloads.iter().enumerate() {
        let before = cpu();
        let mut sweep = Sweep::new(workload, arguments.in_turn)?;
        if !arguments.count && arguments.from <= 1 {
            sweep.singles()?;
            sweep.storms(arguments.thin.get())?;
        }
        let mut cut = "";
        if arguments.pairs {
            let began = Instant::now();
            if !sweep.pairs(arguments.from, began + left / (workloads.len() - i) as u32)? {
                cut = " cut off";
            }
            left = left.saturating_sub(began.elapsed());
        }
        let Totals { calls, runs, refused, nulls, singles, pairs } = sweep.totals();
        let seconds = (cpu() - before).as_secs_f64();
        let name = workload.name;
        println!("{name:<26} {calls:>6} {singles:>8} {pairs:>8} {runs:>8} {refused:>9} {nulls:>9} {seconds:>7.1}{cut}");
        total.add(sweep.totals());
    }
    Ok(total)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Calls are what counts here; huge pages would have the kernel clear memory that no run looks at.
    // SAFETY: changes how this process is given memory, and nothing of what it sees.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    watch_for_hangs();
    let total = match sweep(&arguments) {
        Ok(total) => total,
        Err(violation) => {
            eprintln!("{violation}");
            return ExitCode::FAILURE;
        }
    };
    let sites = sites::all();
    println!("\n{} call sites:\n  {}\n", sites.len(), sites.join("\n  "));
    let Totals { calls, runs, refused, nulls, singles, pairs } = total;
    println!("{calls} system calls in {runs} runs; {refused} refusals of the system, {nulls} of requests");
    println!("{singles} distinct (workload, call site, n), {pairs} distinct pairs of them");
    println!("each run: null or intact, everything freed, audit clean, every mapped byte known, then served in full");
    ExitCode::SUCCESS
}
