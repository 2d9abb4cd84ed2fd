//! A program under the allocator that a feature has chosen: it runs one row of the workloads, or times single operations,
//! and prints what it measured in a line that `compare` reads.
//!
//! | arguments                      | prints                                                                       |
//! |--------------------------------|------------------------------------------------------------------------------|
//! | `row NAME [PART [THREADS]]`    | nanoseconds, operations, peak of resident memory in KiB                      |
//! | `latency [PART]`               | peak of resident memory in KiB, then value and count of each step, in pairs  |
//! | `rows`                         | name and description of each row, a line each                                |

use std::process::ExitCode;
use workloads::Scale;

#[cfg(feature = "kmalloc")]
#[global_allocator]
static GLOBAL: allocator_global::Kmalloc = allocator_global::Kmalloc::new();

#[cfg(any(feature = "mimalloc-v3", feature = "mimalloc-v2"))]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "snmalloc")]
#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

#[cfg(feature = "rpmalloc")]
#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

#[cfg(feature = "tcmalloc")]
#[global_allocator]
static GLOBAL: tcmalloc_better::TCMalloc = tcmalloc_better::TCMalloc;

#[cfg(feature = "rusty")]
#[global_allocator]
static GLOBAL: rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

fn run(arguments: &[&str]) -> Option<()> {
    let part = |text: &str| text.parse().ok().map(Scale::new);
    match arguments {
        ["row", name, more @ ..] => {
            let row = workloads::row(name)?;
            let scale = match more {
                [] => Scale::FULL,
                [part_of] => part(part_of)?,
                [part_of, threads] => part(part_of)?.with_threads(threads.parse().ok()?),
                _ => return None,
            };
            let done = (row.run)(scale);
            println!("{} {} {}", done.time.as_nanos(), done.operations, benches::rss::peak_kib());
        }
        ["latency", more @ ..] => {
            let times = workloads::latencies(more.first().map_or(Some(Scale::FULL), |text| part(text))?);
            print!("{}", benches::rss::peak_kib());
            for step in times.iter_recorded() {
                print!(" {} {}", step.value_iterated_to(), step.count_at_value());
            }
            println!();
        }
        ["rows"] => workloads::rows().for_each(|row| println!("{} {}", row.name, row.what)),
        _ => return None,
    }
    Some(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if run(&arguments).is_none() {
        eprintln!("usage: rivals row NAME [PART [THREADS]] | latency [PART] | rows");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
