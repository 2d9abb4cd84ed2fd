//! A program under the allocator that a feature of `allocators` has chosen: it runs one row of the workloads, or times
//! single operations, and prints what it measured in a line that `compare` reads.
//!
//! | arguments                      | prints                                                                       |
//! |--------------------------------|------------------------------------------------------------------------------|
//! | `row NAME [PART [THREADS]]`    | nanoseconds, operations, peak of resident memory in KiB                      |
//! | `latency [PART]`               | peak of resident memory in KiB, then value and count of each step, in pairs  |
//! | `count NAME [PART [THREADS]]`  | operations, then what Kmalloc did in all: see `counts` (only with that feature) |
//! | `returns NAME [PART]`          | KiB that are alive, the peak, and resident at once, after 1, 2, and 5 s      |
//! | `day NAME [PART]`              | a line each quarter of a second: milliseconds, KiB that are alive, KiB resident |
//! | `rows`, `scenarios`, `days`    | name and description of each, a line each                                    |

#[cfg(feature = "counts")]
mod counts;

use allocators::{Allocator, ALLOCATOR};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use workloads::days::{self, Sample, DAYS};
use workloads::returns::SCENARIOS;
use workloads::Scale;

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

/// All code behind this begins so many times 16 bytes later: loops of a few instructions take up to half as long again by
/// where in a cache line they lie, which nobody has a say in.
const SHIFT: usize = match option_env!("RIVALS_SHIFT") {
    Some(digit) => (digit.as_bytes()[0] - b'0') as usize,
    None => 0,
};
std::arch::global_asm!(
    r#".pushsection .text.shift, "axR", @progbits"#,
    ".p2align 4",
    ".skip {}",
    ".popsection",
    const 16 * SHIFT
);

/// How much of its work a row does, and by how many threads.
fn scale(arguments: &[&str]) -> Option<Scale> {
    let part = |text: &str| text.parse().ok().map(Scale::new);
    match arguments {
        [] => Some(Scale::FULL),
        [part_of] => part(part_of),
        [part_of, threads] => Some(part(part_of)?.with_threads(threads.parse().ok()?)),
        _ => None,
    }
}

fn run(arguments: &[&str]) -> Option<()> {
    match arguments {
        ["row", name, more @ ..] => {
            let done = (workloads::row(name)?.run)(scale(more)?);
            println!("{} {} {}", done.time.as_nanos(), done.operations, benches::rss::peak_kib());
        }
        ["latency", more @ ..] => {
            let times = workloads::latencies(scale(more)?);
            print!("{}", benches::rss::peak_kib());
            for step in times.iter_recorded() {
                print!(" {} {}", step.value_iterated_to(), step.count_at_value());
            }
            println!();
        }
        #[cfg(feature = "counts")]
        ["count", name, more @ ..] => {
            let (row, scale) = (workloads::row(name)?, scale(more)?);
            counts::begin();
            let done = (row.run)(scale);
            println!("{} {}", done.operations, counts::so_far().map(|count| count.to_string()).join(" "));
        }
        ["returns", name, more @ ..] => {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name)?;
            let left = (scenario.run)(scale(more)?);
            // Nothing is allocated or freed until the last look.
            let begin = Instant::now();
            let resident = [0, 1000, 2000, 5000].map(|millis| {
                std::thread::sleep(Duration::from_millis(millis).saturating_sub(begin.elapsed()));
                benches::rss::now_kib()
            });
            let peak = benches::rss::peak_kib();
            println!("{} {peak} {}", left.bytes >> 10, resident.map(|kib| kib.to_string()).join(" "));
            std::process::exit(0); // with the threads that are parked
        }
        ["day", name, more @ ..] => {
            let day = DAYS.iter().find(|day| day.name == *name)?;
            days::live(*day, scale(more)?, |Sample { millis, alive }| {
                println!("{millis} {} {}", alive >> 10, benches::rss::now_kib());
            });
        }
        ["rows"] => workloads::rows().for_each(|row| println!("{} {}", row.name, row.what)),
        ["scenarios"] => SCENARIOS.iter().for_each(|scenario| println!("{} {}", scenario.name, scenario.what)),
        ["days"] => DAYS.iter().for_each(|day| println!("{} {}", day.name, day.what)),
        _ => return None,
    }
    Some(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if run(&arguments).is_none() {
        eprintln!("usage: rivals row|count NAME [PART [THREADS]] | latency [PART] | returns|day NAME [PART] | rows|scenarios|days");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
