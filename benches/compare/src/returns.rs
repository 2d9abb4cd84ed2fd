//! Memory that comes back: what is resident after a burst, and while load comes and goes.

use crate::measure::{self, Program, Row};
use crate::{plots, tables};
use anyhow::{ensure, Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What one run of one scenario left, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Left {
    alive: f64,
    peak: f64,
    /// At once, after one second, two, and five.
    resident: [f64; 4],
}

impl Left {
    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [alive, peak, resident @ ..] = &numbers[..] else { return None };
        Some(Self { alive: *alive, peak: *peak, resident: resident.try_into().ok()? })
    }
}

/// What may be resident two seconds after a scenario, or five where the machine is busy, in KiB, of so many that are alive.
fn bound(scenario: &str, alive: f64) -> Option<f64> {
    match scenario {
        "idle-neighbours" => Some(1.1 * alive + 16.0 * 1024.0),
        "idle-scattered" => Some(12.0 * alive),
        "drained" | "tokio-parked" => Some(64.0 * 1024.0),
        "fragments" => Some(7.5 * alive),
        "reserved-short" | "reserved-zeros" | "reserved-long" => Some(1.1 * alive + 24.0 * 1024.0),
        _ => None,
    }
}

/// The middle one of some figures; of two the smaller.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// A moment of a day: seconds, and MiB that are alive and that are resident.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Seconds since its begin.
    pub(crate) time: f64,
    /// MiB that the program has.
    pub(crate) alive: f64,
    /// MiB that are resident.
    pub(crate) resident: f64,
}

/// A day under one allocator.
pub(crate) type Day = Vec<Moment>;

fn day(text: &str) -> Option<Day> {
    let moment = |line: &str| {
        let numbers: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [millis, alive, resident] = numbers[..] else { return None };
        Some(Moment { time: millis / 1000.0, alive: alive / 1024.0, resident: resident / 1024.0 })
    };
    text.lines().map(moment).collect()
}

/// Peak, mean, and mean at night: where less than a fifth of the most is alive.
fn of_day(day: &Day) -> [f64; 3] {
    let most = day.iter().map(|moment| moment.alive).fold(0.0, f64::max);
    let mean = |moments: Vec<&Moment>| moments.iter().map(|m| m.resident).sum::<f64>() / moments.len() as f64;
    let night = day.iter().filter(|moment| moment.alive < most / 5.0).collect();
    [day.iter().map(|moment| moment.resident).fold(0.0, f64::max), mean(day.iter().collect()), mean(night)]
}

/// Runs of a scenario by scenario and program. In each round every scenario runs under each allocator, one right after
/// the other.
fn rounds(programs: &[Program], scenarios: &[Row], rounds: usize, part: &str) -> Vec<Vec<Vec<Left>>> {
    let mut all = vec![vec![Vec::new(); programs.len()]; scenarios.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (scenario, by_program) in scenarios.iter().zip(&mut all) {
            for (program, runs) in programs.iter().zip(by_program) {
                // Some of them crash now and then: a run less.
                match program.run(&["returns", &scenario.name, part]) {
                    Ok(text) => runs.extend(Left::parse(&text)),
                    Err(error) => eprintln!("{error}"),
                }
            }
        }
    }
    all
}

/// A day under each allocator, three at a time: each is paced by the clock, and needs a part of a processor.
fn live(programs: &[Program], name: &str, part: &str) -> Result<Vec<Day>> {
    let mut days = Vec::new();
    for some in programs.chunks(3) {
        eprintln!("{name}: {}", some.iter().map(|program| program.name.as_str()).collect::<Vec<_>>().join(", "));
        let texts: Vec<Result<String>> = std::thread::scope(|scope| {
            let runs: Vec<_> = some.iter().map(|program| scope.spawn(|| program.run(&["day", name, part]))).collect();
            runs.into_iter().map(|run| run.join().expect("no panic")).collect()
        });
        for (program, text) in some.iter().zip(texts) {
            let text = text.unwrap_or_default(); // one that crashes has no day
            days.push(day(&text).with_context(|| format!("{} {name}: {text}", program.name))?);
        }
    }
    Ok(days)
}

