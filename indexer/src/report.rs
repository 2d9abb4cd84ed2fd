//! Report: the table, the state of Kmalloc, and the proof that the comparison is what it claims to be.

use crate::child::ChildReport;
use crate::compare::Reports;
use crate::dispatch::{Calls, Choice};
use comfy_table::{presets, CellAlignment, Table};
use std::fmt::Write;

/// What the C heap may hold in a process whose Rust allocations all go elsewhere: what libc itself keeps for its
/// threads. It does not grow with the work.
pub(crate) const C_HEAP_LIMIT: u64 = 64 << 10;

/// One claim about the runs, and whether it holds.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Claim {
    /// The claim and the figures it rests on.
    pub(crate) text: String,
    /// Whether it holds.
    pub(crate) holds: bool,
}

/// Checks every claim that the comparison makes.
pub(crate) fn claims(reports: &Reports) -> Vec<Claim> {
    let all: Vec<&ChildReport> = reports.warm_up.iter().chain(&reports.kmalloc).chain(&reports.system).collect();
    let of = |choice| all.iter().copied().filter(move |report| report.allocator == choice);
    let kmalloc: Vec<_> = of(Choice::Kmalloc).collect();
    let system: Vec<_> = of(Choice::System).collect();
    let both_ran = !kmalloc.is_empty() && !system.is_empty();

    let mut claims = Vec::new();
    let mut claim = |holds, text| claims.push(Claim { text, holds });

    let identical = both_ran && all.iter().all(|report| report.result_hash == all[0].result_hash);
    claim(identical, format!("the results of all {} processes are byte-identical: {}", all.len(), hashes(&all)));

    let served = |holds: bool, name, own: Vec<Calls>, other: Vec<Calls>| {
        let fewest = own.iter().map(Calls::total).min().unwrap_or(0);
        let strays: u64 = other.iter().map(Calls::total).sum();
        let text = format!("every call of a {name} process went to it: at least {fewest}; to the other: {strays}");
        (holds && fewest > 0 && strays == 0, text)
    };
    let (by_kmalloc, by_system) =
        (|report: &&ChildReport| report.served_by_kmalloc, |report: &&ChildReport| report.served_by_system);
    let (holds, text) =
        served(both_ran, "Kmalloc", kmalloc.iter().map(by_kmalloc).collect(), kmalloc.iter().map(by_system).collect());
    claim(holds, text);
    let (holds, text) =
        served(both_ran, "system", system.iter().map(by_system).collect(), system.iter().map(by_kmalloc).collect());
    claim(holds, text);

    let owned = kmalloc.iter().all(|report| report.terms_owned_by_kmalloc == report.terms && report.terms > 0);
    let fewest = kmalloc.iter().map(|report| report.terms_owned_by_kmalloc).min().unwrap_or(0);
    let terms = kmalloc.iter().map(|report| report.terms).max().unwrap_or(0);
    claim(both_ran && owned, format!("Kmalloc owns the strings of the index: at least {fewest} of {terms}"));

    let heaps = |reports: &[&ChildReport]| reports.iter().filter_map(|report| report.c_heap_bytes).max();
    if let (Some(largest), Some(systems)) = (heaps(&kmalloc), heaps(&system)) {
        let text = format!(
            "the C heap of a Kmalloc process stays empty: at most {largest} bytes in use when the index is complete, \
             limit {C_HEAP_LIMIT} (system: {systems})"
        );
        claim(largest <= C_HEAP_LIMIT, text);
    }
    claims
}

fn hashes(reports: &[&ChildReport]) -> String {
    let mut hashes: Vec<&str> = reports.iter().map(|report| report.result_hash.as_str()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.join(", ")
}

/// Smallest and middle value of one figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
}

impl Spread {
    fn of(reports: &[ChildReport], figure: impl Fn(&ChildReport) -> f64) -> Spread {
        let mut values: Vec<f64> = reports.iter().map(figure).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = (at(values.len().saturating_sub(1) / 2) + at(middle)) / 2.0;
        Spread { min: at(0), median }
    }
}

/// All that the user is shown after the runs.
pub(crate) fn text(reports: &Reports, claims: &[Claim]) -> String {
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String");
    if let Some(report) = reports.kmalloc.first() {
        let outcomes: Vec<String> = report.outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
        line(&format!("files:   {}", outcomes.join(", ")));
        line(&format!(
            "result:  {:.1} MiB of JSON, {} terms\n",
            mebibytes(report.result_bytes as f64),
            report.terms / 2
        ));
    }
    line(&table(reports).to_string());
    line("(ratio: Kmalloc / system, of minimum and of median)\n");
    if let Some(state) = reports.kmalloc.last().and_then(|report| report.kmalloc.as_ref()) {
        line("Kmalloc when the index was complete, last round");
        line(&format!(
            "arenas {}, reserved {:.1} MiB; handed out: {} slab objects ({:.1} MiB), page runs {:.1} MiB, vmalloc {:.1} MiB\n",
            state.arenas,
            mebibytes(state.reserved as f64),
            state.slab_objects,
            mebibytes(state.slab_bytes as f64),
            mebibytes(state.run_bytes as f64),
            mebibytes(state.area_bytes as f64),
        ));
        line(&format!("slabinfo\n{}", state.slabinfo));
        line(&format!("buddyinfo\n{}", state.buddyinfo));
    }
    line("proof");
    for claim in claims {
        line(&format!("{}  {}", if claim.holds { "ok    " } else { "FAILED" }, claim.text));
    }
    text
}

