//! Compare: runs the same work in fresh processes under one allocator and the other, in turn.

use crate::child::ChildReport;
use crate::dispatch::{Choice, CHOICE_VARIABLE};
use indicatif::{ProgressBar, ProgressStyle};
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The reports of all rounds.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Reports {
    /// From the runs that warmed the page cache; their times do not count, their results do.
    pub(crate) warm_up: Vec<ChildReport>,
    /// From the measured runs under Kmalloc.
    pub(crate) kmalloc: Vec<ChildReport>,
    /// From the measured runs under the system's allocator.
    pub(crate) system: Vec<ChildReport>,
}

/// Runs every child: one of each kind to warm up, then `rounds` of each, the order changing from round to round.
pub(crate) fn run(arguments: &[OsString], rounds: u32) -> Result<Reports, String> {
    let bar = ProgressBar::new(u64::from(rounds + 1) * 2);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}").expect("a valid template");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut reports = Reports::default();
    for round in 0..=rounds {
        let order = match round % 2 {
            0 => [Choice::System, Choice::Kmalloc],
            _ => [Choice::Kmalloc, Choice::System],
        };
        for choice in order {
            bar.set_message(match round {
                0 => format!("warm-up, {choice}"),
                _ => format!("round {round}, {choice}"),
            });
            let report = child(choice, arguments)?;
            match (round, choice) {
                (0, _) => reports.warm_up.push(report),
                (_, Choice::Kmalloc) => reports.kmalloc.push(report),
                (_, Choice::System) => reports.system.push(report),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(reports)
}

fn child(choice: Choice, arguments: &[OsString]) -> Result<ChildReport, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(program);
    command.args(["--child", choice.name()]).args(arguments);
    command.env(CHOICE_VARIABLE.to_str().expect("ASCII"), choice.name());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot start a child: {error}"))?;
    if !output.status.success() {
        return Err(format!("the child under {choice} failed: {}", output.status));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the child under {choice} reported nonsense: {error}"))
}