/// Runs all scenarios and days, and prints tables; with `results`, writes them and a plot of each day there. Fails if the
/// first program keeps more than it promises.
pub(crate) fn run(
    programs: &[Program],
    times: usize,
    part: f64,
    only: &[String],
    machine: &str,
    results: Option<&Path>,
) -> Result<()> {
    let part = part.to_string();
    let (scenarios, days) = (listed(&programs[0], "scenarios", only)?, listed(&programs[0], "days", only)?);
    ensure!(!scenarios.is_empty() || !days.is_empty(), "no such scenarios");
    let (mut out, mut broken) = (String::new(), Vec::new());
    let version = &programs[0].version;
    writeln!(out, "# Memory that comes back\n\nWritten by `ci/returns.sh`, in MiB. {version}; {machine}\n")?;
    if !scenarios.is_empty() {
        writeln!(
            out,
            "What is resident two seconds after a burst, of the peak, with the threads that allocated parked and no call \
             of the\nallocator in between; medians of {times} runs in turn. *alive* is what was asked for and not freed. \
             Every allocator as its users\nget it.\n"
        )?;
        tables::header(&mut out, &["scenario", "alive"], programs);
        for (scenario, by_program) in scenarios.iter().zip(rounds(programs, &scenarios, times, &part)) {
            let middle = |runs: &[Left], what: fn(&Left) -> f64| median(runs.iter().map(what).collect());
            write!(out, "| {} | {:.1} |", scenario.name, middle(&by_program[0], |left| left.alive) / 1024.0)?;
            for runs in &by_program {
                let (resident, peak) = (middle(runs, |left| left.resident[2]), middle(runs, |left| left.peak));
                write!(out, " {:.0} of {:.0} |", resident / 1024.0, peak / 1024.0)?;
            }
            writeln!(out)?;
            ensure!(!by_program[0].is_empty(), "no run of {} under {}", scenario.name, programs[0].name);
            for left in &by_program[0] {
                let least = left.resident[2].min(left.resident[3]);
                if bound(&scenario.name, left.alive).is_some_and(|bound| least > bound) {
                    broken.push(format!("{}: {least} KiB are resident, {} alive", scenario.name, left.alive));
                }
            }
        }
    }
    for name in &days {
        let by_program = live(programs, &name.name, &part)?;
        let figures: Vec<[f64; 3]> = by_program.iter().map(of_day).collect();
        let alive = by_program[0].iter().map(|moment| moment.alive);
        let (most, mean) = (alive.clone().fold(0.0, f64::max), alive.sum::<f64>() / by_program[0].len() as f64);
        writeln!(
            out,
            "\n`{}`: {}. {most:.0} MiB\nalive at the most, {mean:.0} on average; *night* is where less than a fifth of the \
             most is alive. ![the day]({0}.svg)\n",
            name.name, name.what
        )?;
        tables::header(&mut out, &["resident"], programs);
        for (i, what) in ["at the peak", "on average", "at night"].iter().enumerate() {
            write!(out, "| {what} |")?;
            figures.iter().try_for_each(|figure| write!(out, " {:.0} |", figure[i]))?;
            writeln!(out)?;
        }
        if let Some(results) = results {
            plots::day(&results.join(format!("{}.svg", name.name)), &name.what, programs, &by_program)?;
        }
    }
    writeln!(out, "\n| scenario | what happens |\n|---|---|")?;
    scenarios.iter().try_for_each(|scenario| writeln!(out, "| {} | {} |", scenario.name, scenario.what))?;
    print!("{out}");
    if let Some(results) = results {
        fs::write(results.join("returns.md"), out)?;
    }
    ensure!(broken.is_empty(), "{} keeps more than it promises: {}", programs[0].name, broken.join("; "));
    Ok(())
}

fn listed(program: &Program, what: &str, only: &[String]) -> Result<Vec<Row>> {
    Ok(measure::listed(&program.run(&[what])?, only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_is_read() {
        let left = Left { alive: 1.0, peak: 2.0, resident: [3.0, 4.0, 5.0, 6.0] };
        assert_eq!(Left::parse("1 2 3 4 5 6\n"), Some(left));
        assert_eq!(Left::parse("1 2 3 4 5"), None);
        let day = day("0 1024 2048\n250 102400 204800\n500 1024 102400\n").unwrap();
        assert_eq!(of_day(&day), [200.0, 302.0 / 3.0, 51.0]);
        assert!(super::day("1 2").is_none());
    }

    #[test]
    fn the_middle_is_a_run_that_there_was() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![2.0, 1.0])), (2.0, 1.0));
        assert!(median(Vec::new()).is_nan());
    }
}