fn table(reports: &Reports) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "Kmalloc", "system", "ratio"]);
    let mut spread = |name: &str, unit: &str, scale: f64, figure: &dyn Fn(&ChildReport) -> f64| {
        let (ours, theirs) = (Spread::of(&reports.kmalloc, figure), Spread::of(&reports.system, figure));
        let cell = |spread: Spread| format!("{:.3} / {:.3} {unit}", spread.min * scale, spread.median * scale);
        let ratio = format!("{:.3} / {:.3}", ours.min / theirs.min, ours.median / theirs.median);
        table.add_row([format!("{name}, min / median"), cell(ours), cell(theirs), ratio]);
    };
    spread("time", "s", 1.0, &|report| report.wall_seconds);
    spread("CPU time", "s", 1.0, &|report| report.cpu_seconds);
    spread("peak RSS", "MiB", mebibytes(1.0), &|report| report.peak_rss_bytes as f64);
    let mut calls = |name: &str, figure: fn(&Calls) -> u64| {
        let ours = reports.kmalloc.iter().map(|report| figure(&report.served_by_kmalloc)).min().unwrap_or(0);
        let theirs = reports.system.iter().map(|report| figure(&report.served_by_system)).min().unwrap_or(0);
        let ratio = format!("{:.3}", ours as f64 / theirs as f64);
        table.add_row([name.to_string(), ours.to_string(), theirs.to_string(), ratio]);
    };
    calls("allocations served", |calls| calls.allocations);
    calls("reallocations served", |calls| calls.reallocations);
    calls("frees served", |calls| calls.frees);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(allocator: Choice) -> ChildReport {
        let calls = Calls { allocations: 10, reallocations: 2, frees: 9 };
        let kmalloc = allocator == Choice::Kmalloc;
        ChildReport {
            allocator,
            wall_seconds: 1.0,
            cpu_seconds: 2.0,
            peak_rss_bytes: 1 << 20,
            served_by_kmalloc: if kmalloc { calls } else { Calls::default() },
            served_by_system: if kmalloc { Calls::default() } else { calls },
            c_heap_bytes: Some(if kmalloc { 1_000 } else { 100 << 20 }),
            terms: 6,
            terms_owned_by_kmalloc: if kmalloc { 6 } else { 0 },
            result_hash: "00ff".to_string(),
            result_bytes: 100,
            outcomes: Default::default(),
            kmalloc: None,
        }
    }

    fn reports() -> Reports {
        Reports {
            warm_up: vec![report(Choice::System), report(Choice::Kmalloc)],
            kmalloc: vec![report(Choice::Kmalloc); 3],
            system: vec![report(Choice::System); 3],
        }
    }

    fn hold(reports: &Reports) -> bool {
        claims(reports).iter().all(|claim| claim.holds)
    }

    #[test]
    fn report_claims_hold_for_runs_that_are_as_they_should_be() {
        assert!(hold(&reports()));
    }

    #[test]
    fn report_claims_fail_one_by_one() {
        let spoilers: [fn(&mut Reports); 9] = [
            |reports| reports.kmalloc[1].result_hash.push('0'),
            |reports| reports.warm_up[0].result_hash.push('0'),
            |reports| reports.kmalloc[2].served_by_system.frees = 1,
            |reports| reports.kmalloc[0].served_by_kmalloc = Calls::default(),
            |reports| reports.system[0].served_by_kmalloc.allocations = 1,
            |reports| reports.kmalloc[0].terms_owned_by_kmalloc = 5,
            |reports| reports.kmalloc[0].c_heap_bytes = Some(C_HEAP_LIMIT + 1),
            |reports| *reports = Reports { system: Vec::new(), warm_up: Vec::new(), ..std::mem::take(reports) },
            |reports| *reports = Reports::default(),
        ];
        for (number, spoil) in spoilers.iter().enumerate() {
            let mut reports = reports();
            spoil(&mut reports);
            assert!(!hold(&reports), "spoiler {number}");
        }
    }

    #[test]
    fn report_spread_is_smallest_and_middle() {
        let spread = |values: &[f64]| {
            let run = |&wall_seconds| ChildReport { wall_seconds, ..report(Choice::System) };
            let reports: Vec<_> = values.iter().map(run).collect();
            Spread::of(&reports, |report| report.wall_seconds)
        };
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0 });
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Spread { min: 1.0, median: 2.5 });
        assert_eq!(spread(&[5.0]), Spread { min: 5.0, median: 5.0 });
    }

    #[test]
    fn report_text_says_which_claim_failed() {
        let mut reports = reports();
        reports.kmalloc[0].c_heap_bytes = Some(1 << 30);
        let text = text(&reports, &claims(&reports));
        assert_eq!(text.matches("FAILED").count(), 1);
        assert!(text.contains("FAILED  the C heap"), "{text}");
    }
}
