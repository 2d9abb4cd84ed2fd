//! Compares allocators: runs the programs of `rivals` in turn, many times, each row in a process of its own, and writes
//! what they measured as CSV, as tables in Markdown, and as plots. `ci/bench.sh` builds the programs and calls it.

#![forbid(unsafe_code)]

mod latency;
mod measure;
mod plots;
mod returns;
mod summary;
mod tables;
mod warm;

use anyhow::{Context, Result};
use clap::Parser;
use measure::Program;
use std::fs;
use std::path::PathBuf;

/// Compares allocators by the rows of the workloads, or by what stays resident.
#[derive(Parser)]
struct Arguments {
    /// Programs to compare, as NAME=VERSION=PATH[,PATH...]; the first one is held against the others
    #[arg(required_unless_present = "warm")]
    programs: Vec<Program>,
    /// Times that each row runs under each allocator
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Times that single operations are timed under each allocator
    #[arg(long, default_value_t = 21)]
    latency_rounds: usize,
    /// How much of the work each run does
    #[arg(long, default_value_t = 1.0)]
    part: f64,
    /// Only rows whose name contains one of these
    #[arg(long)]
    only: Vec<String>,
    /// What it was measured on: a line for the results
    #[arg(long, default_value = "")]
    machine: String,
    /// Where to write the results; nothing is written without it
    #[arg(long)]
    results: Option<PathBuf>,
    /// Not the rows, but what is resident after bursts, and while load comes and goes
    #[arg(long)]
    returns: bool,
    /// Nothing but what is done before each run: lets the machine have memory that was in use a moment ago
    #[arg(long)]
    warm: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.warm {
        return warm::warm();
    }
    let programs = &arguments.programs;
    if arguments.returns {
        let Arguments { rounds, part, only, machine, results, .. } = &arguments;
        return returns::run(programs, *rounds, *part, only, machine, results.as_deref());
    }
    let rows = measure::rows(&programs[0], &arguments.only)?;
    let samples = measure::rounds(programs, &rows, arguments.rounds, arguments.part)?;
    let figures = summary::figures(programs, &rows, &samples.by_row);
    let latencies = match arguments.latency_rounds {
        0 => Vec::new(),
        rounds => latency::measure(programs, rounds, arguments.part)?,
    };
    let page = tables::page(&arguments.machine, programs, &samples, &figures, &latencies);
    print!("{page}");
    let Some(results) = arguments.results else { return Ok(()) };
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    fs::write(results.join("README.md"), page)?;
    tables::write_csv(&results.join("rows.csv"), &figures)?;
    plots::bars(&results.join("time.svg"), "Time, by the best rival of the row", programs, &figures, |f| &f.time)?;
    plots::bars(&results.join("memory.svg"), "Peak memory, by the leanest rival", programs, &figures, |f| &f.peak)?;
    if !latencies.is_empty() {
        latency::write_csv(&results.join("latency.csv"), programs, &latencies)?;
        plots::latency(&results.join("latency.svg"), programs, &latencies)?;
    }
    Ok(())
}
