//! Runs programs and reads what they print.

use crate::warm::warm;
use anyhow::{bail, ensure, Context, Result};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

/// One program: an allocator and the workloads.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The allocator.
    pub(crate) name: String,
    /// Its crate and version.
    pub(crate) version: String,
    /// Where it is, and others that differ in nothing but where in memory their code lies.
    paths: Vec<PathBuf>,
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '=');
        let mut part = || parts.next().map(str::to_owned).ok_or("NAME=VERSION=PATH[,PATH...] is expected");
        Ok(Self { name: part()?, version: part()?, paths: part()?.split(',').map(PathBuf::from).collect() })
    }
}

impl Program {
    /// What it prints with these arguments, if it ends well.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_in(0, arguments)
    }

    /// As [`Program::run`], of the one whose turn it is in this round.
    pub(crate) fn run_in(&self, round: usize, arguments: &[&str]) -> Result<String> {
        let what = || format!("{} {}", self.name, arguments.join(" "));
        let path = &self.paths[round % self.paths.len()];
        let output = Command::new(path).args(arguments).output().with_context(what)?;
        if !output.status.success() {
            bail!("{}: {}: {}", what(), output.status, String::from_utf8_lossy(&output.stderr));
        }
        String::from_utf8(output.stdout).with_context(what)
    }
}

/// A row of the comparison.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) what: String,
}

/// The rows that the programs have, and whose name contains one of `only`, if there are any.
pub(crate) fn rows(program: &Program, only: &[String]) -> Result<Vec<Row>> {
    let rows = listed(&program.run(&["rows"])?, only);
    ensure!(!rows.is_empty(), "no such rows");
    Ok(rows)
}

/// Names and descriptions, a line each, whose name contains one of `only`, if there are any.
pub(crate) fn listed(text: &str, only: &[String]) -> Vec<Row> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, what)| Row { name: name.to_owned(), what: what.to_owned() })
        .filter(|row| only.is_empty() || only.iter().any(|part| row.name.contains(part)))
        .collect()
}

/// What one run of one row measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Nanoseconds of the work.
    pub(crate) time: f64,
    /// Operations of the work.
    pub(crate) operations: f64,
    /// Peak of resident memory in KiB.
    pub(crate) peak: f64,
}

fn sample(text: &str) -> Option<Sample> {
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [time, operations, peak] = numbers[..] else { return None };
    (time > 0.0 && operations > 0.0 && peak > 0.0).then_some(Sample { time, operations, peak })
}

/// Runs of a row in a round before it is given up: a rival that crashes now and then is compared by the runs that end.
const TRIES: usize = 5;

/// What the runs of all rounds measured.
pub(crate) struct Samples {
    /// By row, program and round.
    pub(crate) by_row: Vec<Vec<Vec<Sample>>>,
    /// By program: runs that did not end well.
    pub(crate) crashes: Vec<usize>,
}

/// What each round measured. In each round every row runs under each allocator, one right
/// after the other; another one begins in each round, and each has its code elsewhere.
pub(crate) fn rounds(programs: &[Program], rows: &[Row], rounds: usize, part: f64) -> Result<Samples> {
    let part = part.to_string();
    let mut by_row = vec![vec![Vec::with_capacity(rounds); programs.len()]; rows.len()];
    let mut crashes = vec![0; programs.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (row, samples) in rows.iter().zip(&mut by_row) {
            for turn in 0..programs.len() {
                let which = (round + turn) % programs.len();
                let mut tries = 1..=TRIES;
                let text = loop {
                    warm()?;
                    match programs[which].run_in(round, &["row", &row.name, &part]) {
                        Err(error) if tries.next() == Some(TRIES) => return Err(error),
                        Err(error) => eprintln!("{error}"),
                        Ok(text) => break text,
                    }
                    crashes[which] += 1;
                };
                samples[which].push(sample(&text).with_context(|| format!("{}: {text}", row.name))?);
            }
        }
    }
    Ok(Samples { by_row, crashes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_three_parts() {
        let program: Program = "name=crate 1.0=/some/path".parse().unwrap();
        assert_eq!((program.name.as_str(), program.version.as_str()), ("name", "crate 1.0"));
        assert_eq!(program.paths, [PathBuf::from("/some/path")]);
        let shifted: Program = "name=crate 1.0=/some/path,/other".parse().unwrap();
        assert_eq!(shifted.paths[1], PathBuf::from("/other"));
        assert!("name=crate 1.0".parse::<Program>().is_err());
    }

    #[test]
    fn a_sample_is_three_numbers() {
        assert_eq!(sample("5 6 7\n").unwrap().peak, 7.0);
        for bad in ["", "5 6", "5 6 7 8", "0 6 7", "a b c"] {
            assert!(sample(bad).is_none());
        }
    }
}
